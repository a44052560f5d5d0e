"""Bias and ReLU as accelerators like them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

GROUPS = 256


def bias_rows(biases: Sequence[jax.Array]) -> list[jax.Array]:
    """Biases f32[K] as `bias_relu` takes them: f32[GROUPS, K], all rows alike."""
    rows = jnp.broadcast_to(jnp.concatenate(biases), (GROUPS, sum(bias.size for bias in biases)))
    ends = [sum(bias.size for bias in biases[: i + 1]) for i in range(len(biases) - 1)]
    return jnp.split(rows, ends, axis=1)


@jax.custom_vjp
def bias_relu(x: jax.Array, rows: jax.Array) -> jax.Array:
    """max(x + bias, 0) in the dtype of x, [..., K], with a bias from `bias_rows`, f32[GROUPS, K].

    Its gradient is read from the output. `nn.relu` decides by its input, which XLA must then store besides the output,
    so that the libraries of GPUs can't apply bias and ReLU within a convolution or product. Both say the same: the
    output is positive where the input is.

    The bias's gradient, a sum over a million rows, is two kernels on a GPU: sums of groups, and their sum. Each row of
    the bias gets the sum of a group, in float32, in the kernel that applies the ReLU, and `bias_rows` adds up the
    groups of all layers together.
    """
    return jnp.maximum(x + rows[0].astype(x.dtype), 0)


def _forward(x: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = bias_relu(x, rows)
    return y, y


def _backward(y: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Without the barrier XLA would decide by the input after all: max(x, 0) > 0 where x > 0.
    y = jax.lax.optimization_barrier(y)
    to_x = jnp.where(y > 0, gradient, 0)
    flat = to_x.astype(jnp.float32).reshape(-1, to_x.shape[-1])
    if len(flat) % GROUPS:
        sums = flat.sum(axis=0, keepdims=True)
        return to_x, jnp.pad(sums, ((0, GROUPS - 1), (0, 0)))
    return to_x, flat.reshape(GROUPS, -1, flat.shape[1]).sum(axis=1)


bias_relu.defvjp(_forward, _backward)
