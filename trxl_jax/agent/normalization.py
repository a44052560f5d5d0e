"""Observations and rewards divided by running standard deviations, which are kept beside the parameters.

The agent's variables are then `{"params": ..., "normalization": {"observations": ..., "rewards": ...}}`. Numbers among
the observations have moments, by name if there are several arrays; pictures and choices have none. Whoever applies the
agent sees moments that stand still; PPO moves them at the end of an iteration (`ppo/moments.py`).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from trxl_jax.config import Config
from trxl_jax.envs.base import EnvSpec
from trxl_jax.errors import ConfigError

COLLECTION = "normalization"
# As in CleanRL's ppo_continuous_action.py and in Gymnasium's wrappers.
_EPSILON, _MOST = 1e-8, 10.0


class Moments(TypedDict):
    """Of everything that was seen; a plain dict, which is what a checkpoint gives back.

    Rounding adds up: after 1e8 steps in rollouts of 16,384, mean and variance of numbers around 100 +- 4 differ from
    those in float64 by 1.3e-6 and 9e-6 of themselves. The count is exact up to 2^24 steps, then to 6e-8 a rollout.

    Fields:
        mean: f32[*shape].
        variance: f32[*shape], with n in the denominator.
        count: f32[], steps; 0 before the first rollout, when mean and variance are 0 and 1.
    """

    mean: jax.Array
    variance: jax.Array
    count: jax.Array


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What an agent normalises.

    Fields:
        observations: numbers, before they are encoded.
        rewards: while learning.
    """

    observations: bool = False
    rewards: bool = False

    def __bool__(self) -> bool:
        return self.observations or self.rewards


def make_normalization(config: Config, spec: EnvSpec) -> Normalization:
    """What a configuration asks for.

    Raises:
        ConfigError: observations are to be normalised, and there are no numbers among them.
    """
    if config.normalize_observations and not fresh_observation_moments(spec):
        raise ConfigError(
            f"--normalize_observations: {config.env_id} has no observations but pictures and choices, which are never "
            "normalised; leave it out"
        )
    return Normalization(config.normalize_observations, config.normalize_rewards)


def fresh_moments(shape: tuple[int, ...] = ()) -> Moments:
    """Moments of nothing, which the first merge replaces; arrays f32[*shape]."""
    return {"mean": jnp.zeros(shape), "variance": jnp.ones(shape), "count": jnp.float32(0)}


def fresh_observation_moments(spec: EnvSpec) -> Any:
    """`fresh_moments` of each array of numbers by name, or of the only array."""
    arrays = spec.obs.arrays.items()
    moments: dict[str, Any] = {name: fresh_moments(array.shape) for name, array in arrays if array.kind == "numbers"}
    return moments.get("", moments)


def merge(moments: Moments, values: jax.Array) -> Moments:
    """Moments of what was seen before and of more values (Chan, Golub and LeVeque 1983).

    Args:
        moments: of arrays of a shape.
        values: f32[..., *shape].
    """
    axes = tuple(range(values.ndim - moments["mean"].ndim))
    more = float(math.prod(values.shape[: len(axes)]))
    total = moments["count"] + more
    old, new = moments["count"] / total, more / total
    distance = values.mean(axis=axes) - moments["mean"]
    return {
        "mean": moments["mean"] + new * distance,
        "variance": old * moments["variance"] + new * values.var(axis=axes) + old * new * jnp.square(distance),
        "count": total,
    }


def merge_observations(moments: Any, obs: Any) -> Any:
    """`merge` of each array of observations [..., *obs_shape] that has moments."""
    if not isinstance(obs, Mapping):
        return merge(moments, obs)
    return {name: merge(seen, obs[name]) for name, seen in moments.items()}


def normalise(moments: Moments, array: jax.Array) -> jax.Array:
    """Numbers [..., *shape] less their mean, divided by their standard deviation and clipped to +-10."""
    return jnp.clip((array - moments["mean"]) / _deviation(moments), -_MOST, _MOST)


def reward_scale(variables: Any) -> jax.Array:
    """What rewards are divided by, f32[], from an agent's variables: the standard deviation of discounted returns."""
    return _deviation(variables[COLLECTION]["rewards"])


def scale_rewards(variables: Any, reward: jax.Array) -> jax.Array:
    """Rewards f32[...] divided by `reward_scale` and clipped to +-10."""
    return jnp.clip(reward / reward_scale(variables), -_MOST, _MOST)


def _deviation(moments: Moments) -> jax.Array:
    return jnp.sqrt(moments["variance"] + _EPSILON)
