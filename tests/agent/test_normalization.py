"""Running moments against NumPy in float64, and what is done with them."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.agent.normalization import (
    Moments,
    fresh_moments,
    merge,
    merge_observations,
    normalise,
    scale_rewards,
)
from trxl_jax.config import Config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.observations import DictSpace, numbers, picture
from trxl_jax.runs import checkpoint

LEAF_OF_NUMBERS = {"mean": jnp.array([1.0, -2.0]), "variance": jnp.array([4.0, 0.0]), "count": jnp.float32(7)}


def merge_all(values: np.ndarray, sizes: np.ndarray) -> Moments:
    moments = fresh_moments(values.shape[1:])
    for part in np.split(values, np.cumsum(sizes)[:-1]):
        moments = merge(moments, jnp.asarray(part.reshape(1, len(part), *values.shape[1:])))
    return moments


@pytest.mark.parametrize("seed", range(4))
def test_merging_in_parts_is_looking_at_everything(seed: int) -> None:
    """Parts of any size, of numbers whose mean, scale and spread between parts differ by much."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 400, size=9)
    scale, offset = 10.0 ** rng.integers(-4, 5, size=3), rng.normal(size=3) * 5
    parts = [rng.normal(size=(n, 3)) + offset + rng.normal(size=3) for n in sizes]
    values = (np.concatenate(parts) * scale).astype(np.float32)
    moments = merge_all(values, sizes)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(moments["mean"], exact.mean(axis=0), rtol=1e-5, atol=1e-6 * scale.min())
    np.testing.assert_allclose(moments["variance"], exact.var(axis=0), rtol=2e-5)
    assert moments["count"] == sizes.sum()


def test_the_first_rollout_replaces_the_moments_of_nothing() -> None:
    values = np.full((8, 2), 2.0**-10, np.float32)
    moments = merge_all(values, np.array([8]))
    np.testing.assert_array_equal(moments["mean"], values[0])
    np.testing.assert_array_equal(moments["variance"], 0)


@pytest.mark.slow
def test_moments_stay_accurate_for_a_hundred_million_steps() -> None:
    """The claim of `Moments`: float32 against sums in float64."""
    size, rollouts = 2**14, 6104
    rng = np.random.default_rng(0)
    step, moments = jax.jit(merge), fresh_moments()
    shifted = np.zeros(2)
    for i in range(rollouts):
        values = (rng.standard_normal(size, np.float32) + np.float32(np.sin(i / 500))) * 3 + 100
        moments = step(moments, jnp.asarray(values))
        exact = values.astype(np.float64) - 100
        shifted += exact.sum(), (exact**2).sum()
    mean, square = shifted / (size * rollouts)
    variance = square - mean**2
    assert float(moments["mean"]) == pytest.approx(100 + mean, rel=3e-6)
    assert float(moments["variance"]) == pytest.approx(variance, rel=2e-5)
    assert float(moments["count"]) == pytest.approx(size * rollouts, rel=1e-6)


def test_observations_are_standardised_and_clipped() -> None:
    obs = jnp.array([[3.0, -2.0], [-1.0, -2.0001], [1e5, 5.0]])
    normalised = normalise(LEAF_OF_NUMBERS, obs)
    np.testing.assert_allclose(normalised, [[1.0, 0.0], [-1.0, -1.0], [10.0, 10.0]], rtol=2e-3)


def test_rewards_keep_their_sign_and_zero() -> None:
    variables = {"normalization": {"rewards": {"mean": 3.0, "variance": jnp.float32(16), "count": 5.0}}}
    np.testing.assert_allclose(scale_rewards(variables, jnp.array([-8.0, 0.0, 2.0, 1e6])), [-2.0, 0.0, 0.5, 10.0])


def test_only_numbers_of_nested_observations_have_moments(tmp_path: Path) -> None:
    """By name; the agent sees the numbers normalised, and a checkpoint keeps the tree."""
    space = DictSpace((("numbers", numbers(2)), ("picture", picture(3, 4))))
    spec = EnvSpec(space, DiscreteActions((2,)), 5)
    obs: dict[str, Any] = {"picture": jnp.ones((2, 3, 3, 4), jnp.uint8), "numbers": jnp.full((2, 3, 2), 3.0)}
    config = Config(trxl_dim=8, trxl_num_heads=2, trxl_num_layers=1)
    plain, agent = (make_agent(config.replace(normalize_observations=flag), spec) for flag in (False, True))
    variables = agent.init_params(jax.random.key(0))
    assert set(variables["normalization"]["observations"]) == {"numbers"}
    variables["normalization"] = {"observations": {"numbers": LEAF_OF_NUMBERS}}
    seen = agent.apply(variables, obs, method="encode")
    expected = obs | {"numbers": jnp.broadcast_to(jnp.array([1.0, 10.0]), (2, 3, 2))}
    same = plain.apply({"params": variables["params"]}, expected, method="encode")
    np.testing.assert_allclose(seen, same, rtol=1e-5, atol=1e-5)
    merged = merge_observations(variables["normalization"]["observations"], obs)
    assert merged["numbers"]["count"] == 13

    state = ({"params": {"params": {"w": jnp.ones(2)}, "normalization": {"observations": merged}}}, jnp.ones(1))
    path = checkpoint.save(tmp_path, 1, state, {}, keep=None)
    restored = checkpoint.restore_params(path)
    jax.tree.map(np.testing.assert_array_equal, restored, state[0]["params"])
