"""Encodings of the episode step at which a memory slot was written."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def position_frequencies(dim: int) -> np.ndarray:
    """Frequencies of absolute positions, f32[D / 2]: 10000^(-j / D) for even j (Vaswani et al. 2017)."""
    # The exponent is rounded to float32 before the power, as in the original: at step 1,000 the last bit of a frequency
    # changes the sine by 6e-5.
    exponent = -np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    return (10000.0 ** exponent.astype(np.float64)).astype(np.float32)


class PositionalEncoding(nn.Module):
    """Encodings of episode steps.

    Fields:
        kind: absolute (sines and cosines of E - 1 - position), learned (a table of E rows) or none.
        dim: D.
        max_episode_steps: E. Steps past it go on for absolute positions, and read the last row of the table.
    """

    kind: str
    dim: int
    max_episode_steps: int

    @nn.compact
    def __call__(self, position: jax.Array) -> jax.Array:
        """i32[...] to f32[..., D]."""
        if self.kind == "none":
            return jnp.zeros((*position.shape, self.dim), jnp.float32)
        if self.kind == "learned":
            table = self.param("table", nn.initializers.normal(1.0), (self.max_episode_steps, self.dim))
            return table[jnp.minimum(position, self.max_episode_steps - 1)]
        angle = (self.max_episode_steps - 1 - position).astype(jnp.float32)[..., None] * position_frequencies(self.dim)
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
