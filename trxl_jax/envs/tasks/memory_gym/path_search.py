"""Mystery Path's generator: walls inside a grid, walls on its rim, and a noisy A* search between two tiles of the rim.

The path depends on the original's habits: which tile of the open list is expanded, what a second, cheaper way to a
tile changes. Fed the original's draws, the search gives the original's path.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SIDE = 7
"""Tiles along an edge of the grid."""

TILES = SIDE * SIDE
WALL_PERCENT = 33
RIM_WALLS = (4, 8)

COLUMN, ROW = np.divmod(np.arange(TILES, dtype=np.int32), SIDE)
"""i32[49] each, where a tile of a flattened grid lies; the original walks its grid in the same order."""

NOWHERE = np.int32(np.iinfo(np.int32).max)
ON_RIM = np.array((COLUMN % (SIDE - 1) == 0) | (ROW % (SIDE - 1) == 0))

# The tiles of a way as 49 bits, in two words.
LOW_BIT = np.where(np.arange(TILES) < 32, 1 << (np.arange(TILES) % 32), 0).astype(np.uint32)
HIGH_BIT = np.where(np.arange(TILES) < 32, 0, 1 << (np.arange(TILES) % 32)).astype(np.uint32)


class PathDraws(NamedTuple):
    """What is random in a path.

    Fields:
        walls: bool[4, 4], walls at columns and rows 1 to 4.
        num_rim: i32[], walls on the rim, where it has room for them.
        rim: f32[8] in [0, 1); the k-th wall on the rim takes the floor(n * rim[k])-th of the n places left.
        noise: u32[49], a word for each expanded tile, which holds a digit 0..7 in its bits 3d to 3d + 2 for the
            neighbour in direction d: right, left, down, up.
    """

    walls: jax.Array
    num_rim: jax.Array
    rim: jax.Array
    noise: jax.Array


class Path(NamedTuple):
    """A path and the walls around it.

    Fields:
        places: u8[7, 7], place on the path, counted from 1 at its start; 0 off the path.
        walls: bool[7, 7].
    """

    places: jax.Array
    walls: jax.Array


WORDS = 16 + 1 + max(RIM_WALLS) + TILES
"""Random words that a path takes."""


def draw(words: jax.Array) -> PathDraws:
    """Draws as the original does, with words u32[WORDS].

    One call of the random number generator makes them all, since it is most of what there is to compile. Remainders
    are uniform but for 1 in 10 million.
    """
    walls, num_rim, rim, noise = jnp.split(words, np.cumsum([16, 1, max(RIM_WALLS)]))
    return PathDraws(
        walls=(walls % 100 < WALL_PERCENT).reshape(4, 4),
        num_rim=jnp.where(num_rim[0] % 2 == 0, *RIM_WALLS),
        rim=(rim >> 8).astype(jnp.float32) / (1 << 24),
        noise=noise,
    )


def find_path(draws: PathDraws, start: jax.Array, end: jax.Array) -> Path:
    """The path from i32[2] to i32[2], column and row of tiles on the rim, that the original makes of these draws."""
    walls = _walls(draws, start, end)
    return Path(_search(walls, start, end, draws.noise).reshape(SIDE, SIDE), walls.reshape(SIDE, SIDE))


def _walls(draws: PathDraws, start: jax.Array, end: jax.Array) -> jax.Array:
    """Walls bool[49]. Those on the rim keep away from inner ones, from both ends and from the ends' neighbours."""
    inner = jnp.pad(draws.walls, ((1, 2), (1, 2)))
    around = jnp.pad(inner, 1)
    beside_wall = jnp.stack([around[i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3)]).any(axis=0)
    free = jnp.asarray(ON_RIM) & ~beside_wall.reshape(TILES)
    for place in (start, end):
        free &= jnp.abs(COLUMN - place[0]) + jnp.abs(ROW - place[1]) > 1

    def add_wall(free: jax.Array, turn: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        index, uniform = turn
        count = jnp.cumsum(free.astype(jnp.int32))
        chosen = (uniform * count[-1]).astype(jnp.int32)
        return free & ~((count == chosen + 1) & (index < draws.num_rim)), None

    left, _ = jax.lax.scan(add_wall, free, (jnp.arange(max(RIM_WALLS)), draws.rim))
    return inner.reshape(TILES) | (free & ~left)


class _Search(NamedTuple):
    """State of the search.

    Fields:
        turn: i32[], tiles expanded so far.
        unseen: bool[49], tiles that are no walls and were never in the open list.
        rank: i32[49], order of the tiles in the open list; NOWHERE outside of it.
        cost: i32[49], of the way to each tile when it was met first.
        place: i32[49], tiles of the way to each tile.
        low, high: u32[49] each, which tiles these are.
        going: bool[], the end was not expanded, and some tile is open.
    """

    turn: jax.Array
    unseen: jax.Array
    rank: jax.Array
    cost: jax.Array
    place: jax.Array
    low: jax.Array
    high: jax.Array
    going: jax.Array


def _search(walls: jax.Array, start: jax.Array, end: jax.Array, noise: jax.Array) -> jax.Array:
    """Places u8[49] of tiles on the path from start to end, which the walls never part."""
    at_start = (start[0] == COLUMN) & (start[1] == ROW)
    at_end = (end[0] == COLUMN) & (end[1] == ROW)
    # Sums with the costs, which are small integers, stay in the order that double precision gives them: the smallest
    # gap between two of them that differ is .0025.
    distance = jnp.sqrt((jnp.square(COLUMN - end[0]) + jnp.square(ROW - end[1])).astype(jnp.float32))

    def expand(search: _Search) -> _Search:
        estimate = search.cost + distance
        first = search.rank.min()
        estimate_of_first = jnp.where(search.rank == first, estimate, jnp.inf).min()
        # The original stops looking at the first tile that beats the list's head; the best one is not its choice.
        better = jnp.where(estimate < estimate_of_first, search.rank, NOWHERE).min()
        current = search.rank == jnp.where(better == NOWHERE, first, better)
        reached = (current & at_end).any()

        def of_current(values: jax.Array | np.ndarray) -> jax.Array:
            return jnp.where(current, values, 0).sum(dtype=jnp.asarray(values).dtype)

        dx, dy = COLUMN - of_current(COLUMN), ROW - of_current(ROW)
        direction = jnp.where(dy == 0, (dx < 0).astype(jnp.int32), jnp.where(dy > 0, 2, 3))
        digit = (noise[search.turn] >> (3 * direction).astype(jnp.uint32)) & 7
        cost = of_current(search.cost) + 1 + digit.astype(jnp.int32)
        neighbour = jnp.abs(dx) + jnp.abs(dy) == 1
        met = neighbour & search.unseen
        # A cheaper way to an open tile replaces the old one, but the tile keeps the cost of the old.
        rerouted = neighbour & (search.rank != NOWHERE) & (cost < search.cost)
        led_to = met | rerouted
        rank = jnp.where(met, 4 * search.turn + direction, jnp.where(current, NOWHERE, search.rank))
        return _Search(
            turn=search.turn + 1,
            unseen=search.unseen & ~met,
            rank=rank,
            cost=jnp.where(met, cost, search.cost),
            place=jnp.where(led_to, of_current(search.place) + 1, search.place),
            low=jnp.where(led_to, of_current(search.low) | LOW_BIT, search.low),
            high=jnp.where(led_to, of_current(search.high) | HIGH_BIT, search.high),
            going=~reached & (rank != NOWHERE).any(),
        )

    searched = jax.lax.while_loop(
        lambda search: search.going,
        expand,
        _Search(
            turn=jnp.int32(0),
            unseen=~(walls | at_start),
            rank=jnp.where(at_start, 0, NOWHERE),
            cost=jnp.zeros(TILES, jnp.int32),
            place=jnp.ones(TILES, jnp.int32),
            low=jnp.asarray(LOW_BIT),
            high=jnp.asarray(HIGH_BIT),
            going=jnp.bool_(True),
        ),
    )
    low = jnp.where(at_end, searched.low, 0).sum(dtype=jnp.uint32)
    high = jnp.where(at_end, searched.high, 0).sum(dtype=jnp.uint32)
    on_path = ((low & LOW_BIT) | (high & HIGH_BIT)) != 0
    return jnp.where(on_path, searched.place, 0).astype(jnp.uint8)
