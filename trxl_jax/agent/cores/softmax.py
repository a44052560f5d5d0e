"""Softmax that rounds the same in every program."""

import jax
import jax.numpy as jnp


def softmax(x: jax.Array) -> jax.Array:
    """Softmax f32[..., S] over the last axis of [..., S].

    Divisions by sums are written as products with their inverses. XLA turns one into the other, or doesn't, depending
    on what stands around them, so that `jax.nn.softmax` would have other digits on one device than on two.
    """
    exponentials = jnp.exp(x - jax.lax.stop_gradient(x.max(axis=-1, keepdims=True)))
    return exponentials * (1 / exponentials.sum(axis=-1, keepdims=True))
