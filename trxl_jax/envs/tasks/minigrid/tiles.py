"""Pictures of MiniGrid's cells, drawn here pixel for pixel as the package draws them, and pictures made of these tiles.

A tile is drawn three times as large and averaged: a grey line along its upper and left edge, the object, the agent, and
light (30% white) on cells that are seen.
"""

from functools import cache
from typing import TypeVar

import jax
import numpy as np

from trxl_jax.envs.tasks.minigrid.host import TILE
from trxl_jax.envs.tasks.minigrid.rooms import BALL, EMPTY, KEY, UNSEEN, WALL

_FINE = 3  # subpixels along a pixel's side
_GREY, _GREEN, _RED, _BLACK = (100, 100, 100), (0, 255, 0), (255, 0, 0), (0, 0, 0)
_LINE = 0.031

LIT, AGENT = 7, 14
"""Numbers of tiles: a cell's own in the dark, with light the cell's plus `LIT`; `AGENT` plus its direction (lit)."""

Array = TypeVar("Array", jax.Array, np.ndarray)


@cache
def tiles() -> np.ndarray:
    """All tiles u8[18, 28, 28, 3], rows first, by the numbers above; those that never occur are black."""
    drawn = np.zeros((AGENT + 4, TILE, TILE, 3), np.uint8)
    for cell in (UNSEEN, EMPTY, WALL, KEY, BALL):
        drawn[cell] = _averaged(_draw(cell))
        drawn[LIT + cell] = _averaged(_lit(_draw(cell)))
    for direction in range(4):
        drawn[AGENT + direction] = _averaged(_lit(_with_agent(_draw(EMPTY), direction)))
    return drawn


def assemble(drawn: Array, which: Array) -> Array:
    """Puts tiles together; NumPy's or JAX's arrays.

    Args:
        drawn: u8[tiles, 28, 28, 3], as from `tiles`.
        which: int[..., columns, rows], numbers of tiles.

    Returns:
        A picture u8[..., 28 rows, 28 columns, 3].
    """
    *batch, columns, rows = which.shape
    # [..., column, row, y, x, 3] to [..., row, y, column, x, 3]
    grid = drawn[which].swapaxes(-5, -4).swapaxes(-4, -3)
    return grid.reshape(*batch, rows * TILE, columns * TILE, 3)


def _axes() -> tuple[np.ndarray, np.ndarray]:
    """Centres of subpixels, f64[1, 84] to the right and f64[84, 1] down, in 0..1."""
    centres = (np.arange(TILE * _FINE) + 0.5) / (TILE * _FINE)
    return centres[None, :], centres[:, None]


def _draw(cell: int) -> np.ndarray:
    """A cell without light, u8[84, 84, 3]."""
    x, y = _axes()
    picture = np.zeros((TILE * _FINE, TILE * _FINE, 3), np.uint8)
    picture[(x <= _LINE) | (y <= _LINE)] = _GREY
    if cell == WALL:
        picture[:] = _GREY
    elif cell == BALL:
        picture[_disc(0.5, 0.5, 0.31)] = _GREEN
    elif cell == KEY:
        shank = _rectangle(0.50, 0.63, 0.31, 0.88)
        teeth = _rectangle(0.38, 0.50, 0.59, 0.66) | _rectangle(0.38, 0.50, 0.81, 0.88)
        picture[shank | teeth | _disc(0.56, 0.28, 0.19)] = _GREEN
        picture[_disc(0.56, 0.28, 0.064)] = _BLACK
    return picture


def _with_agent(picture: np.ndarray, direction: int) -> np.ndarray:
    """The picture with the agent: a triangle whose tip points to the right, turned clockwise by quarters."""
    x, y = _axes()
    from_axis = np.abs(y - 0.5)
    # Half as high as the base (0.19 to 0.81) at x = 0.12, and a point at x = 0.87.
    inside = (x >= 0.12) & (from_axis <= 0.31 * (0.87 - x) / 0.75)
    picture[np.rot90(inside, -direction)] = _RED
    return picture


def _lit(picture: np.ndarray) -> np.ndarray:
    """A picture u8 mixed with 30% white; whole numbers, rounded down."""
    return (picture + (255 - picture.astype(np.int32)) * 3 // 10).astype(np.uint8)


def _averaged(picture: np.ndarray) -> np.ndarray:
    """Means u8[28, 28, 3] of 3x3 subpixels, rounded down."""
    blocks = picture.astype(np.int32).reshape(TILE, _FINE, TILE, _FINE, 3)
    return (blocks.sum(axis=(1, 3)) // _FINE**2).astype(np.uint8)


def _rectangle(left: float, right: float, top: float, bottom: float) -> np.ndarray:
    x, y = _axes()
    return np.asarray((x >= left) & (x <= right) & (y >= top) & (y <= bottom))


def _disc(x_centre: float, y_centre: float, radius: float) -> np.ndarray:
    x, y = _axes()
    return np.asarray((x - x_centre) ** 2 + (y - y_centre) ** 2 <= radius**2)
