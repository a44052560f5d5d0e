"""What the pictures of Mystery Path's tasks have in common."""

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
"""i64[84]"""


@cache
def agents() -> np.ndarray:
    """The agent u8[16, 28, 28] in 8 directions, then with the cross of a fall on it."""
    agent, cross = sprites.load()["agent"], sprites.load()["cross"]
    crossed = agent.copy()
    low = (agent.shape[1] - cross.shape[0]) // 2
    inner = crossed[:, low : low + cross.shape[0], low : low + cross.shape[1]]
    inner[:] = np.where(cross != TRANSPARENT, cross, inner)
    return np.concatenate([agent, crossed])


def draw_agent(canvas: jax.Array, direction: jax.Array, crossed: ArrayLike, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Draws the agent with its centre at x, y.

    Args:
        canvas: u8[84, 84].
        direction: i32[], turns of 45 degrees to the left, from upwards.
        crossed: bool[], with the cross of a fall.
        x: i32[].
        y: i32[].
    """
    reach = agents().shape[1] // 2
    return drawing.draw(canvas, agents(), 8 * jnp.asarray(crossed, jnp.int32) + direction, x - reach, y - reach)


def in_colours(canvas: jax.Array, *others: int) -> jax.Array:
    """The frame u8[84, 84, 3] of a canvas with black, the agent's colours and a few others, by their places."""
    return drawing.in_colours(canvas, [*np.unique(agents()).tolist(), *others])
