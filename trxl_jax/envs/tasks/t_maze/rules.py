"""The rules of T-Maze that host and device share, and pictures of it, for arrays of NumPy and of JAX.

From `envs/tmaze.py` of github.com/twni2016/Memory-RL, the code of Ni et al. 2023, "When Do Transformers Shine in RL?
Decoupling Memory from Credit Assignment". A corridor leads to the right, from the oracle at x = 0 to a junction, above
and below which (y = 1 and -1) are the two candidates for the goal.
"""

from types import ModuleType
from typing import Any

import numpy as np

MOVES = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)], np.int32)
"""Steps (x, y) of the actions: right, up, left, down."""

CORRIDOR_LENGTH, MAX_CORRIDOR_LENGTH = 10, 10**6
"""Default and largest number of steps from the passive variant's start to the junction."""

ORACLE_LENGTH = 1
"""Steps between the oracle and the active variant's start; the passive variant starts on the oracle."""

COLUMNS, CELL, MARGIN = 15, 30, 6
"""Pictures: columns of cells that are shown, pixels of a cell, and around the agent in its cell."""

_WALL, _FLOOR, _ORACLE, _GOOD, _BAD, _AGENT = (
    np.array(colour, np.uint8)
    for colour in ((40, 40, 40), (235, 235, 235), (240, 200, 60), (40, 160, 60), (200, 50, 50), (40, 80, 220))
)


def episode_length(corridor_length: int, *, active: bool) -> int:
    """Steps of every episode: to the oracle and back if active, along the corridor, and to a candidate."""
    return corridor_length + 2 * ORACLE_LENGTH * active + 1


def picture(xp: ModuleType, x: Any, y: Any, goal: Any, junction: Any) -> Any:
    """A picture of the maze around the agent, with the ground truth.

    Args:
        xp: `numpy` or `jax.numpy`.
        x: int[], the agent's column.
        y: int[], the agent's row.
        goal: int[], y of the goal.
        junction: int[], x of the junction.

    Returns:
        u8[90, 450, 3], rows first: agent blue, oracle yellow, good candidate green, bad one red.
    """
    # The window stays within the maze as far as that is long enough.
    left = xp.clip(x - COLUMNS // 2, 0, xp.maximum(junction - COLUMNS + 1, 0))
    column, row = xp.arange(COLUMNS)[None, :] + left, xp.array([1, 0, -1])[:, None]
    candidate = (row != 0) & (column == junction)
    cells = xp.where(((row == 0) & (column <= junction))[..., None], _FLOOR, _WALL)
    cells = xp.where(((row == 0) & (column == 0))[..., None], _ORACLE, cells)
    cells = xp.where(candidate[..., None], xp.where((row == goal)[..., None], _GOOD, _BAD), cells)
    here = ((column == x) & (row == y)).repeat(CELL, axis=0).repeat(CELL, axis=1)
    inside = (xp.arange(CELL) >= MARGIN) & (xp.arange(CELL) < CELL - MARGIN)
    inner = xp.tile(inside[:, None] & inside[None, :], (3, COLUMNS))
    pixels = cells.repeat(CELL, axis=0).repeat(CELL, axis=1)
    return xp.where((here & inner)[..., None], _AGENT, pixels).astype(xp.uint8)
