"""Softmax whose gradient rounds the same in every program."""

import jax


@jax.custom_jvp
def softmax(x: jax.Array) -> jax.Array:
    """Softmax f32[..., S] over the last axis of [..., S].

    Its derivative is written without the divisions that automatic differentiation makes: XLA turns a division by a sum
    into a product with its inverse, or doesn't, depending on what stands around it, so that a gradient would have other
    digits on one device than on two.
    """
    return jax.nn.softmax(x, axis=-1)


@softmax.defjvp
def _derivative(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    y, dx = softmax(*primals), tangents[0]
    return y, y * (dx - (y * dx).sum(axis=-1, keepdims=True))
