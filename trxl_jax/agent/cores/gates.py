"""The gate that takes the place of a residual connection in GTrXL."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from trxl_jax.agent.initializers import torch_default
from trxl_jax.agent.numerics import Numerics

GATE_BIAS = 2.0


class Gate(nn.Module):
    """GRU-type gate of a stream and the output of a submodule (Parisotto et al. 2019, section 3.2).

    Its bias b_g is subtracted, and starts at 2: a fresh gate passes some 0.88 of the stream.

    Fields:
        numerics: platform and precision.
    """

    numerics: Numerics

    @nn.compact
    def __call__(self, stream: jax.Array, update: jax.Array) -> jax.Array:
        """Joins the stream f32[..., D] and a submodule's output f32[..., D]; f32[..., D]."""
        dim = stream.shape[-1]

        def product(rows: jax.Array, name: str) -> jax.Array:
            return self.numerics.product(rows, self.param(name, torch_default, (dim, dim))).astype(jnp.float32)

        bias = self.param("b_g", nn.initializers.constant(GATE_BIAS), (dim,))
        reset = nn.sigmoid(product(update, "w_r") + product(stream, "u_r"))
        new = nn.sigmoid(product(update, "w_z") + product(stream, "u_z") - bias)
        candidate = jnp.tanh(product(update, "w_g") + product(reset * stream, "u_g"))
        return (1 - new) * stream + new * candidate
