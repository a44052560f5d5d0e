"""Draws Endless-MysteryPath. The camera follows the agent horizontally."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.envs.tasks.memory_gym import sprites
from trxl_jax.envs.tasks.memory_gym.drawing import debug_frame
from trxl_jax.envs.tasks.memory_gym.mystery_path_drawing import TILE, TILE_OF_PIXEL, draw_agent, to_rgb
from trxl_jax.envs.tasks.memory_gym.path_search import GRID_SIZE
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN

MARGIN = 2
"""Columns to the left of the screen in the window of tiles."""

WINDOW = MARGIN + SCREEN // TILE + 1
"""Columns in the window of tiles that is considered for drawing; up to eight are on the screen."""

COLUMNS = GRID_SIZE + 1
"""Columns per segment: a path across the grid, and one column that connects it to the next segment."""

MAX_SEGMENT_LENGTH = 64
"""Upper bound of the number of tiles in a segment's path."""

BAR_X = 80
EDGE = (np.arange(SCREEN) % TILE == 0) | (np.arange(SCREEN) % TILE == TILE - 1)
"""bool[84], rows of pixels at the border of a tile."""


class Scene(NamedTuple):
    """What to draw, for one environment.

    Fields:
        places: u8[columns, 7], position of tiles along their segment's path, 0 off the path.
        tile: i32[2], column and row of the path's tile on which the agent was last.
        centre: i32[2], centre of the agent in pixels, relative to the path.
        direction: i32[], direction of the agent, 0..7.
        fallen: bool[], whether the agent is off the path.
        scroll: i32[], horizontal shift of the floor in pixels.
        bar_height: i32[], height in pixels of the bar's used part.
    """

    places: jax.Array
    tile: jax.Array
    centre: jax.Array
    direction: jax.Array
    fallen: jax.Array
    scroll: jax.Array
    bar_height: jax.Array


