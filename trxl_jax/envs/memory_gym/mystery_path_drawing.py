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


def draw_agent(canvas: jax.Array, direction: jax.Array, crossed: ArrayLike, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Draws the agent with its centre at x, y; directions count turns of 45 degrees to the left, from upwards."""
    sprite = jnp.asarray(agents())[jnp.asarray(crossed, jnp.int32), direction]
    return drawing.blit(canvas, sprite, x - REACH, y - REACH)


def enlarged(canvas: jax.Array) -> jax.Array:
    """A picture for people, u8[336, 336, 3] with rows first, of a canvas u8[84, 84]."""
    picture = drawing.in_colours(canvas, sprites.load()["palette"]).swapaxes(0, 1)
    return jnp.repeat(jnp.repeat(picture, DEBUG_SCALE, axis=0), DEBUG_SCALE, axis=1)
