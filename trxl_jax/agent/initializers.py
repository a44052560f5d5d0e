"""Layers with the original's initial distributions, which are PyTorch's defaults where it sets none."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.nn.initializers import Initializer, variance_scaling

from trxl_jax.agent.numerics import Numerics

HIDDEN_GAIN = math.sqrt(2)
ACTOR_GAIN = 0.1
CRITIC_GAIN = 1.0

torch_default = variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for a weight: uniform in +-1/sqrt(fan_in)."""

torch_default_by_head = variance_scaling(1 / 3, "fan_in", "uniform", in_axis=0, out_axis=(1, 2))
"""`torch_default` for the matrices of all heads, [D, H, d]."""


def orthogonal(gain: float, column_axis: int = -1) -> Initializer:
    """JAX's orthogonal initialiser, with the same numbers, for programs that are vmapped over seeds.

    Under `vmap` it makes one matrix after the other. XLA's CPU backend may wait for ever in batched QR decompositions:
    each waits for threads of the pool whose threads they all occupy.
    """

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        one = jax.nn.initializers.orthogonal(gain, column_axis)
        return sequential_vmap(lambda one_key: one(one_key, shape, dtype))(key)

    return init


def torch_bias(fan_in: int) -> Initializer:
    """PyTorch's default for a bias: uniform in +-1/sqrt(fan_in), where fan_in is that of the layer's weight."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def dense(
    features: int,
    fan_in: int,
    numerics: Numerics,
    kernel_init: Initializer = torch_default,
    *,
    name: str | None = None,
) -> nn.Dense:
    """A dense layer with PyTorch's bias; its weight too, unless `kernel_init` says otherwise."""
    return nn.Dense(
        features,
        dtype=numerics.dtype,
        promote_dtype=numerics.cast_factors,
        dot_general=numerics.dot_general,
        kernel_init=kernel_init,
        bias_init=torch_bias(fan_in),
        name=name,
    )


class Linear(nn.Module):
    """A dense layer without bias, with PyTorch's weight.

    Fields:
        features: of the result.
        numerics: platform and precision.
    """

    features: int
    numerics: Numerics

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """f32[..., in] to f32[..., features]."""
        kernel = self.param("kernel", torch_default, (x.shape[-1], self.features))
        return self.numerics.product(x, kernel).astype(jnp.float32)


def orthogonal_dense(
    features: int, fan_in: int, gain: float, numerics: Numerics, *, name: str | None = None
) -> nn.Dense:
    """A dense layer with an orthogonal weight and PyTorch's bias."""
    return dense(features, fan_in, numerics, orthogonal(gain), name=name)
