"""Distributions over actions, the layers that parametrise them, and the noise that samples them.

For another kind of action space: its class in `envs/spaces.py`, a distribution like `MultiCategorical` here, and a case
in each of the three functions below it. Nothing else in the agent or in PPO knows what an action is.
"""

from collections.abc import Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trxl_jax.agent.initializers import ACTOR_GAIN, orthogonal_dense
from trxl_jax.agent.numerics import Numerics
from trxl_jax.envs.spaces import DiscreteActions


@struct.dataclass
class MultiCategorical:
    """Independent categorical distributions, one for each action branch.

    Fields:
        logits: f32[..., sum(nvec)], the logits of all branches, concatenated.
        nvec: number of choices of each of the A branches.
    """

    logits: jax.Array
    nvec: tuple[int, ...] = struct.field(pytree_node=False)

    def branches(self) -> list[jax.Array]:
        """Normalised logits of each branch, f32[..., nvec[a]]."""
        return [jax.nn.log_softmax(part, axis=-1) for part in self._split(self.logits)]

    def probabilities(self) -> jax.Array:
        """Of all choices, branches concatenated, f32[..., sum(nvec)]."""
        return jnp.exp(jnp.concatenate(self.branches(), axis=-1))

    def _split(self, logits: jax.Array) -> list[jax.Array]:
        return jnp.split(logits, np.cumsum(self.nvec)[:-1], axis=-1)

    def sample(self, noise: jax.Array) -> jax.Array:
        """Samples i32[..., A] by the Gumbel-max trick, from `sampling_noise` shaped like the logits."""
        return jnp.stack([part.argmax(axis=-1) for part in self._split(self.logits + noise)], axis=-1)

    def mode(self) -> jax.Array:
        """The most probable choices, i32[..., A]."""
        return jnp.stack([part.argmax(axis=-1) for part in self._split(self.logits)], axis=-1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probabilities f32[..., A] of actions i32[..., A], one a branch."""
        chex.assert_shape(action, (*self.logits.shape[:-1], len(self.nvec)))
        branches = [
            jnp.take_along_axis(branch, action[..., i : i + 1], axis=-1) for i, branch in enumerate(self.branches())
        ]
        return jnp.concatenate(branches, axis=-1)

    def entropy(self) -> jax.Array:
        """f32[...], summed over branches."""
        return jnp.sum(jnp.stack([-(jnp.exp(b) * b).sum(axis=-1) for b in self.branches()]), axis=0)

    def kl_divergence(self, other: "MultiCategorical") -> jax.Array:
        """KL(self || other), f32[...], summed over branches."""

        def divergence(p: jax.Array, q: jax.Array) -> jax.Array:
            # p log(p / q), and q - p, which adds up to nothing: no term is negative, and small divergences aren't
            # differences of large numbers.
            return (jnp.exp(p) * (jnp.expm1(q - p) - (q - p))).sum(axis=-1)

        return jnp.sum(jnp.stack([*map(divergence, self.branches(), other.branches())]), axis=0)


def make_heads(action: DiscreteActions, dim: int, numerics: Numerics) -> list[nn.Module]:
    """Layers from features f32[..., D] to the parameters of a distribution over actions, one a branch."""
    return [orthogonal_dense(n, dim, ACTOR_GAIN, numerics) for n in action.nvec]


def make_distribution(
    action: DiscreteActions, outputs: Sequence[jax.Array], mask: jax.Array | None = None
) -> MultiCategorical:
    """The distribution over [...] whose parameters f32[..., nvec[a]] are the outputs of the heads."""
    logits = jnp.concatenate(outputs, axis=-1)
    return MultiCategorical(logits if mask is None else jnp.where(mask, logits, -1e9), action.nvec)


def sampling_noise(action: DiscreteActions, key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Standard Gumbel noise f32[*shape, sum(nvec)] for `sample`."""
    return jax.random.gumbel(key, (*shape, sum(action.nvec)))
