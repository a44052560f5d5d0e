"""Frames as arrays of palette places, drawn on as pygame would: whole pixels, what leaves the screen is cut.

A canvas is u8[84, 84], x first. Everything is for one environment; `vmap` makes a batch of it.

On a CPU a blit is a copy out of a sprite with a wide margin (1,024 of them take 0.9 ms on 2 cores; gathers of rows and
columns took 14 ms), and colours are a tree of selects (4.2 ms; a gather from the palette took 6.9 ms).
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
    sprite = np.asarray(sprite)[None] if isinstance(sprite, np.ndarray) else jnp.asarray(sprite)[None]
    return blit_one_of(canvas, sprite, 0, x, y)


def blit_one_of(canvas: jax.Array, sprites: ArrayLike, which: ArrayLike, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Draws one of several sprites u8[sprites, width, height]; other arguments as for `blit`."""
    margin = ((0, 0), (SCREEN, SCREEN), (SCREEN, SCREEN))
    # In NumPy where it can be, so that the margin is part of the program and not made in every step.
    wide = jnp.asarray(np.pad(sprites, margin) if isinstance(sprites, np.ndarray) else jnp.pad(sprites, margin))
    # Places beyond the margin are clamped, to where the margin alone is seen.
    (drawn,) = jax.lax.dynamic_slice(wide, (which, SCREEN - x, SCREEN - y), (1, SCREEN, SCREEN))
    return jnp.where(drawn != TRANSPARENT, drawn, canvas)


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
    # Else each channel draws the canvas anew.
    places = jax.lax.optimization_barrier(canvas)[..., None]
    colours = list(jnp.asarray(palette))
    bit = 0
    while len(colours) > 1:
        odd = ((places >> bit) & 1).astype(bool)
        colours = [
            jnp.where(odd, colours[i + 1], colours[i]) if i + 1 < len(colours) else colours[i]
            for i in range(0, len(colours), 2)
        ]
        bit += 1
    return jnp.broadcast_to(colours[0], (*canvas.shape, 3))


def placed(sprite: np.ndarray, x: int, y: int) -> np.ndarray:
    """A canvas with nothing on it but a sprite, for what never moves; in NumPy."""
    canvas = np.zeros((SCREEN, SCREEN), np.uint8)
    width, height = sprite.shape
    canvas[x : x + width, y : y + height] = sprite
    return canvas
