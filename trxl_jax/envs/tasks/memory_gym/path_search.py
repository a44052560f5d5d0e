"""Mystery Path's path generator: random walls in a grid, and a noisy A* search between two tiles of its border.

It reproduces deviations of the original from textbook A*: which tile of the open list is expanded, and what changes
when a cheaper way to an open tile is found. Given the original's random draws, it finds the original's path.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

GRID_SIZE = 7
"""Tiles along an edge of the grid."""

TILES = GRID_SIZE * GRID_SIZE
WALL_PERCENT = 33
NUM_BORDER_WALLS = (4, 8)

COLUMN, ROW = np.divmod(np.arange(TILES, dtype=np.int32), GRID_SIZE)
"""i32[49] each, column and row of the tiles of a flattened grid, in the order in which the original visits them."""

NOT_OPEN = np.int32(np.iinfo(np.int32).max)
ON_BORDER = np.array((COLUMN % (GRID_SIZE - 1) == 0) | (ROW % (GRID_SIZE - 1) == 0))

# A set of tiles is a bit mask of 49 bits in two u32 words. These are the masks of single tiles.
LOW_BIT = np.where(np.arange(TILES) < 32, 1 << (np.arange(TILES) % 32), 0).astype(np.uint32)
HIGH_BIT = np.where(np.arange(TILES) < 32, 0, 1 << (np.arange(TILES) % 32)).astype(np.uint32)


class PathDraws(NamedTuple):
    """The random draws of a path.

    Fields:
        walls: bool[4, 4], inner walls at columns and rows 1 to 4.
        num_border_walls: i32[], number of walls on the border; fewer are placed if there is no space.
        border: f32[8] in [0, 1); the k-th border wall is placed at the floor(n * border[k])-th of the n free tiles.
        noise: u32[49], one word per expanded tile; bits 3d to 3d + 2 are the cost noise 0..7 of the neighbour in
            direction d: right, left, down, up.
    """

    walls: jax.Array
    num_border_walls: jax.Array
    border: jax.Array
    noise: jax.Array


class Path(NamedTuple):
    """A path and its walls, indexed [column, row].

    Fields:
        places: u8[7, 7], position along the path, 1 at its start; 0 for tiles off the path.
        walls: bool[7, 7].
    """

    places: jax.Array
    walls: jax.Array


NUM_WORDS = 16 + 1 + max(NUM_BORDER_WALLS) + TILES
"""Number of random u32 words per path."""


def path_draws(words: jax.Array) -> PathDraws:
    """Converts random words u32[NUM_WORDS] to draws with the original's distributions.

    All words come from one call of the random number generator, to reduce compile time. The bias of the remainders is
    below 1 in 10 million.
    """
    walls, num_border_walls, border, noise = jnp.split(words, np.cumsum([16, 1, max(NUM_BORDER_WALLS)]))
    return PathDraws(
        walls=(walls % 100 < WALL_PERCENT).reshape(4, 4),
        num_border_walls=jnp.where(num_border_walls[0] % 2 == 0, *NUM_BORDER_WALLS),
        border=(border >> 8).astype(jnp.float32) / (1 << 24),
        noise=noise,
    )


def find_path(draws: PathDraws, start: jax.Array, end: jax.Array) -> Path:
    """Finds the path that the original finds with these draws.

    Args:
        draws: the random draws.
        start: i32[2], column and row of a tile on the border.
        end: i32[2], likewise.
    """
    walls = _walls(draws, start, end)
    return Path(
        _search(walls, start, end, draws.noise).reshape(GRID_SIZE, GRID_SIZE), walls.reshape(GRID_SIZE, GRID_SIZE)
    )


def _walls(draws: PathDraws, start: jax.Array, end: jax.Array) -> jax.Array:
    """Walls bool[49]. Border walls are not placed next to inner walls, on the ends of the path or next to them."""
    inner = jnp.pad(draws.walls, ((1, 2), (1, 2)))
    padded = jnp.pad(inner, 1)
    next_to_wall = jnp.stack([padded[i : i + GRID_SIZE, j : j + GRID_SIZE] for i in range(3) for j in range(3)]).any(
        axis=0
    )
    free = jnp.asarray(ON_BORDER) & ~next_to_wall.reshape(TILES)
    for place in (start, end):
        free &= jnp.abs(COLUMN - place[0]) + jnp.abs(ROW - place[1]) > 1

    def add_wall(free: jax.Array, indexed: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        index, uniform = indexed
        count = jnp.cumsum(free.astype(jnp.int32))
        chosen = (uniform * count[-1]).astype(jnp.int32)
        return free & ~((count == chosen + 1) & (index < draws.num_border_walls)), None

    left, _ = jax.lax.scan(add_wall, free, (jnp.arange(max(NUM_BORDER_WALLS)), draws.border))
    return inner.reshape(TILES) | (free & ~left)


class _Search(NamedTuple):
    """State of the search.

    Fields:
        num_expanded: i32[], tiles expanded so far.
        unvisited: bool[49], tiles that are not walls and were never in the open list.
        rank: i32[49], order of the tiles in the open list; NOT_OPEN for others.
        cost: i32[49], cost of the way by which each tile was reached first.
        length: i32[49], number of tiles of the current way to each tile.
        low, high: u32[49] each, bit mask of the tiles of that way.
        running: bool[], the end has not been expanded and the open list is not empty.
    """

    num_expanded: jax.Array
    unvisited: jax.Array
    rank: jax.Array
    cost: jax.Array
    length: jax.Array
    low: jax.Array
    high: jax.Array
    running: jax.Array


def _search(walls: jax.Array, start: jax.Array, end: jax.Array, noise: jax.Array) -> jax.Array:
    """Positions u8[49] of tiles along the path, 0 off the path. The walls never separate the ends."""
    at_start = (start[0] == COLUMN) & (start[1] == ROW)
    at_end = (end[0] == COLUMN) & (end[1] == ROW)
    # float32 suffices to order the sums of cost and distance as the original's float64 does: different sums differ by
    # at least .0025.
    distance = jnp.sqrt((jnp.square(COLUMN - end[0]) + jnp.square(ROW - end[1])).astype(jnp.float32))

    def expand(search: _Search) -> _Search:
        estimate = search.cost + distance
        first = search.rank.min()
        estimate_of_first = jnp.where(search.rank == first, estimate, jnp.inf).min()
        # The original takes the first tile of the list that is better than the head, not the best one.
        better = jnp.where(estimate < estimate_of_first, search.rank, NOT_OPEN).min()
        current = search.rank == jnp.where(better == NOT_OPEN, first, better)
        reached = (current & at_end).any()

        def of_current(values: jax.Array | np.ndarray) -> jax.Array:
            return jnp.where(current, values, 0).sum(dtype=jnp.asarray(values).dtype)

        dx, dy = COLUMN - of_current(COLUMN), ROW - of_current(ROW)
        direction = jnp.where(dy == 0, (dx < 0).astype(jnp.int32), jnp.where(dy > 0, 2, 3))
        digit = (noise[search.num_expanded] >> (3 * direction).astype(jnp.uint32)) & 7
        cost = of_current(search.cost) + 1 + digit.astype(jnp.int32)
        neighbour = jnp.abs(dx) + jnp.abs(dy) == 1
        reached_first = neighbour & search.unvisited
        # A cheaper way to an open tile replaces the old way, but the tile keeps its old cost.
        rerouted = neighbour & (search.rank != NOT_OPEN) & (cost < search.cost)
        updated = reached_first | rerouted
        rank = jnp.where(reached_first, 4 * search.num_expanded + direction, jnp.where(current, NOT_OPEN, search.rank))
        return _Search(
            num_expanded=search.num_expanded + 1,
            unvisited=search.unvisited & ~reached_first,
            rank=rank,
            cost=jnp.where(reached_first, cost, search.cost),
            length=jnp.where(updated, of_current(search.length) + 1, search.length),
            low=jnp.where(updated, of_current(search.low) | LOW_BIT, search.low),
            high=jnp.where(updated, of_current(search.high) | HIGH_BIT, search.high),
            running=~reached & (rank != NOT_OPEN).any(),
        )

    searched = jax.lax.while_loop(
        lambda search: search.running,
        expand,
        _Search(
            num_expanded=jnp.int32(0),
            unvisited=~(walls | at_start),
            rank=jnp.where(at_start, 0, NOT_OPEN),
            cost=jnp.zeros(TILES, jnp.int32),
            length=jnp.ones(TILES, jnp.int32),
            low=jnp.asarray(LOW_BIT),
            high=jnp.asarray(HIGH_BIT),
            running=jnp.bool_(True),
        ),
    )
    low = jnp.where(at_end, searched.low, 0).sum(dtype=jnp.uint32)
    high = jnp.where(at_end, searched.high, 0).sum(dtype=jnp.uint32)
    on_path = ((low & LOW_BIT) | (high & HIGH_BIT)) != 0
    return jnp.where(on_path, searched.length, 0).astype(jnp.uint8)
