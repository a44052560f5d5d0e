"""How XLA is made to split an array in one kernel."""

import jax


def one(x: jax.Array) -> jax.Array:
    """1 in each place of f32[...], in a form that XLA doesn't know to be 1. It is NaN where `x` is not finite.

    XLA makes a kernel of each slice of an array, unless something is computed before they are cut: multiplied by this,
    slices of one shape are one kernel.
    """
    return x * 0 + 1
