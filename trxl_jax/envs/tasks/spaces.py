"""Spaces that gymnax lacks."""

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces as gymnax_spaces


class MultiDiscrete(gymnax_spaces.Space):
    """Space of several discrete choices.

    Args:
        nvec: number of choices of each branch. Samples are i32[branches] with `0 <= sample < nvec`.
    """

    def __init__(self, *nvec: int) -> None:
        self.nvec = np.asarray(nvec)
        self.shape = self.nvec.shape
        self.dtype = jnp.int32

    def sample(self, key: jax.Array) -> jax.Array:
        """Samples uniformly, i32[branches]."""
        return jax.random.randint(key, self.shape, 0, self.nvec, self.dtype)

    def contains(self, x: jax.Array) -> jax.Array:
        """Whether every choice is valid, bool[]."""
        return jnp.all((x >= 0) & (x < self.nvec))
