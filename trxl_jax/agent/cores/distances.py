"""Positions that tell distances only: sines of the distance (Transformer-XL), and rotation by the step (rotary)."""

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.errors import ConfigError


def angles(position: jax.Array, dim: int) -> jax.Array:
    """Angles position * 10000^(-2i / dim) modulo 2 pi, i32[...] to f32[..., dim / 2].

    In float32 the product would be off by 1e-4 at step 2,000. Here frequencies are integers, in units of 2^-32 turns,
    and products of integers wrap round as turns do: the difference of two angles is exact to 1e-9 times the distance
    and the rounding to float32, 4e-7, however large the positions are.
    """
    turns = 10000.0 ** (-np.arange(0, dim, 2) / dim) / (2 * np.pi)
    phase = position[..., None] * np.rint(turns * 2**32).astype(np.int32)
    return phase.astype(jnp.float32) * np.float32(2 * np.pi / 2**32)


def sines(distance: jax.Array, dim: int) -> jax.Array:
    """Sines, then cosines, of the angles of distances, i32[...] to f32[..., dim] (Dai et al. 2019)."""
    angle = angles(distance, dim)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def turn(x: jax.Array, position: jax.Array) -> jax.Array:
    """Rotates each pair (x_i, x_{i + d/2}) by the i-th angle of its position (Su et al. 2021), in float32.

    The paper pairs neighbours, which differs by a permutation of the columns of the matrices that make queries and
    keys.

    Args:
        x: [..., d], with d even.
        position: i32[...], broadcast against the leading axes.
    """
    angle = angles(position, x.shape[-1])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def at_distance(by_distance: jax.Array, distance: jax.Array) -> jax.Array:
    """Looks up numbers that depend on the distance.

    Args:
        by_distance: f32[N, H, Q, W], for the distances 0 to W - 1.
        distance: i32[N, Q, S]; for others than 0 to W - 1 the result means nothing.

    Returns:
        f32[N, H, Q, S].
    """
    inside = jnp.clip(distance, 0, by_distance.shape[-1] - 1)
    return jnp.take_along_axis(by_distance, inside[:, None], axis=-1)


def require_even(distance: str, dim: int, num_heads: int) -> None:
    """Checks that relative positions have as many sines as cosines, and rotary ones pairs of numbers in each head.

    Raises:
        ConfigError: D, or for rotary positions D / H, is odd.
    """
    if distance == "relative" and dim % 2:
        raise ConfigError(f"--trxl_dim {dim}: must be even for relative positions (sines and cosines)")
    if distance == "rotary" and dim // num_heads % 2:
        raise ConfigError(
            f"--trxl_dim {dim}: heads of {dim // num_heads} numbers can't be turned in pairs by rotary positions; "
            f"change it or --trxl_num_heads {num_heads} so that their quotient is even"
        )
