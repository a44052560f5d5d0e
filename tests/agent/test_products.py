"""Products with weights and their gradients are what plain ones are."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trxl_jax.agent.cpu.products import dot_general, product

NUMBERS = jax.random.normal


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 5), (2, 1, 4, 5)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients(shape: tuple[int, ...], dtype: jnp.dtype) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    rows, weight, out = (NUMBERS(key, s, dtype) for key, s in zip(keys, (shape, (5, 3), (*shape[:-1], 3)), strict=True))

    def both(multiply: Callable) -> tuple:
        value, pull = jax.vjp(multiply, rows, weight)
        return value, *pull(out)

    for ours, plain in zip(jax.jit(lambda: both(product))(), both(jnp.matmul), strict=True):
        assert ours.dtype == plain.dtype == dtype
        assert ours.shape == plain.shape
        tolerance = 1e-5 if dtype == jnp.float32 else 0.05
        np.testing.assert_allclose(ours.astype(float), plain.astype(float), rtol=tolerance, atol=tolerance)


def test_other_contractions_are_refused() -> None:
    with pytest.raises(AssertionError):
        dot_general(jnp.ones((3, 3)), jnp.ones((3, 3)), (((0,), (0,)), ((), ())))
