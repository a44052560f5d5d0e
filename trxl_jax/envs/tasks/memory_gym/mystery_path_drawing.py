"""Drawing functions that all Mystery Path tasks share."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym import drawing, sprites
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN, TRANSPARENT

TILE = 12
"""Width and height of a tile in pixels."""

TILE_OF_PIXEL = np.arange(SCREEN) // TILE
"""i64[84], index of the tile at each row or column of pixels."""


@cache
def agents() -> np.ndarray:
    """Sprites u8[16, 28, 28]: the agent in 8 directions, then the same with the cross of a fall."""
    agent, cross = sprites.load()["agent"], sprites.load()["cross"]
    crossed = agent.copy()
    low = (agent.shape[1] - cross.shape[0]) // 2
    inner = crossed[:, low : low + cross.shape[0], low : low + cross.shape[1]]
    inner[:] = np.where(cross != TRANSPARENT, cross, inner)
    return np.concatenate([agent, crossed])


def draw_agent(canvas: jax.Array, direction: jax.Array, crossed: ArrayLike, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Draws the agent.

    Args:
        canvas: u8[84, 84].
        direction: i32[], direction of the agent in multiples of 45 degrees counter-clockwise; 0 is up.
        crossed: bool[], draw the cross of a fall on top.
        x: i32[], column of the agent's centre.
        y: i32[], row of the agent's centre.

    Returns:
        The canvas u8[84, 84] with the agent.
    """
    reach = agents().shape[1] // 2
    return drawing.draw(canvas, agents(), 8 * jnp.asarray(crossed, jnp.int32) + direction, x - reach, y - reach)


def to_rgb(canvas: jax.Array, *others: int) -> jax.Array:
    """Converts a canvas u8[84, 84] to RGB u8[84, 84, 3].

    Args:
        canvas: the canvas.
        others: palette indices that may occur, apart from those of black and of the agent.
    """
    return drawing.to_rgb(canvas, [*np.unique(agents()).tolist(), *others])
