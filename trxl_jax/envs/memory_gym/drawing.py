"""Frames as arrays of palette places, drawn on as pygame would: whole pixels, what leaves the screen is cut.

A canvas is u8[84, 84], x first. Everything is for one environment; `vmap` makes a batch of it.

A canvas may also hold the colours themselves, packed into u32[84, 84]. With sprites as columns of bits, nothing is then
looked up a pixel, which on CPUs takes a tenth of the time.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from trxl_jax.envs.memory_gym.sprites import SCREEN, TRANSPARENT, load


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
    """The frame u8[..., 3] that a canvas u8[...] stands for; palette u8[colours, 3]."""
    return jnp.asarray(palette)[canvas]


def placed(sprite: np.ndarray, x: int, y: int) -> np.ndarray:
    """A canvas with nothing on it but a sprite, for what never moves; in NumPy."""
    canvas = np.zeros((SCREEN, SCREEN), np.uint8)
    width, height = sprite.shape
    canvas[x : x + width, y : y + height] = sprite
    return canvas


def packed(places: ArrayLike) -> np.ndarray:
    """Colours of palette places as u32 of the same shape, red in the lowest byte; in NumPy."""
    return (load()["palette"].astype(np.uint32) << np.array([0, 8, 16], np.uint32)).sum(1, np.uint32)[places]


def unpacked(canvas: jax.Array) -> jax.Array:
    """The frame u8[..., 3] that packed colours u32[...] stand for."""
    # Without the barrier XLA would draw everything once for each of the bytes.
    return jax.lax.bitcast_convert_type(jax.lax.optimization_barrier(canvas), jnp.uint8)[..., :3]


def columns(mask: np.ndarray) -> np.ndarray:
    """Masks bool[..., width, height] of at most 32 rows as u32[..., width], one bit a row; in NumPy."""
    return (mask.astype(np.uint32) << np.arange(mask.shape[-1], dtype=np.uint32)).sum(-1, np.uint32)


def covered(columns: ArrayLike, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Which pixels of the screen a mask covers, bool[84, 84].

    Args:
        columns: u32[width], what `columns` made of it.
        x: i32[], column of the mask's left edge; it may lie outside.
        y: i32[], row of its upper edge.
    """
    columns = jnp.asarray(columns)
    (width,) = columns.shape
    column, row = jnp.arange(SCREEN) - x, jnp.arange(SCREEN) - y
    bits = jnp.where((column >= 0) & (column < width), columns[jnp.clip(column, 0, width - 1)], 0)
    bit = jnp.where((row >= 0) & (row < 32), jnp.uint32(1) << jnp.clip(row, 0, 31).astype(jnp.uint32), 0)
    return (bits[:, None] & bit[None, :]) != 0
