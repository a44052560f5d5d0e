"""Mazes drawn as mazelib's hunt-and-kill algorithm draws them: walks into new cells, from cells found at random.

A cell is a place of odd row and column; mazes of h x w cells have (2h + 1) x (2w + 1) places.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

STEPS = np.array([[0, -1], [0, 1], [-1, 0], [1, 0]], np.int32)
"""Rows and columns of one step left, right, up, and down, i32[4, 2]."""


class Maze(NamedTuple):
    """A maze of height x width places.

    Fields:
        walls: bool[height, width]; places outside the maze's start and end are walls as well.
        start, end: i32[2], row and column of two places on opposite sides.
    """

    walls: jax.Array
    start: jax.Array
    end: jax.Array


class _Carving(NamedTuple):
    visited: jax.Array
    walls: jax.Array
    cell: jax.Array
    num_moves: jax.Array
    trials_left: jax.Array


def draw_maze(key: jax.Array, num_rows: int, num_columns: int) -> Maze:
    """Draws a maze of num_rows x num_columns cells with its start and end; for shapes see `Maze`.

    mazelib walks from a cell to random new neighbours until there are none, and then tries random cells until one
    leads to new neighbours, with as many trials in all as there are places. Rarely these are used up before all cells
    have been reached. Here only successful trials are drawn, and how many it took.
    """
    walls_key, sides_key = jax.random.split(key)
    walls = _draw_walls(walls_key, num_rows, num_columns)
    height, width = walls.shape
    side, row, other_row, column, other_column = (
        jax.random.randint(each, (), 0, most, jnp.int32)
        for each, most in zip(
            jax.random.split(sides_key, 5), (4, num_rows, num_rows, num_columns, num_columns), strict=True
        )
    )
    top = jnp.stack([jnp.int32(0), 2 * column + 1])
    bottom = jnp.stack([jnp.int32(height - 1), 2 * other_column + 1])
    left = jnp.stack([2 * row + 1, jnp.int32(0)])
    right = jnp.stack([2 * other_row + 1, jnp.int32(width - 1)])
    starts, ends = jnp.stack([top, bottom, left, right]), jnp.stack([bottom, top, right, left])
    return Maze(walls.at[starts[side, 0], starts[side, 1]].set(False), starts[side], ends[side])


def _draw_walls(key: jax.Array, num_rows: int, num_columns: int) -> jax.Array:
    num_cells = num_rows * num_columns
    height, width = 2 * num_rows + 1, 2 * num_columns + 1
    first_key, draws_key = jax.random.split(key)
    draws = jax.random.uniform(draws_key, (num_cells, 3))
    first = jax.random.randint(first_key, (), 0, num_cells, jnp.int32)

    def new_neighbours(visited: jax.Array) -> jax.Array:
        """Whether the neighbours of cells in each direction are new, bool[4, num_cells]."""
        padded = jnp.pad(visited.reshape(num_rows, num_columns), 1, constant_values=True)
        moved = [padded[1 + r : 1 + r + num_rows, 1 + c : 1 + c + num_columns] for r, c in STEPS]
        return ~jnp.stack(moved).reshape(4, num_cells)

    def go_on(carry: _Carving) -> jax.Array:
        return (carry.visited & new_neighbours(carry.visited).any(axis=0)).any() & (carry.trials_left >= 0)

    def move(carry: _Carving) -> _Carving:
        to_direction, to_cell, to_trials = draws[carry.num_moves]
        new = new_neighbours(carry.visited)
        stuck = ~new[:, carry.cell].any()
        useful = carry.visited & new.any(axis=0)
        failed = jnp.floor(jnp.log1p(-to_trials) / jnp.log1p(-useful.sum() / num_cells))
        trials = 1 + jnp.minimum(failed, height * width).astype(jnp.int32)
        trials_left = carry.trials_left - jnp.where(stuck, trials, 0)
        found = trials_left >= 0
        cell = jnp.where(stuck, _any_of(useful, to_cell), carry.cell)
        row_step, column_step = jnp.asarray(STEPS)[_any_of(new[:, cell], to_direction)]
        row, column = jnp.divmod(cell, num_columns)
        following = cell + row_step * num_columns + column_step
        passage = (2 * row + 1 + row_step, 2 * column + 1 + column_step)
        return _Carving(
            carry.visited.at[following].set(carry.visited[following] | found),
            carry.walls.at[passage].set(carry.walls[passage] & ~found),
            following,
            carry.num_moves + 1,
            trials_left,
        )

    start = _Carving(
        jnp.zeros(num_cells, bool).at[first].set(True),
        jnp.ones((height, width), bool),
        first,
        jnp.int32(0),
        jnp.int32(height * width),
    )
    carved = jax.lax.while_loop(go_on, move, start)
    return carved.walls.at[1::2, 1::2].set(~carved.visited.reshape(num_rows, num_columns))


def _any_of(mask: jax.Array, uniform: jax.Array) -> jax.Array:
    """Index i32[] of one of the true values of bool[N], each equally likely by a number f32[] from 0 up to 1."""
    chosen = jnp.floor(uniform * mask.sum()).astype(jnp.int32)
    return (jnp.cumsum(mask) <= chosen).sum(dtype=jnp.int32)
