"""What the pictures of Mystery Path's tasks have in common."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from trxl_jax.envs.memory_gym import drawing, sprites
from trxl_jax.envs.memory_gym.sprites import SCREEN, TRANSPARENT

TILE = 12
"""Width and height of a tile in pixels."""

REACH = 14
"""Half the width of the agent's sprite."""

BEYOND = 12
"""How far off the screen the agent's centre may be in pixels: one step."""

MIDDLE = SCREEN + BEYOND
"""Where the agent's centre is in the scenes that pictures are cut out of, from their left and upper edge."""

TILE_OF_PIXEL = np.arange(SCREEN) // TILE
"""i64[84]"""

DEBUG_SCALE = 4


@cache
def agents() -> np.ndarray:
    """The agent u8[2, 8, 28, 28]: without and with the cross of a fall on it, in 8 directions."""
    crossed = np.array(sprites.load()["agent"])
    cross = sprites.load()["cross"]
    low = REACH - cross.shape[0] // 2
    inner = crossed[:, low : low + cross.shape[0], low : low + cross.shape[1]]
    inner[:] = np.where(cross != TRANSPARENT, cross, inner)
    return np.stack([sprites.load()["agent"], crossed])


@cache
def _scenes() -> np.ndarray:
    """The agent u8[16, 192, 192] amid transparency. What a screen sees of it is cut out, the fastest way to draw it."""
    around = MIDDLE - REACH
    return np.pad(agents().reshape(-1, 2 * REACH, 2 * REACH), ((0, 0), (around, around), (around, around)))


def draw_agent(canvas: jax.Array, direction: jax.Array, crossed: ArrayLike, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Draws the agent with its centre at x, y, at most BEYOND pixels off the screen.

    Args:
        canvas: u8[84, 84].
        direction: i32[], turns of 45 degrees to the left, from upwards.
        crossed: bool[], with the cross of a fall.
        x: i32[].
        y: i32[].
    """
    scene = 8 * jnp.asarray(crossed, jnp.int32) + direction
    drawn = jax.lax.dynamic_slice(jnp.asarray(_scenes()), (scene, MIDDLE - x, MIDDLE - y), (1, SCREEN, SCREEN))[0]
    return jnp.where(drawn != TRANSPARENT, drawn, canvas)


def in_colours(canvas: jax.Array, *others: int) -> jax.Array:
    """The frame u8[84, 84, 3] of a canvas with black, the agent's colours and a few others, by their places.

    A handful of selects between whole colours in one word each is the fastest way: three times as fast as looking
    pixels up in the palette, eight times as fast as selects for each channel.
    """
    # Else the compiler would draw the canvas again for each byte.
    canvas = jax.lax.optimization_barrier(canvas)
    words = jnp.zeros(canvas.shape, jnp.uint32)
    for place in sorted({*np.unique(agents()).tolist(), *others} - {TRANSPARENT, sprites.colour(0, 0, 0)}):
        red, green, blue = (int(channel) for channel in sprites.load()["palette"][place])
        words = jnp.where(canvas == place, jnp.uint32(red | green << 8 | blue << 16), words)
    return jax.lax.bitcast_convert_type(words, jnp.uint8)[..., :3]


def enlarged(canvas: jax.Array) -> jax.Array:
    """A picture for people, u8[336, 336, 3] with rows first, of a canvas u8[84, 84]."""
    picture = drawing.in_colours(canvas, sprites.load()["palette"]).swapaxes(0, 1)
    return jnp.repeat(jnp.repeat(picture, DEBUG_SCALE, axis=0), DEBUG_SCALE, axis=1)
