"""Each distinct frame is encoded once, and it makes no difference."""

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


def pictures(count: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (count, 84, 84, 3)), jnp.uint8)


def fill(choices: np.ndarray, pool: jax.Array) -> tuple[frames.FrameTable, list[int], np.ndarray]:
    """A table of steps [T, N] of frames from a pool; how many each step encoded; the features it was given."""
    counts: list[int] = []

    def encode(obs: jax.Array, count: jax.Array) -> jax.Array:
        counts.append(int(count))
        sums = obs.astype(jnp.float32).sum(axis=(1, 2))
        return jnp.where(jnp.arange(len(obs))[:, None] < count, sums, jnp.nan)  # what isn't asked for isn't there

    table = empty_frame_table(choices.size, pool, 3)
    features = []
    with jax.disable_jit():  # counts are numbers, and what isn't needed isn't called
        for t, row in enumerate(choices):
            table, encoded = add_step(table, jnp.int32(t * len(row)), pool[row], encode)
            features.append(encoded)
    return table, counts, np.stack(features)


def test_a_table_encodes_what_is_new_and_finds_the_rest() -> None:
    pool = pictures(4)
    choices = np.array([[0, 1, 0], [1, 1, 2], [2, 0, 1], [3, 3, 0]])
    table, counts, features = fill(choices, pool)
    assert counts == [2, 1, 1]
    assert table.first_index.tolist() == [0, 1, 0, 1, 1, 5, 5, 0, 1, 9, 9, 0]
    np.testing.assert_array_equal(features, pool[choices].astype(jnp.float32).sum(axis=(2, 3)))
    np.testing.assert_array_equal(table.obs, pool[choices.reshape(-1)])


def test_a_collision_costs_an_encoding_and_does_not_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "hash_frames", lambda obs: jnp.zeros(len(obs), jnp.uint32))
    pool = pictures(3)
    choices = np.array([[0, 1], [1, 2]])
    _, counts, features = fill(choices, pool)
    assert counts == [2, 2]
    np.testing.assert_array_equal(features, pool[choices].astype(jnp.float32).sum(axis=(2, 3)))


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


def test_unique_indices() -> None:
    indices = jnp.array([5, 3, 5, 9, 3])
    unique = unique_indices(indices)
    assert unique.num_unique == 3
    np.testing.assert_array_equal(unique.indices[unique.inverse], indices)


def test_sharing_frames_changes_neither_values_nor_gradients() -> None:
    config = Config(trxl_dim=16, trxl_num_heads=2, trxl_num_layers=1)
    spec = EnvSpec((84, 84, 3), np.dtype(np.uint8), DiscreteActions((3,)), 20)
    shared, plain = make_agent(config, spec, "cpu"), make_agent(config, spec, "gpu")
    params = shared.init_params(jax.random.key(0))
    pool, indices = pictures(6), jnp.array([0, 3, 3, 0, 5, 0, 3])
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
