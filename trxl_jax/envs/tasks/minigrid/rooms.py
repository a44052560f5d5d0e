"""Rooms of MiniGrid's Memory tasks, and what the agent sees in them: tables that are computed once a task, in NumPy.

Rooms never change: no action moves an object in these tasks (`pick up` only toggles, which changes neither key nor
ball). So the view depends on the room and on the agent's place and direction alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

UNSEEN, EMPTY, WALL, KEY, BALL = 0, 1, 2, 5, 6
"""Cells, as MiniGrid numbers its objects."""

OBJECTS = (KEY, BALL)
COLOURS = np.zeros(7, np.uint8)
"""Number of each cell's colour: walls are grey, objects green."""
COLOURS[WALL] = 5
COLOURS[[KEY, BALL]] = 1

FORWARD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)], np.int32)
"""i32[4, 2], column and row of a step in each direction: right, down, left, up."""

NUM_ROWS = 3
"""Rows on which the agent can be: the middle one and its neighbours."""


class Views(NamedTuple):
    """What the agent sees in all places that it can reach.

    Fields:
        cells: u8[views, view, view], distinct views; column and row, the agent in the last row's middle, facing row 0.
        numbers: i32[ends, size, 3, 4, 2, 2], number of the view by end of the hallway, column and row of the agent
            (counted from the one above the middle), direction, object at the start and upper object (0 key, 1 ball).
    """

    cells: np.ndarray
    numbers: np.ndarray


def draw_room(size: int, hallway_end: int, start: int, upper: int) -> np.ndarray:
    """The cells u8[size, size] of a room, column and row.

    On the left is a room with an object, from which a hallway along the middle row leads to a junction with an object
    at each end.

    Args:
        size: of the grid, odd.
        hallway_end: column of the hallway's last cell.
        start: the object in the room, 0 key, 1 ball.
        upper: the object above the junction; the other one is below.
    """
    cells = np.full((size, size), EMPTY, np.uint8)
    middle = size // 2
    cells[[0, -1], :] = cells[:, [0, -1]] = WALL
    cells[1:5, [middle - 2, middle + 2]] = WALL
    cells[4:hallway_end, [middle - 1, middle + 1]] = WALL
    cells[[hallway_end, hallway_end + 2], :] = WALL
    cells[hallway_end, middle] = EMPTY
    cells[1, middle - 1] = OBJECTS[start]
    cells[hallway_end + 1, middle - 2] = OBJECTS[upper]
    cells[hallway_end + 1, middle + 2] = OBJECTS[1 - upper]
    return cells


def reachable(cells: np.ndarray, hallway_end: int) -> np.ndarray:
    """Where the agent can be in a room u8[size, size]: bool[size, 3], column and row from the one above the middle."""
    middle = len(cells) // 2
    inside = np.arange(len(cells)) <= hallway_end + 1
    return np.asarray((cells[:, middle - 1 : middle + 2] == EMPTY) & inside[:, None])


def field_of_view(opaque: np.ndarray) -> np.ndarray:
    """Which cells of a view the agent sees.

    Light spreads from the agent along its row through cells that aren't opaque, and from each of these to the three
    cells ahead of it; then along the next row, and so on. Opaque cells are seen but let nothing through.

    Args:
        opaque: bool[..., view, view], column and row; the agent is in the last row's middle.

    Returns:
        bool[..., view, view].
    """
    view = opaque.shape[-1]
    seen = np.zeros_like(opaque)
    seen[..., view // 2, view - 1] = True
    for row in reversed(range(view)):
        clear = ~opaque[..., row]
        for _ in range(view - 1):
            seen[..., row] |= _widened(seen[..., row] & clear)
        if row:
            seen[..., row - 1] = _widened(seen[..., row] & clear)
    return seen


def look(cells: np.ndarray, x: np.ndarray, y: np.ndarray, direction: np.ndarray, view: int) -> np.ndarray:
    """What the agent sees from some poses.

    Args:
        cells: u8[size, size], a room.
        x: int[poses], columns of the agent.
        y: int[poses], rows of the agent.
        direction: int[poses], 0..3: right, down, left, up.
        view: cells along a side of the view.

    Returns:
        u8[poses, view, view]; cells outside the grid are walls, those that aren't seen `UNSEEN`.
    """
    ahead, aside = (view - 1 - np.arange(view))[None, :], (np.arange(view) - view // 2)[:, None]
    dx, dy = (FORWARD[direction, axis][:, None, None] for axis in (0, 1))
    column = x[:, None, None] + dx * ahead - dy * aside
    row = y[:, None, None] + dy * ahead + dx * aside
    seen = np.pad(cells, view, constant_values=WALL)[column + view, row + view]
    return np.where(field_of_view(seen == WALL), seen, UNSEEN).astype(np.uint8)


def all_views(size: int, hallway_ends: Sequence[int], view: int) -> Views:
    """What the agent sees in all places that it can reach.

    Args:
        size: of the grid.
        hallway_ends: columns at which the hallway may end.
        view: cells along a side of the view.
    """
    numbers = np.zeros((len(hallway_ends), size, NUM_ROWS, 4, 2, 2), np.int32)
    found, places = [], []
    for which, end in enumerate(hallway_ends):
        for start, upper in np.ndindex(2, 2):
            cells = draw_room(size, end, start, upper)
            at = np.argwhere(np.broadcast_to(reachable(cells, end)[..., None], (size, NUM_ROWS, 4)))
            x, row, direction = at.T
            found.append(look(cells, x, row + size // 2 - 1, direction, view))
            places += [(which, *place, start, upper) for place in at]
    distinct, inverse = np.unique(np.concatenate(found), axis=0, return_inverse=True)
    numbers[tuple(np.array(places).T)] = inverse.reshape(-1)
    return Views(distinct, numbers)


def _widened(lit: np.ndarray) -> np.ndarray:
    """Cells bool[..., view] of a row that are lit, or next to one that is."""
    wide = lit.copy()
    wide[..., 1:] |= lit[..., :-1]
    wide[..., :-1] |= lit[..., 1:]
    return wide
