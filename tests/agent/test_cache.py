import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trxl_jax.agent.cores import cache as episodic
from trxl_jax.agent.cores.ring import RingBuffer
from trxl_jax.agent.cores.visibility import visible_slots


def seen(query_slot: int, episode_step: int, num_slots: int, window: int) -> list[int]:
    mask = visible_slots(jnp.array([[query_slot]]), jnp.array([[episode_step]]), jnp.arange(num_slots), window)
    return np.flatnonzero(mask[0, 0]).tolist()


@pytest.mark.parametrize(
    ("episode_step", "slots"),
    [(0, []), (1, [8]), (2, [7, 8]), (3, [6, 7, 8]), (4, [6, 7, 8]), (5000, [6, 7, 8])],
)
def test_a_query_sees_the_steps_just_before_its_own_but_one_less_than_the_window(
    episode_step: int, slots: list[int]
) -> None:
    assert seen(9, episode_step, 12, 4) == slots


def test_a_window_of_one_is_no_memory() -> None:
    assert seen(9, 100, 12, 1) == []


def test_append_writes_one_slot_in_the_memorys_dtype() -> None:
    memory = episodic.start_rollout(episodic.init(2, 3, 1, 4), 5)
    assert memory.hidden.shape == (2, 8, 1, 4)
    assert memory.hidden.dtype == jnp.bfloat16
    memory = episodic.append(memory, 4, jnp.full((2, 1, 4), 1 / 3), jnp.array([2, 1]))
    np.testing.assert_array_equal(memory.position[:, 4], [2, 1])
    np.testing.assert_array_equal(memory.hidden[:, 4].astype(jnp.float32), jnp.float32(jnp.bfloat16(1 / 3)))
    assert not memory.hidden[:, [3, 5]].any()
    kept = episodic.end_rollout(memory, 3, jnp.array([7, 0]))
    assert kept.hidden.shape == (2, 3, 1, 4)
    assert kept.episode_step.tolist() == [7, 0]


def test_the_memory_passes_no_gradient() -> None:
    memory = episodic.start_rollout(episodic.init(1, 2, 1, 2, jnp.float32), 1)
    gradient = jax.grad(lambda h: episodic.append(memory, 2, h, jnp.zeros(1, jnp.int32)).hidden.sum())(
        jnp.ones((1, 1, 2))
    )
    assert not gradient.any()


def test_the_endless_preset_caches_57_megabytes_whatever_the_length_of_episodes() -> None:
    n, t, w, layers, dim = 32, 512, 256, 3, 384
    memory = jax.eval_shape(lambda: episodic.start_rollout(episodic.init(n, w, layers, dim), t))
    assert memory.hidden.size * memory.hidden.dtype.itemsize == n * (w + t) * layers * dim * 2 == 56_623_104


def test_a_ring_buffer_holds_the_newest_slots() -> None:
    ring = RingBuffer([jnp.zeros((1, 1, 4, 1))])
    assert ring.slots(jnp.int32(4)).tolist() == [0, 1, 2, 3]
    assert ring.slots(jnp.int32(6)).tolist() == [4, 5, 2, 3]
    assert ring.slots(jnp.int32(11)).tolist() == [8, 9, 10, 7]
