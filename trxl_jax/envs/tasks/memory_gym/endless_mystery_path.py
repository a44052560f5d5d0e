"""Endless-MysteryPath: walk along a path that leads to the right for ever, while the stamina lasts.

Tiles of the path are seen once they lie behind the agent. Who leaves the path is put back to its start a step later,
and has to find the same way again.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS
from trxl_jax.envs.tasks.memory_gym.endless_mystery_path_drawing import COLUMNS, EndlessPicture, Scene
from trxl_jax.envs.tasks.memory_gym.environment import OVERFLOW, MemoryGymEnvironment
from trxl_jax.envs.tasks.memory_gym.mystery_path import RADIUS
from trxl_jax.envs.tasks.memory_gym.mystery_path_drawing import TILE
from trxl_jax.envs.tasks.memory_gym.options import Options
from trxl_jax.envs.tasks.memory_gym.path_batch import only_where_needed
from trxl_jax.envs.tasks.memory_gym.path_search import SIDE, WORDS, draw, find_path
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN

FACING_RIGHT = 6
MOST_STAMINA = 1 << 16


@struct.dataclass(kw_only=True)
class EndlessMysteryPathParams(gymnax_environment.EnvParams):
    """Parameters.

    Fields:
        max_steps_in_episode: i32[], 1,024 where there is no limit.
        max_steps: i32[], steps after which an episode ends; -1 for no limit.
        stamina: i32[], steps that can be walked without a tile that refreshes.
        bar_heights: i32[stamina + 1], of the spent part of the bar, in pixels, by what stamina is left.
        progress_reward: f32[], reward of a step to a tile of the path that is new; with the one of every step.
        fall_reward: f32[], of a step off the path; likewise.
        step_reward: f32[], of any other step.
        speed: i32[], pixels a step.
    """

    max_steps_in_episode: Any
    max_steps: Any
    stamina: Any
    bar_heights: Any
    progress_reward: Any
    fall_reward: Any
    step_reward: Any
    speed: Any


@struct.dataclass
class EndlessMysteryPathLayout:
    """What a reset draws. Segments follow from the key and their index, and are found when the agent enters them.

    Fields:
        key: key[], which segments are drawn from.
        start_row: i32[], where the path starts.
        recorded: u8[segments, 8, 7] or None, places as in the state, to be met instead of what the key would give.
    """

    key: jax.Array
    start_row: jax.Array
    recorded: jax.Array | None = None


@struct.dataclass
class EndlessMysteryPathState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        key, start_row, recorded: as in the layout.
        places: u8[segments, 8, 7] by columns and rows, place on the path, counted from 1 in each segment; 0 off the
            path and in segments that are not known yet.
        num_known: i32[], segments that the agent has entered.
        next_row: i32[], where the first segment starts that is not known.
        centre: i32[2], of the agent, x and y, in pixels from the upper left corner of the path.
        direction: i32[], turns of 45 degrees to the left, from upwards.
        scroll: i32[], how far the background is shifted to the right, in -11..0 pixels.
        tile: i32[2], tile of the path that the agent was on last.
        rewarded: u8[8 * segments] by columns, with bit y set where the tile in row y was rewarded.
        refreshed: u8[8 * segments], likewise, tiles that have refreshed the agent since its last fall.
        falls: i32[2], with bit y + 1 set where the agent fell in row y, in columns max_x and max_x + 1. Elsewhere it
            does not matter: a fall further left ends the episode, one further right can't be.
        stamina: i32[], steps left.
        max_x: i32[], rightmost column that the agent reached on the path.
        fallen: bool[], the agent is off the path.
        num_fails: i32[], falls so far.
        tiles_visited: i32[], rewarded tiles.
    """

    time: Any  # gymnax says int and means an array
    key: jax.Array
    start_row: jax.Array
    places: jax.Array
    num_known: jax.Array
    next_row: jax.Array
    centre: jax.Array
    direction: jax.Array
    scroll: jax.Array
    tile: jax.Array
    rewarded: jax.Array
    refreshed: jax.Array
    falls: jax.Array
    stamina: jax.Array
    max_x: jax.Array
    fallen: jax.Array
    num_fails: jax.Array
    tiles_visited: jax.Array
    recorded: jax.Array | None = None