@dataclass(frozen=True)
class EndlessDrawing:
    """Draws scenes according to the task's options.

    Fields:
        agent_x: column of the agent's centre on the screen, in pixels.
        past_columns: columns of the path that are drawn, not counting the one left of the agent; None draws no path.
        show_background: draw a floor of tiles.
        show_stamina: draw a bar of the remaining stamina.
        visual_feedback: draw a cross where the agent leaves the path.
    """

    agent_x: int
    past_columns: int | None
    show_background: bool
    show_stamina: bool
    visual_feedback: bool

    def observation(self, scene: Scene) -> jax.Array:
        """The observation u8[84, 84, 3], indexed [x, y, channel]."""
        canvas = self._floor(scene.scroll)
        if self.past_columns is not None:
            first = self._first_column(scene.centre)
            window = _window(scene.places, first)
            shown = _visible_past(window, first, scene.tile, scene.centre[0] // TILE, self.past_columns)
            shown, edge = self._on_pixels(shown, scene.centre)
            colour = jnp.where(edge[:, None] | EDGE, sprites.colour(210, 210, 210), sprites.colour(255, 255, 255))
            canvas = jnp.where(shown, colour.astype(jnp.uint8), canvas)
        canvas = self._with_agent(canvas, scene)
        others = [sprites.colour(210, 210, 210)]
        if self.past_columns is not None:
            others.append(sprites.colour(255, 255, 255))
        if self.show_background:
            others.append(sprites.colour(125, 177, 250))
        if self.show_stamina:
            canvas = _with_bar(canvas, scene.bar_height)
            others += [sprites.colour(255, 0, 0), sprites.colour(0, 255, 0)]
        return to_rgb(canvas, *others)

    def debug(self, scene: Scene) -> jax.Array:
        """A picture with the whole path for people, u8[336, 336, 3], rows first."""
        floor = self._floor(scene.scroll)
        window = _window(scene.places, self._first_column(scene.centre))
        shown, _ = self._on_pixels(window > 0, scene.centre)
        black, border = sprites.colour(0, 0, 0), sprites.colour(210, 210, 210)
        above = sprites.load()["path_above"][:, 0]
        path = jnp.where(floor == black, above[0], jnp.where(floor == border, above[2], above[1]))
        canvas = self._with_agent(jnp.where(shown, path, floor), scene)
        return debug_frame(_with_bar(canvas, scene.bar_height))

    def _with_agent(self, canvas: jax.Array, scene: Scene) -> jax.Array:
        crossed = scene.fallen & self.visual_feedback
        return draw_agent(canvas, scene.direction, crossed, self.agent_x, scene.centre[1])

    def _floor(self, scroll: jax.Array) -> jax.Array:
        """The floor u8[84, 84]."""
        if not self.show_background:
            return jnp.full((SCREEN, SCREEN), sprites.colour(0, 0, 0), jnp.uint8)
        pixel = (jnp.arange(SCREEN) - scroll) % TILE
        edge = ((pixel == 0) | (pixel == TILE - 1))[:, None] | EDGE
        return jnp.where(edge, sprites.colour(210, 210, 210), sprites.colour(125, 177, 250)).astype(jnp.uint8)

    def _first_column(self, centre: jax.Array) -> jax.Array:
        """Column of the path at which the window starts; negative near the start of the path."""
        return (centre[0] - self.agent_x) // TILE - MARGIN

    def _on_pixels(self, shown: jax.Array, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Scales tiles bool[WINDOW, 7] to pixels bool[84, 84]; also returns the columns at tile borders, bool[84]."""
        pixel = (centre[0] - self.agent_x) % TILE + jnp.arange(SCREEN)
        rows = (shown.astype(jnp.int32) << jnp.arange(GRID_SIZE)).sum(axis=1)[pixel // TILE + MARGIN]
        within = pixel % TILE
        # If the screen's edge clips a tile to two columns, pygame draws both as border.
        outermost = np.arange(SCREEN)
        cut = ((outermost == 0) & (within == TILE - 2)) | ((outermost == SCREEN - 1) & (within == 1))
        edge = (within == 0) | (within == TILE - 1) | cut
        # Without the barrier XLA recomputes them for each pixel.
        rows, edge = jax.lax.optimization_barrier((rows.astype(jnp.uint8), edge))
        return (rows[:, None] & (1 << TILE_OF_PIXEL).astype(np.uint8)) != 0, edge


def _window(places: jax.Array, first: jax.Array) -> jax.Array:
    """Positions i32[WINDOW, 7] along the whole path, increasing, for the window from column `first`; 0 off the path."""
    column = first + jnp.arange(WINDOW)
    inside = (column >= 0) & (column < places.shape[0])
    local = places[jnp.clip(column, 0, places.shape[0] - 1)].astype(jnp.int32)
    return jnp.where(inside[:, None] & (local > 0), column[:, None] // COLUMNS * MAX_SEGMENT_LENGTH + local, 0)


def _visible_past(
    window: jax.Array, first: jax.Array, tile: jax.Array, agent_column: jax.Array, columns: int
) -> jax.Array:
    """Which tiles of the window are drawn as the path behind the agent, bool[WINDOW, 7].

    These are the tiles from the one before the agent's last tile back to the nearest earlier tile in the column where
    the view ends. Since paths can turn back to the left, these are not just the tiles to the left of the agent.

    Args:
        window: i32[WINDOW, 7], positions along the path.
        first: i32[], first column of the window.
        tile: i32[2], the agent's last tile on the path.
        agent_column: i32[], column of the agent.
        columns: number of columns that are visible.
    """
    column = first + jnp.arange(WINDOW)[:, None]
    at_tile = (column == tile[0]) & (jnp.arange(GRID_SIZE) == tile[1])
    place = jnp.where(at_tile, window, 0).max()
    before = (window > 0) & (window < place)
    view_end = jnp.maximum(agent_column - 1 - columns, 0)
    last = jnp.where(before & (column <= view_end), window, 0).max()
    return before & (window >= last) & (agent_column > 0)


def _with_bar(canvas: jax.Array, height: jax.Array) -> jax.Array:
    colour = jnp.where(jnp.arange(SCREEN) < height, sprites.colour(255, 0, 0), sprites.colour(0, 255, 0))
    return jnp.where((np.arange(SCREEN) >= BAR_X)[:, None], colour.astype(jnp.uint8), canvas)
