"""The action and the reward of the step before, as inputs beside the observation."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from trxl_jax.agent.initializers import dense
from trxl_jax.agent.numerics import Numerics
from trxl_jax.envs.actions import ActionSpace, DiscreteActions


class Previous(NamedTuple):
    """What the step before did; means nothing in the first step of an episode.

    Fields:
        action: [..., C].
        reward: f32[...].
    """

    action: jax.Array
    reward: jax.Array


@dataclasses.dataclass(frozen=True)
class PreviousInputs:
    """Which parts of `Previous` are inputs; at least one is.

    Fields:
        action: choices one-hot, numbers inside their bounds; columns concatenated.
        reward: as it is.
    """

    action: bool
    reward: bool


class PreviousEncoder(nn.Module):
    """A linear layer whose output is added to the encoded observation, as if both had been joined before it.

    Fields:
        inputs: what it reads.
        space: of the actions.
        dim: D.
        numerics: the platform; factors are float32: rewards and numbers may have any scale, and there are few of them.
    """

    inputs: PreviousInputs
    space: ActionSpace
    dim: int
    numerics: Numerics

    @nn.compact
    def __call__(self, previous: Previous, episode_step: jax.Array) -> jax.Array:
        """f32[..., D]; in the first steps of episodes, where i32[...] `episode_step` is 0, it has no inputs."""
        parts = []
        if self.inputs.action:
            for space, columns in zip(self.space.parts, self.space.split(previous.action), strict=True):
                if isinstance(space, DiscreteActions):
                    parts += [jax.nn.one_hot(columns[..., i], n) for i, n in enumerate(space.nvec)]
                else:
                    parts.append(space.clip(columns))
        if self.inputs.reward:
            parts.append(previous.reward[..., None])
        features = jnp.where(episode_step[..., None] > 0, jnp.concatenate(parts, axis=-1), 0.0)
        return dense(self.dim, features.shape[-1], self.numerics.full_precision)(features)
