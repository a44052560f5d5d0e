"""Each distinct frame is encoded once, and it makes no difference."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.agent.cpu import frames
from trxl_jax.agent.cpu.frames import add_step, empty_frame_table, hash_frames, unique_indices
from trxl_jax.config import Config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.observations import picture


def pictures(count: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (count, 84, 84, 3)), jnp.uint8)


def floats(count: int, shape: tuple[int, ...] = (10, 10, 4)) -> jax.Array:
    """Pictures of zeros and ones, as of MinAtar's games."""
    return jnp.asarray(np.random.default_rng(0).integers(0, 2, (count, *shape)), jnp.float32)


def fill(choices: np.ndarray, pool: jax.Array) -> tuple[frames.FrameTable, list[int], np.ndarray]:
    """A table of steps [T, N] of frames from a pool; how many each step encoded; the features it was given."""
    counts: list[int] = []

    def encode(obs: jax.Array, count: jax.Array) -> jax.Array:
        counts.append(int(count))
        sums = features_of(obs)
        return jnp.where(jnp.arange(len(obs))[:, None] < count, sums, jnp.nan)  # what isn't asked for isn't there

    table = empty_frame_table(choices.size, pool, features_of(pool).shape[1])
    features = []
    with jax.disable_jit():  # counts are numbers, and what isn't needed isn't called
        for t, row in enumerate(choices):
            table, encoded = add_step(table, jnp.int32(t * len(row)), pool[row], encode)
            features.append(encoded)
    return table, counts, np.stack(features)


def features_of(obs: jax.Array) -> jax.Array:
    """Sums of rows, [B, ...] to [B, ...] without the first of an observation's axes."""
    return obs.astype(jnp.float32).sum(axis=1).reshape(len(obs), -1)


@pytest.mark.parametrize(
    "make_pool",
    [pictures, lambda n: pictures(n)[..., 0], floats, lambda n: floats(n, (3, 3, 2, 2))],
    ids=["colours", "grey", "floats", "four axes"],
)
def test_a_table_encodes_what_is_new_and_finds_the_rest(make_pool: Callable[[int], jax.Array]) -> None:
    pool = make_pool(4)
    choices = np.array([[0, 1, 0], [1, 1, 2], [2, 0, 1], [3, 3, 0]])
    table, counts, features = fill(choices, pool)
    assert counts == [2, 1, 1]
    assert table.first_index.tolist() == [0, 1, 0, 1, 1, 5, 5, 0, 1, 9, 9, 0]
    np.testing.assert_array_equal(features, features_of(pool)[choices])
    np.testing.assert_array_equal(table.obs, pool[choices.reshape(-1)])


def test_a_collision_costs_an_encoding_and_does_not_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "hash_frames", lambda obs: jnp.zeros(len(obs), jnp.uint32))
    pool = pictures(3)
    choices = np.array([[0, 1], [1, 2]])
    _, counts, features = fill(choices, pool)
    assert counts == [2, 2]
    np.testing.assert_array_equal(features, features_of(pool)[choices])


def test_hashes_tell_small_changes_apart() -> None:
    frame = np.array(pictures(1)[0])
    changed = []
    for place in range(0, 84 * 84 * 3, 97):
        for bit in (1, 128):
            other = frame.copy()
            other.reshape(-1)[place] ^= bit
            changed.append(other)
    hashes = hash_frames(jnp.asarray(np.stack([frame, *changed])))
    assert len(np.unique(hashes)) == len(hashes)


def test_hashes_of_floats_take_all_their_bits() -> None:
    """Ones have 23 bits of zeros, with which a product by odd numbers would have 512 values."""
    values = floats(5000)
    for scale in (1, 2, 0.5, -1, 1e-3):
        assert len(np.unique(hash_frames(values * scale))) > 4990
    one = np.array(values[0])
    changed = [one, *(np.where(np.arange(one.size).reshape(one.shape) == i, 1e-7, one) for i in range(one.size))]
    assert len(np.unique(hash_frames(jnp.asarray(np.stack(changed), jnp.float32)))) == len(changed)


def test_floats_that_equal_in_value_or_in_bits_only_are_encoded_once_more() -> None:
    zero = jnp.zeros((1, 3, 3))
    pool = jnp.concatenate([zero, -zero, zero.at[0, 1, 1].set(jnp.nan)])
    _, counts, features = fill(np.array([[0, 0], [1, 2], [1, 2], [0, 0]]), pool)
    assert counts == [1, 2, 1]  # minus zero as if it were new, not a number whenever it is seen
    np.testing.assert_array_equal(features, features_of(pool)[np.array([[0, 0], [1, 2], [1, 2], [0, 0]])])


def test_unique_indices() -> None:
    indices = jnp.array([5, 3, 5, 9, 3])
    unique = unique_indices(indices)
    assert unique.num_unique == 3
    np.testing.assert_array_equal(unique.indices[unique.inverse], indices)


@pytest.mark.parametrize("make_pool", [pictures, floats])
def test_sharing_frames_changes_neither_values_nor_gradients(make_pool: Callable[[int], jax.Array]) -> None:
    pool = make_pool(6)
    config = Config(trxl_dim=16, trxl_num_heads=2, trxl_num_layers=1)
    spec = EnvSpec(picture(*pool.shape[1:], dtype=pool.dtype), DiscreteActions((3,)), 20)
    shared, plain = make_agent(config, spec, "cpu"), make_agent(config, spec, "gpu")
    params = shared.init_params(jax.random.key(0))
    indices = jnp.array([0, 3, 3, 0, 5, 0, 3])
    cotangent = jax.random.normal(jax.random.key(1), (7, 16))

    def once(params: dict) -> jax.Array:
        unique = unique_indices(indices)
        features = shared.apply(params, pool, unique.indices, unique.num_unique, 2, method="encode_at")
        return (features[unique.inverse] * cotangent).sum()

    def every(params: dict) -> jax.Array:
        return (plain.apply(params, pool[indices], method="encode") * cotangent).sum()

    (value, gradient), (expected, expected_gradient) = (jax.value_and_grad(f)(params) for f in (once, every))
    assert value == pytest.approx(float(expected), rel=1e-5)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1e-6, float(jnp.abs(theirs).max())))
