"""Distributions over actions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


@struct.dataclass
class MultiCategorical:
    """Independent categorical distributions, one for each action branch.

    Fields:
        logits: f32[..., sum(nvec)], the branches' logits side by side.
        nvec: number of choices of each of the A branches.
    """

    logits: jax.Array
    nvec: tuple[int, ...] = struct.field(pytree_node=False)

    def branches(self) -> list[jax.Array]:
        """Normalised logits of each branch, f32[..., nvec[a]]."""
        return [jax.nn.log_softmax(part, axis=-1) for part in self._split(self.logits)]

    def _split(self, logits: jax.Array) -> list[jax.Array]:
        return jnp.split(logits, np.cumsum(self.nvec)[:-1], axis=-1)

    def sample(self, key: jax.Array) -> jax.Array:
        """i32[..., A]."""
        return self.choose(jax.random.gumbel(key, self.logits.shape))

    def choose(self, noise: jax.Array) -> jax.Array:
        """A sample i32[..., A] by the Gumbel-max trick, from standard Gumbel noise shaped like the logits."""
        return jnp.stack([part.argmax(axis=-1) for part in self._split(self.logits + noise)], axis=-1)

    def mode(self) -> jax.Array:
        """The most probable choices, i32[..., A]."""
        return jnp.stack([part.argmax(axis=-1) for part in self._split(self.logits)], axis=-1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """i32[..., A] to f32[..., A], one number a branch."""
        chex.assert_shape(action, (*self.logits.shape[:-1], len(self.nvec)))
        picked = [
            jnp.take_along_axis(branch, action[..., i : i + 1], axis=-1) for i, branch in enumerate(self.branches())
        ]
        return jnp.concatenate(picked, axis=-1)

    def entropy(self) -> jax.Array:
        """f32[...], summed over branches."""
        return jnp.sum(jnp.stack([-(jnp.exp(b) * b).sum(axis=-1) for b in self.branches()]), axis=0)
