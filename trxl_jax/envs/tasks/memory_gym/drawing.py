"""Drawing functions. They give the same pixels as pygame: no anti-aliasing, clipped at the edges of the screen.

A canvas is u8[84, 84], indexed [x, y], of palette indices (see `sprites`). All functions are for one environment; use
`vmap` for a batch.
"""

from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN, TRANSPARENT, load

DEBUG_SCALE = 4
"""Scale of pictures for people relative to observations, as in Memory Gym."""


def draw(canvas: jax.Array, sprites: np.ndarray, which: ArrayLike, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Draws one of several sprites; parts outside the screen are clipped.

    The sprite is padded with transparent pixels and the screen's area is sliced out of it, which copies whole columns.
    Indexing the sprite for each pixel of the canvas takes twenty times as long on a CPU.

    Args:
        canvas: u8[84, 84].
        sprites: u8[sprites, width, height], palette indices; 0 is transparent.
        which: i32[], index of the sprite.
        x: i32[], column of the sprite's left edge; may be outside the screen.
        y: i32[], row of the sprite's upper edge; may be outside the screen.

    Returns:
        The canvas u8[84, 84] with the sprite.
    """
    width, height = sprites.shape[1:]
    around = ((0, 0), (SCREEN, SCREEN), (SCREEN, SCREEN))
    scenes = jnp.asarray(np.pad(sprites, around))
    # A sprite further outside than its own size is invisible anyway: clip the offset so that the slice stays in bounds.
    corner = which, SCREEN - jnp.clip(x, -width, SCREEN), SCREEN - jnp.clip(y, -height, SCREEN)
    start = [jnp.asarray(place, jnp.int32) for place in corner]
    (drawn,) = jax.lax.dynamic_slice(scenes, start, (1, SCREEN, SCREEN))
    return jnp.where(drawn != TRANSPARENT, drawn, canvas)


def rectangle(
    canvas: jax.Array, colour: ArrayLike, x: ArrayLike, y: ArrayLike, width: ArrayLike, height: ArrayLike
) -> jax.Array:
    """Fills a rectangle of a canvas u8[84, 84].

    Args:
        canvas: u8[84, 84].
        colour: palette index.
        x: i32[], column of the left edge.
        y: i32[], row of the upper edge.
        width: i32[].
        height: i32[].

    Returns:
        The canvas u8[84, 84] with the rectangle.
    """
    column = jnp.arange(SCREEN) - x
    row = jnp.arange(SCREEN) - y
    inside = ((column >= 0) & (column < width))[:, None] & ((row >= 0) & (row < height))[None, :]
    return jnp.where(inside, jnp.asarray(colour, jnp.uint8), canvas)


def to_rgb(canvas: jax.Array, indices: Iterable[int], palette: ArrayLike | None = None) -> jax.Array:
    """Converts a canvas to RGB.

    On CPUs a select per colour, with colours packed into 32-bit words, is fastest: three times as fast as indexing the
    palette for each pixel, eight times as fast as selects for each channel.

    Args:
        canvas: u8[84, 84], palette indices.
        indices: palette indices that may occur; pixels with other indices become black.
        palette: u8 or i32[colours, 3]; None: the palette of the sprites.

    Returns:
        u8[84, 84, 3].
    """
    colours = jnp.asarray(load()["palette"] if palette is None else palette, jnp.uint32)
    words = colours[:, 0] | colours[:, 1] << 8 | colours[:, 2] << 16
    shown = sorted({*indices} - {TRANSPARENT})
    on_cpu, elsewhere = (partial(way, shown=shown) for way in RGB_FORMULATIONS)
    return jax.lax.platform_dependent(canvas, words, cpu=on_cpu, default=elsewhere)


def _select(canvas: jax.Array, words: jax.Array, shown: Iterable[int]) -> jax.Array:
    frame = jnp.zeros(canvas.shape, jnp.uint32)
    for index in shown:
        frame = jnp.where(canvas == index, words[index], frame)
    return frame


def _bytes_of_words(canvas: jax.Array, words: jax.Array, shown: Iterable[int]) -> jax.Array:
    # Without the barrier XLA recomputes the canvas for each byte.
    frame = _select(jax.lax.optimization_barrier(canvas), words, shown)
    return jax.lax.bitcast_convert_type(frame, jnp.uint8)[..., :3]


def _byte_by_byte(canvas: jax.Array, words: jax.Array, shown: Iterable[int]) -> jax.Array:
    # One kernel on GPUs, where launching another one costs more than recomputing the canvas.
    return (_select(canvas, words, shown)[..., None] >> jnp.arange(0, 24, 8, dtype=jnp.uint32)).astype(jnp.uint8)


RGB_FORMULATIONS = (_bytes_of_words, _byte_by_byte)
"""For CPUs and for others: canvas u8[84, 84], colours u32[colours] and indices that may occur, to u8[84, 84, 3]."""


def sprite_canvas(sprite: np.ndarray, x: int, y: int) -> np.ndarray:
    """A NumPy canvas u8[84, 84] with only one sprite u8[width, height] at x, y, for sprites that don't move."""
    canvas = np.zeros((SCREEN, SCREEN), np.uint8)
    width, height = sprite.shape
    canvas[x : x + width, y : y + height] = sprite
    return canvas


def scale_up(frame: jax.Array) -> jax.Array:
    """Scales a frame u8[84, 84, 3], indexed [x, y, channel], to a picture u8[336, 336, 3], rows first."""
    return frame.swapaxes(0, 1).repeat(DEBUG_SCALE, axis=0).repeat(DEBUG_SCALE, axis=1)


def debug_frame(canvas: jax.Array) -> jax.Array:
    """Converts a canvas u8[84, 84] to a picture for people, u8[336, 336, 3], rows first."""
    return scale_up(jnp.asarray(load()["palette"])[canvas])