class EndlessMysteryPath(MemoryGymEnvironment):
    """Endless-MysteryPath-v0.

    Args:
        segments: how much of a path is kept, 8 columns each; whoever walks all of it is truncated, after 32 steps a
            segment or more.
        camera_offset_scale: tiles between the left edge of the screen and the agent.
        show_past_path: draw the tiles of the path behind the agent.
        show_background: draw a floor of tiles.
        show_stamina: draw a bar.
        visual_feedback: draw a cross where the agent falls.
    """

    result_names = ("num_fails", "max_x", "tiles_visited", OVERFLOW)
    fps = 25
    task = "Endless-MysteryPath-v0"
    nvec = (4,)
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_steps": -1,
        "agent_scale": 0.25,
        "agent_speed": 3.0,
        "show_origin": False,
        "show_past_path": True,
        "show_background": False,
        "show_stamina": False,
        "visual_feedback": True,
        "camera_offset_scale": 5.0,
        "stamina_level": 20,
        "reward_fall_off": 0.0,
        "reward_path_progress": 0.1,
        "reward_step": 0.0,
    }

    def __init__(
        self,
        *,
        segments: int = 64,
        camera_offset_scale: float = 5.0,
        show_past_path: bool = True,
        show_background: bool = False,
        show_stamina: bool = False,
        visual_feedback: bool = True,
    ) -> None:
        self._segments = segments
        self._picture = EndlessPicture(
            agent_x=RADIUS + int(TILE * camera_offset_scale),
            past_columns=int(camera_offset_scale) if show_past_path else None,
            show_background=show_background,
            show_stamina=show_stamina,
            visual_feedback=visual_feedback,
        )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "tuple[EndlessMysteryPath, EndlessMysteryPathParams]":
        """The task with Memory Gym's options for its `reset`.

        Raises:
            ConfigError: an option that is unknown, not to be changed here, or has a value that can't be.
        """
        read = Options(options, cls.defaults)
        read.fixed("agent_scale")
        # Memory Gym takes it and shows the origin never: it asks for the option to be true and false at once.
        read.flag("show_origin")
        every_step = read.number("reward_step")
        max_steps = read.limit("max_steps")
        stamina = read.whole("stamina_level", 1, MOST_STAMINA)
        camera_offset_scale = read.number("camera_offset_scale", 0.0, 5.5)
        if not (TILE * camera_offset_scale).is_integer():
            raise read.refusal("camera_offset_scale", f"a multiple of 1/{TILE}, which is a whole number of pixels")
        params = EndlessMysteryPathParams(
            max_steps_in_episode=ENDLESS_MAX_EPISODE_STEPS if max_steps == -1 else max_steps,
            max_steps=max_steps,
            stamina=stamina,
            bar_heights=np.array([int(SCREEN * (1 - left / stamina)) for left in range(stamina + 1)], np.int32),
            # The original adds in double precision.
            progress_reward=np.float32(read.number("reward_path_progress") + every_step),
            fall_reward=np.float32(read.number("reward_fall_off") + every_step),
            step_reward=np.float32(every_step),
            speed=int(read.number("agent_speed", 1, TILE)),
        )
        flags = ("show_past_path", "show_background", "show_stamina", "visual_feedback")
        return cls(camera_offset_scale=camera_offset_scale, **{name: read.flag(name) for name in flags}), params

    def init_layout(
        self, key: jax.Array, params: EndlessMysteryPathParams, needed: ArrayLike = True
    ) -> EndlessMysteryPathLayout:
        """Draws where the path starts; its segments are searched in the steps that enter them."""
        # Segments have small numbers; this one is none of theirs.
        word = jax.random.bits(jax.random.fold_in(key, self._segments))
        return EndlessMysteryPathLayout(key=key, start_row=(word % SIDE).astype(jnp.int32))

    def reset_from_layout(
        self, layout: EndlessMysteryPathLayout, params: EndlessMysteryPathParams
    ) -> EndlessMysteryPathState:
        """The agent stands on the path's first tile and looks to the right."""
        zero = jnp.int32(0)
        columns = COLUMNS * self._segments
        return EndlessMysteryPathState(
            time=zero,
            key=layout.key,
            start_row=layout.start_row,
            places=jnp.zeros((self._segments, COLUMNS, SIDE), jnp.uint8),
            num_known=zero,
            next_row=layout.start_row,
            centre=_start(layout.start_row),
            direction=jnp.int32(FACING_RIGHT),
            scroll=zero,
            tile=jnp.stack([zero, layout.start_row]),
            # The start is never rewarded.
            rewarded=jnp.where(jnp.arange(columns) == 0, 1 << layout.start_row, 0).astype(jnp.uint8),
            # But it refreshes, at first and after each fall: the original's test that it is the start never holds.
            refreshed=jnp.zeros(columns, jnp.uint8),
            falls=jnp.zeros(2, jnp.int32),
            stamina=jnp.asarray(params.stamina, jnp.int32),
            max_x=zero,
            fallen=jnp.bool_(False),
            num_fails=zero,
            tiles_visited=zero,
            recorded=layout.recorded,
        )

    def transition(
        self, state: EndlessMysteryPathState, action: jax.Array, params: EndlessMysteryPathParams
    ) -> tuple[EndlessMysteryPathState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """Moves the agent: 0 nothing, 1 right, 2 up, 3 down; after a fall it is put back to the start instead."""
        state = self._explored(self._moved(state, action, params))
        tile = state.centre // TILE
        column, row = tile
        # Off the screen there is no path; a step leads there by one tile at most.
        on_screen = (row >= 0) & (row < SIDE)
        of_column = state.places.reshape(-1, SIDE)[column]
        on_path = on_screen & (jnp.where(jnp.arange(SIDE) == row, of_column, 0) != 0).any()
        fallen = ~on_path
        here = jnp.where(on_path, 1 << jnp.clip(row, 0, SIDE - 1), 0).astype(jnp.uint8)
        new = on_path & ((state.rewarded[column] & here) == 0)
        refreshing = on_path & ((state.refreshed[column] & here) == 0)

        fall_bit = jnp.where(fallen, 1 << (row + 1), 0)
        fall_place = column - state.max_x
        fell_here = jnp.arange(2) == fall_place
        fatal = fallen & ((fall_place < 0) | (fell_here & ((state.falls & fall_bit) != 0)).any())
        falls = jnp.where(fell_here, state.falls | fall_bit, state.falls)
        further = on_path & (fall_place > 0)
        # Falls are remembered for the whole episode: the original's list is cleared on a condition that never holds.
        falls = jnp.where(further, jnp.stack([falls[1], jnp.int32(0)]), falls)

        stamina = jnp.where(fallen | refreshing, params.stamina, state.stamina) - 1
        time = state.time + 1
        terminated = fatal | (stamina == 0) | (time == params.max_steps)
        in_column = jnp.arange(state.rewarded.size) == column
        state = state.replace(
            time=time,
            tile=jnp.where(on_path, tile, state.tile),
            rewarded=jnp.where(in_column, state.rewarded | here, state.rewarded),
            refreshed=jnp.where(fallen, 0, jnp.where(in_column, state.refreshed | here, state.refreshed)),
            falls=falls,
            stamina=stamina,
            max_x=jnp.where(further, column, state.max_x),
            fallen=fallen,
            num_fails=state.num_fails + fallen,
            tiles_visited=state.tiles_visited + new,
        )
        reward = jnp.where(fallen, params.fall_reward, jnp.where(new, params.progress_reward, params.step_reward))
        told = {name: getattr(state, name).astype(jnp.float32) for name in self.result_names if name != OVERFLOW}
        return state, reward.astype(jnp.float32), terminated, told

    def is_truncated(self, state: EndlessMysteryPathState, params: EndlessMysteryPathParams) -> jax.Array:
        """The agent is on the last tile that the tables have room for."""
        return ~state.fallen & (state.tile[0] == state.rewarded.size - 1)

    def render(self, state: EndlessMysteryPathState, params: EndlessMysteryPathParams) -> jax.Array:
        """The path behind the agent, and the agent, always in the same column of the screen."""
        return self._picture.observation(_scene(state, params))

    def render_debug(self, state: EndlessMysteryPathState, params: EndlessMysteryPathParams) -> jax.Array:
        """The path before the agent too, and the bar."""
        # On the first picture nothing is known, on others the screen may show one segment that is not.
        ahead = self._explored(state, True)
        return self._picture.debug(_scene(ahead, params))

    def _moved(
        self, state: EndlessMysteryPathState, action: jax.Array, params: EndlessMysteryPathParams
    ) -> EndlessMysteryPathState:
        action = jnp.where(state.fallen, 0, action)
        right = jnp.where(action == 1, params.speed, 0)
        down = jnp.where(action == 3, params.speed, jnp.where(action == 2, -params.speed, 0))
        centre = jnp.where(state.fallen, _start(state.start_row), state.centre + jnp.stack([right, down]))
        turned = jnp.select([action == 1, action == 2, action == 3], [FACING_RIGHT, 0, 4], state.direction)
        scroll = jnp.where(state.fallen, 0, state.scroll - right)
        # After a tile's width the floor looks as before; the original drops what is beyond a multiple of the speed,
        # so that its floor jumps at speeds which don't divide the width.
        return state.replace(centre=centre, direction=turned, scroll=jnp.where(scroll <= -TILE, 0, scroll))

    def _explored(self, state: EndlessMysteryPathState, needed: ArrayLike | None = None) -> EndlessMysteryPathState:
        """Finds the next segment if the agent has entered it, or if it is needed otherwise."""
        index = state.num_known
        if needed is None:
            needed = state.centre[0] // (TILE * COLUMNS) >= index
        needed = jnp.asarray(needed) & (index < self._segments)
        if state.recorded is None:
            places, end_row = _draw_segment(needed, state.key, index, state.next_row)
        else:
            places, end_row = state.recorded[index], state.next_row
        chosen = (jnp.arange(self._segments) == index) & needed
        return state.replace(
            places=jnp.where(chosen[:, None, None], places, state.places),
            num_known=index + needed,
            next_row=jnp.where(needed, end_row, state.next_row),
        )


def _scene(state: EndlessMysteryPathState, params: EndlessMysteryPathParams) -> Scene:
    return Scene(
        places=state.places.reshape(-1, SIDE),
        tile=state.tile,
        centre=state.centre,
        direction=state.direction,
        fallen=state.fallen,
        scroll=state.scroll,
        bar_height=jnp.asarray(params.bar_heights)[state.stamina],
    )


def _start(row: jax.Array) -> jax.Array:
    return jnp.stack([jnp.int32(RADIUS), row * TILE + RADIUS])


@only_where_needed
def _draw_segment(key: jax.Array, index: jax.Array, start_row: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Places u8[8, 7] of a segment that starts in a row, and the row in which it ends."""
    words = jax.random.bits(jax.random.fold_in(key, index), (WORDS + 1,))
    end_row = (words[0] % SIDE).astype(jnp.int32)
    start = jnp.stack([jnp.int32(0), start_row])
    places = find_path(draw(words[1:]), start, jnp.stack([jnp.int32(SIDE - 1), end_row])).places
    leads_over = jnp.where(jnp.arange(SIDE) == end_row, places[-1] + 1, 0).astype(jnp.uint8)
    return jnp.concatenate([places, leads_over[None]]), end_row
