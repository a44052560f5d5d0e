"""Spaces that gymnax lacks."""

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces as gymnax_spaces
from jax.typing import ArrayLike


class MultiDiscrete(gymnax_spaces.Space):
    """Space of several discrete choices.

    Args:
        nvec: number of choices of each branch, or arrays of them of one shape. Samples are i32[*shape of nvec] with
            `0 <= sample < nvec`.
    """

    def __init__(self, *nvec: ArrayLike) -> None:
        self.nvec = np.asarray(nvec)
        self.shape = self.nvec.shape
        self.dtype = jnp.int32

    def sample(self, key: jax.Array) -> jax.Array:
        """Samples uniformly, i32[*shape of nvec]."""
        return jax.random.randint(key, self.shape, 0, self.nvec, self.dtype)

    def contains(self, x: jax.Array) -> jax.Array:
        """Whether every choice is valid, bool[]."""
        return jnp.all((x >= 0) & (x < self.nvec))
