"""Products of rows with a weight matrix whose gradients cost, on XLA's CPU backend, no more than the product itself."""

from typing import Any

import jax


@jax.custom_vjp
def product(rows: jax.Array, weight: jax.Array) -> jax.Array:
    """`rows @ weight`, [..., in] and [in, out] to [..., out]; reverse-mode differentiation only.

    Both gradients multiply a transposed matrix. XLA's CPU backend would fold the transposition into the product, which
    then takes up to twice as long where matrices are small.
    """
    return rows @ weight


def _forward(rows: jax.Array, weight: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return rows @ weight, (rows, weight)


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows, weight = saved
    flat_rows, flat_gradient = (x.reshape(-1, x.shape[-1]) for x in (rows, gradient))
    rows_t, weight_t = jax.lax.optimization_barrier((flat_rows.T, weight.T))
    return gradient @ weight_t, rows_t @ flat_gradient


product.defvjp(_forward, _backward)


def dot_general(rows: jax.Array, weight: jax.Array, dimension_numbers: Any, precision: Any = None) -> jax.Array:
    """`product` of [..., in] and [in, out] in the signature of `jax.lax.dot_general`, which Flax layers call."""
    assert dimension_numbers == (((rows.ndim - 1,), (0,)), ((), ())), dimension_numbers
    assert precision is None
    return product(rows, weight)
