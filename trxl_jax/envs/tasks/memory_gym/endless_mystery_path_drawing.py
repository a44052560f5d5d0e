"""Pictures of Endless-MysteryPath. The camera moves with the agent, so that all else moves past it."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.envs.tasks.memory_gym import sprites
from trxl_jax.envs.tasks.memory_gym.drawing import for_people
from trxl_jax.envs.tasks.memory_gym.mystery_path_drawing import TILE, TILE_OF_PIXEL, draw_agent, in_colours
from trxl_jax.envs.tasks.memory_gym.path_search import SIDE
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN

MARGIN = 2
"""Columns left of the screen that are looked at, for where the shown part of the path begins."""

WINDOW = MARGIN + SCREEN // TILE + 1
"""Columns looked at; the screen shows parts of eight."""

COLUMNS = SIDE + 1
"""Of a segment: a path across a grid, and one tile that leads over to the next segment."""

PLACES = 64
"""More than a segment's path can have."""

BAR_X = 80
EDGE = (np.arange(SCREEN) % TILE == 0) | (np.arange(SCREEN) % TILE == TILE - 1)
"""bool[84], pixels at a tile's border, in rows."""


class Scene(NamedTuple):
    """What is to be drawn, in arrays of one environment.

    Fields:
        places: u8[columns, 7], place on the path in a segment, 0 off it.
        tile: i32[2], tile of the path that the agent was on last.
        centre: i32[2], of the agent on the path, in pixels.
        direction: i32[], of the agent.
        fallen: bool[], whether it is off the path.
        scroll: i32[], pixels by which the floor is shifted.
        bar_height: i32[], of the bar's spent part.
    """

    places: jax.Array
    tile: jax.Array
    centre: jax.Array
    direction: jax.Array
    fallen: jax.Array
    scroll: jax.Array
    bar_height: jax.Array


@dataclass(frozen=True)
class EndlessPicture:
    """How it is drawn.

    Fields:
        agent_x: the agent's column on the screen.
        past_columns: columns of the path drawn behind the one left of the agent; None draws no path.
        show_background: draw a floor of tiles.
        show_stamina: draw a bar.
        visual_feedback: draw a cross where the agent falls.
    """

    agent_x: int
    past_columns: int | None
    show_background: bool
    show_stamina: bool
    visual_feedback: bool

    def observation(self, scene: Scene) -> jax.Array:
        """What the agent sees, u8[84, 84, 3]."""
        canvas = self._floor(scene.scroll)
        if self.past_columns is not None:
            first = self._first_column(scene.centre)
            window = _window(scene.places, first)
            shown = _past(window, first, scene.tile, scene.centre[0] // TILE, self.past_columns)
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
        return in_colours(canvas, *others)

    def debug(self, scene: Scene) -> jax.Array:
        """What a person sees, u8[336, 336, 3] with rows first."""
        floor = self._floor(scene.scroll)
        window = _window(scene.places, self._first_column(scene.centre))
        shown, _ = self._on_pixels(window > 0, scene.centre)
        black, border = sprites.colour(0, 0, 0), sprites.colour(210, 210, 210)
        above = sprites.load()["path_above"][:, 0]
        path = jnp.where(floor == black, above[0], jnp.where(floor == border, above[2], above[1]))
        canvas = self._with_agent(jnp.where(shown, path, floor), scene)
        return for_people(_with_bar(canvas, scene.bar_height))

    def _with_agent(self, canvas: jax.Array, scene: Scene) -> jax.Array:
        crossed = scene.fallen & self.visual_feedback
        return draw_agent(canvas, scene.direction, crossed, self.agent_x, scene.centre[1])

    def _floor(self, scroll: jax.Array) -> jax.Array:
        """Floor u8[84, 84]."""
        if not self.show_background:
            return jnp.full((SCREEN, SCREEN), sprites.colour(0, 0, 0), jnp.uint8)
        pixel = (jnp.arange(SCREEN) - scroll) % TILE
        edge = ((pixel == 0) | (pixel == TILE - 1))[:, None] | EDGE
        return jnp.where(edge, sprites.colour(210, 210, 210), sprites.colour(125, 177, 250)).astype(jnp.uint8)

    def _first_column(self, centre: jax.Array) -> jax.Array:
        """The path's column that the window starts with; negative at the start."""
        return (centre[0] - self.agent_x) // TILE - MARGIN

    def _on_pixels(self, shown: jax.Array, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
        """For tiles bool[WINDOW, 7]: whether each pixel is on one, bool[84, 84]; and at a vertical edge, bool[84]."""
        pixel = (centre[0] - self.agent_x) % TILE + jnp.arange(SCREEN)
        rows = (shown.astype(jnp.int32) << jnp.arange(SIDE)).sum(axis=1)[pixel // TILE + MARGIN]
        within = pixel % TILE
        # Of a frame that the screen's edge cuts down to two columns, pygame draws both.
        outermost = np.arange(SCREEN)
        cut = ((outermost == 0) & (within == TILE - 2)) | ((outermost == SCREEN - 1) & (within == 1))
        edge = (within == 0) | (within == TILE - 1) | cut
        # Else the compiler would find them for each pixel anew.
        rows, edge = jax.lax.optimization_barrier((rows.astype(jnp.uint8), edge))
        return (rows[:, None] & (1 << TILE_OF_PIXEL).astype(np.uint8)) != 0, edge


def _window(places: jax.Array, first: jax.Array) -> jax.Array:
    """Places i32[WINDOW, 7] on the whole path from column `first` on; 0 off it."""
    column = first + jnp.arange(WINDOW)
    inside = (column >= 0) & (column < places.shape[0])
    local = places[jnp.clip(column, 0, places.shape[0] - 1)].astype(jnp.int32)
    return jnp.where(inside[:, None] & (local > 0), column[:, None] // COLUMNS * PLACES + local, 0)


def _past(window: jax.Array, first: jax.Array, tile: jax.Array, agent_column: jax.Array, columns: int) -> jax.Array:
    """Which tiles of the window bool[WINDOW, 7] are drawn as the path behind.

    They lead from the one before the agent's last tile of the path, which may lie left of a column that it has fallen
    to, back to the first one in the column where the view ends. With paths that turn back, this is not what lies left
    of the agent.
    """
    column = first + jnp.arange(WINDOW)[:, None]
    at_tile = (column == tile[0]) & (jnp.arange(SIDE) == tile[1])
    place = jnp.where(at_tile, window, 0).max()
    before = (window > 0) & (window < place)
    view_end = jnp.maximum(agent_column - 1 - columns, 0)
    last = jnp.where(before & (column <= view_end), window, 0).max()
    return before & (window >= last) & (agent_column > 0)


def _with_bar(canvas: jax.Array, height: jax.Array) -> jax.Array:
    colour = jnp.where(jnp.arange(SCREEN) < height, sprites.colour(255, 0, 0), sprites.colour(0, 255, 0))
    return jnp.where((np.arange(SCREEN) >= BAR_X)[:, None], colour.astype(jnp.uint8), canvas)
