"""Endless-MysteryPath: follow an invisible path that continues to the right without end, with limited stamina.

Tiles of the path become visible once they are behind the agent. When the agent leaves the path, it is moved back to the
start in the next step and must follow the same path again.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.batching import only_where_needed
from trxl_jax.envs.tasks.memory_gym.endless_mystery_path_drawing import COLUMNS, EndlessDrawing, Scene
from trxl_jax.envs.tasks.memory_gym.endless_mystery_path_state import (
    EndlessMysteryPathLayout,
    EndlessMysteryPathParams,
    EndlessMysteryPathState,
)
from trxl_jax.envs.tasks.memory_gym.environment import OVERFLOW, MemoryGymEnvironment
from trxl_jax.envs.tasks.memory_gym.mystery_path_drawing import TILE
from trxl_jax.envs.tasks.memory_gym.mystery_path_environment import RADIUS
from trxl_jax.envs.tasks.memory_gym.path_search import GRID_SIZE, NUM_WORDS, find_path, path_draws
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN
from trxl_jax.envs.tasks.options import Options

FACING_RIGHT = 6
MAX_STAMINA = 1 << 16


class EndlessMysteryPath(MemoryGymEnvironment):
    """Endless-MysteryPath-v0.

    Args:
        segments: capacity for segments of the path, of 8 columns each. An episode that reaches the last column is
            truncated; a segment takes at least 32 steps.
        camera_offset_scale: tiles between the left edge of the screen and the agent.
        show_past_path: draw the tiles of the path behind the agent.
        show_background: draw a floor of tiles.
        show_stamina: draw a bar of the remaining stamina.
        visual_feedback: draw a cross where the agent leaves the path.
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
        self._drawing = EndlessDrawing(
            agent_x=RADIUS + int(TILE * camera_offset_scale),
            past_columns=int(camera_offset_scale) if show_past_path else None,
            show_background=show_background,
            show_stamina=show_stamina,
            visual_feedback=visual_feedback,
        )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "tuple[EndlessMysteryPath, EndlessMysteryPathParams]":
        """Creates the task and its parameters from the options of Memory Gym's `reset`.

        Raises:
            ConfigError: an option is unknown, not supported, or has an invalid value.
        """
        read = Options(options, cls.defaults)
        read.require_default("agent_scale")
        # Memory Gym accepts this option but never shows the origin, because its condition can't be true.
        read.boolean("show_origin")
        every_step = read.number("reward_step")
        max_steps = read.step_limit("max_steps")
        stamina = read.integer("stamina_level", 1, MAX_STAMINA)
        camera_offset_scale = read.number("camera_offset_scale", 0.0, 5.5)
        if not (TILE * camera_offset_scale).is_integer():
            raise read.invalid("camera_offset_scale", f"a multiple of 1/{TILE}, which is a whole number of pixels")
        params = EndlessMysteryPathParams(
            max_steps_in_episode=max(max_steps, 0),
            max_steps=max_steps,
            stamina=stamina,
            bar_heights=np.array([int(SCREEN * (1 - left / stamina)) for left in range(stamina + 1)], np.int32),
            # Added in float64, as in the original.
            progress_reward=np.float32(read.number("reward_path_progress") + every_step),
            fall_reward=np.float32(read.number("reward_fall_off") + every_step),
            step_reward=np.float32(every_step),
            speed=int(read.number("agent_speed", 1, TILE)),
        )
        flags = ("show_past_path", "show_background", "show_stamina", "visual_feedback")
        return cls(camera_offset_scale=camera_offset_scale, **{name: read.boolean(name) for name in flags}), params

    def init_layout(
        self, key: jax.Array, params: EndlessMysteryPathParams, needed: ArrayLike = True
    ) -> EndlessMysteryPathLayout:
        """Samples the row i32[] in which the path starts. Segments are generated when the agent enters them."""
        # `_sample_segment` uses the numbers below `_segments`.
        word = jax.random.bits(jax.random.fold_in(key, self._segments))
        return EndlessMysteryPathLayout(key=key, start_row=(word % GRID_SIZE).astype(jnp.int32))

    def reset_from_layout(
        self, layout: EndlessMysteryPathLayout, params: EndlessMysteryPathParams
    ) -> EndlessMysteryPathState:
        """The initial state: the agent is on the path's first tile and faces right."""
        zero = jnp.int32(0)
        columns = COLUMNS * self._segments
        return EndlessMysteryPathState(
            time=zero,
            key=layout.key,
            start_row=layout.start_row,
            places=jnp.zeros((self._segments, COLUMNS, GRID_SIZE), jnp.uint8),
            num_known=zero,
            next_row=layout.start_row,
            centre=_start_centre(layout.start_row),
            direction=jnp.int32(FACING_RIGHT),
            scroll=zero,
            tile=jnp.stack([zero, layout.start_row]),
            # The first tile gives no reward.
            rewarded=jnp.where(jnp.arange(columns) == 0, 1 << layout.start_row, 0).astype(jnp.uint8),
            # But it restores stamina, at the start and after each fall: the original's test for the first tile is never
            # true.
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
        """One step. Actions i32[]: 0 none, 1 right, 2 up, 3 down; after a fall, the agent returns to the start."""
        state = self._generate_segment(self._move_agent(state, action, params))
        tile = state.centre // TILE
        column, row = tile
        # The path has no tiles outside the screen, which the agent can leave by at most one tile.
        on_screen = (row >= 0) & (row < GRID_SIZE)
        of_column = state.places.reshape(-1, GRID_SIZE)[column]
        on_path = on_screen & (jnp.where(jnp.arange(GRID_SIZE) == row, of_column, 0) != 0).any()
        fallen = ~on_path
        here = jnp.where(on_path, 1 << jnp.clip(row, 0, GRID_SIZE - 1), 0).astype(jnp.uint8)
        new = on_path & ((state.rewarded[column] & here) == 0)
        refreshing = on_path & ((state.refreshed[column] & here) == 0)

        fall_bit = jnp.where(fallen, 1 << (row + 1), 0)
        column_offset = column - state.max_x
        fell_here = jnp.arange(2) == column_offset
        fatal = fallen & ((column_offset < 0) | (fell_here & ((state.falls & fall_bit) != 0)).any())
        falls = jnp.where(fell_here, state.falls | fall_bit, state.falls)
        further = on_path & (column_offset > 0)
        # Falls are remembered for the whole episode: the condition on which the original clears its list is never true.
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
        info = {name: getattr(state, name).astype(jnp.float32) for name in self.result_names if name != OVERFLOW}
        return state, reward.astype(jnp.float32), terminated, info

    def is_truncated(self, state: EndlessMysteryPathState, params: EndlessMysteryPathParams) -> jax.Array:
        """Whether the agent has reached the last column there is capacity for, bool[]."""
        return ~state.fallen & (state.tile[0] == state.rewarded.size - 1)

    def picture(self, state: EndlessMysteryPathState, params: EndlessMysteryPathParams) -> jax.Array:
        """The observation u8[84, 84, 3]: the path behind the agent, and the agent in a fixed column."""
        return self._drawing.observation(_scene(state, params))

    def render_debug(self, state: EndlessMysteryPathState, params: EndlessMysteryPathParams) -> jax.Array:
        """A picture u8[height, width, 3] that also shows the path ahead and the stamina bar."""
        # The screen may show one segment that has not been generated yet.
        ahead = self._generate_segment(state, True)
        return self._drawing.debug(_scene(ahead, params))

    def _move_agent(
        self, state: EndlessMysteryPathState, action: jax.Array, params: EndlessMysteryPathParams
    ) -> EndlessMysteryPathState:
        action = jnp.where(state.fallen, 0, action)
        right = jnp.where(action == 1, params.speed, 0)
        down = jnp.where(action == 3, params.speed, jnp.where(action == 2, -params.speed, 0))
        centre = jnp.where(state.fallen, _start_centre(state.start_row), state.centre + jnp.stack([right, down]))
        turned = jnp.select([action == 1, action == 2, action == 3], [FACING_RIGHT, 0, 4], state.direction)
        scroll = jnp.where(state.fallen, 0, state.scroll - right)
        # The floor repeats after a tile's width. As in the original, scrolling restarts at 0 there, so that the floor
        # jumps at speeds that don't divide the width.
        return state.replace(centre=centre, direction=turned, scroll=jnp.where(scroll <= -TILE, 0, scroll))

    def _generate_segment(
        self, state: EndlessMysteryPathState, needed: ArrayLike | None = None
    ) -> EndlessMysteryPathState:
        """Generates the next segment if the agent has entered it or, if `needed` is given, if that is true."""
        index = state.num_known
        if needed is None:
            needed = state.centre[0] // (TILE * COLUMNS) >= index
        needed = jnp.asarray(needed) & (index < self._segments)
        if state.recorded is None:
            places, end_row = _sample_segment(needed, state.key, index, state.next_row)
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
        places=state.places.reshape(-1, GRID_SIZE),
        tile=state.tile,
        centre=state.centre,
        direction=state.direction,
        fallen=state.fallen,
        scroll=state.scroll,
        bar_height=jnp.asarray(params.bar_heights)[state.stamina],
    )


def _start_centre(row: jax.Array) -> jax.Array:
    return jnp.stack([jnp.int32(RADIUS), row * TILE + RADIUS])


@only_where_needed
def _sample_segment(key: jax.Array, index: jax.Array, start_row: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Samples a segment that starts in a row; returns its `places` u8[8, 7] and the row i32[] in which it ends."""
    words = jax.random.bits(jax.random.fold_in(key, index), (NUM_WORDS + 1,))
    end_row = (words[0] % GRID_SIZE).astype(jnp.int32)
    start = jnp.stack([jnp.int32(0), start_row])
    places = find_path(path_draws(words[1:]), start, jnp.stack([jnp.int32(GRID_SIZE - 1), end_row])).places
    last_column = jnp.where(jnp.arange(GRID_SIZE) == end_row, places[-1] + 1, 0).astype(jnp.uint8)
    return jnp.concatenate([places, last_column[None]]), end_row
