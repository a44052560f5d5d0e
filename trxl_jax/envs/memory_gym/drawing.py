"""Frames as arrays of palette places, drawn on as pygame would: whole pixels, what leaves the screen is cut.

A canvas is u8[84, 84], x first. Everything is for one environment; `vmap` makes a batch of it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from trxl_jax.envs.memory_gym.sprites import SCREEN, TRANSPARENT


def blit(canvas: jax.Array, sprite: ArrayLike, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Draws a sprite with its top left corner at a place that may lie outside.

    Args:
        canvas: u8[84, 84].
        sprite: u8[width, height]; where it is 0 the canvas shows through.
        x: i32[], column of the sprite's left edge.
        y: i32[], row of its upper edge.
    """
    sprite = jnp.asarray(sprite)
    width, height = sprite.shape
    column = jnp.arange(SCREEN) - x
    row = jnp.arange(SCREEN) - y
    inside = ((column >= 0) & (column < width))[:, None] & ((row >= 0) & (row < height))[None, :]
    drawn = sprite[jnp.clip(column, 0, width - 1)][:, jnp.clip(row, 0, height - 1)]
    return jnp.where(inside & (drawn != TRANSPARENT), drawn, canvas)


def rectangle(
    canvas: jax.Array, colour: ArrayLike, x: ArrayLike, y: ArrayLike, width: ArrayLike, height: ArrayLike
) -> jax.Array:
    """Fills a rectangle; all arguments but the canvas are i32[]."""
    column = jnp.arange(SCREEN) - x
    row = jnp.arange(SCREEN) - y
    inside = ((column >= 0) & (column < width))[:, None] & ((row >= 0) & (row < height))[None, :]
    return jnp.where(inside, jnp.asarray(colour, jnp.uint8), canvas)


def in_colours(canvas: jax.Array, palette: ArrayLike) -> jax.Array:
    """The frame u8[84, 84, 3] that a canvas u8[84, 84] stands for; palette u8[colours, 3].

    In two halves by a loop, before which the canvas has to be there. XLA would otherwise, in spite of an
    `optimization_barrier`, draw it inside of the lookup: anew for each channel of each pixel, one after the other.
    """
    colours, half = jnp.asarray(palette), SCREEN // 2

    def colour_half(i: jax.Array, frame: jax.Array) -> jax.Array:
        part = colours[jax.lax.dynamic_slice_in_dim(canvas, i * half, half)]
        return jax.lax.dynamic_update_slice_in_dim(frame, part, i * half, 0)

    return jax.lax.fori_loop(0, 2, colour_half, jnp.zeros((SCREEN, SCREEN, 3), colours.dtype))


def placed(sprite: np.ndarray, x: int, y: int) -> np.ndarray:
    """A canvas with nothing on it but a sprite, for what never moves; in NumPy."""
    canvas = np.zeros((SCREEN, SCREEN), np.uint8)
    width, height = sprite.shape
    canvas[x : x + width, y : y + height] = sprite
    return canvas
