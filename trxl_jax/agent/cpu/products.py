"""Products of rows with a weight matrix, whose gradients cost on CPUs what the product itself does."""

from typing import Any

import jax


@jax.custom_vjp
def product(rows: jax.Array, weight: jax.Array) -> jax.Array:
    """`rows @ weight`, [..., in] and [in, out] to [..., out]; reverse mode only.

    Both gradients multiply something transposed. XLA's CPU backend would fold the transposition into the product, which
    then takes up to twice as long where matrices are small.
    """
    return rows @ weight


def _forward(rows: jax.Array, weight: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return rows @ weight, (rows, weight)


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows, weight = saved
    flat_rows, flat_gradient = (x.reshape(-1, x.shape[-1]) for x in (rows, gradient))
    rows_t, weight_t = jax.lax.platform_dependent(
        flat_rows.T, weight.T, cpu=lambda *matrices: jax.lax.optimization_barrier(matrices), default=lambda *m: m
    )
    return gradient @ weight_t, rows_t @ flat_gradient


product.defvjp(_forward, _backward)


def dot_general(rows: jax.Array, weight: jax.Array, dimension_numbers: Any, precision: Any = None) -> jax.Array:
    """`product` where a Flax layer asks for `jax.lax.dot_general` over the last axis of its inputs."""
    assert dimension_numbers == (((rows.ndim - 1,), (0,)), ((), ())), dimension_numbers
    assert precision is None
    return product(rows, weight)
