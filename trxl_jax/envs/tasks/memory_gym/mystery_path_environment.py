"""What MysteryPath and MysteryPath-Grid share: an invisible path leads from one edge of the screen to the opposite one.

When the agent leaves the path, a cross is shown and the agent is moved back to the start in the next step.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.batching import only_where_needed
from trxl_jax.envs.tasks.memory_gym import drawing, sprites
from trxl_jax.envs.tasks.memory_gym.environment import MemoryGymEnvironment
from trxl_jax.envs.tasks.memory_gym.mystery_path_drawing import TILE, TILE_OF_PIXEL, draw_agent, to_rgb
from trxl_jax.envs.tasks.memory_gym.path_search import GRID_SIZE, NUM_WORDS, find_path, path_draws
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN
from trxl_jax.envs.tasks.options import Options

RADIUS = 6
"""Radius of the agent in pixels: half a tile."""

ORIGINS = (0, 1, 2, 3)
"""Edges at which a path may start: left, right, top, bottom."""


@struct.dataclass(kw_only=True)
class MysteryPathParams(gymnax_environment.EnvParams):
    """Parameters of both tasks. All rewards include the option `reward_step`.

    Fields:
        max_steps_in_episode: i32[], steps after which an episode terminates.
        origins: i32[choices], edges at which a path may start, sampled uniformly.
        goal_reward: f32[], reward for reaching the goal.
        progress_reward: f32[], reward for reaching a new tile of the path.
        fall_reward: f32[], reward for leaving the path.
        step_reward: f32[], reward of all other steps.
        straight: i32[], speed of straight steps in pixels; not used in the grid task.
        diagonal: i32[], speed of diagonal steps along each axis in pixels; not used in the grid task.
    """

    max_steps_in_episode: Any
    origins: Any
    goal_reward: Any
    progress_reward: Any
    fall_reward: Any
    step_reward: Any
    straight: Any
    diagonal: Any


@struct.dataclass
class MysteryPathLayout:
    """What a reset samples.

    Fields:
        start: i32[2], column and row of the path's first tile.
        end: i32[2], column and row of the path's last tile.
        path: i32[7], bit y of entry x is set if tile (x, y) is on the path.
        walls: i32[7], bit mask of the walls around which the path was searched.
    """

    start: jax.Array
    end: jax.Array
    path: jax.Array
    walls: jax.Array


@struct.dataclass
class MysteryPathState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        start, end, path, walls: as in the layout.
        centre: i32[2], centre of the agent in pixels, x and y.
        direction: i32[], direction of the agent in multiples of 45 degrees counter-clockwise; 0 is up.
        visited: i32[7], bit mask, like `path`, of tiles visited.
        fallen: bool[], whether the agent is off the path.
        num_fails: i32[], how often the agent has left the path.
    """

    time: Any  # gymnax annotates int but uses arrays
    start: jax.Array
    end: jax.Array
    path: jax.Array
    walls: jax.Array
    centre: jax.Array
    direction: jax.Array
    visited: jax.Array
    fallen: jax.Array
    num_fails: jax.Array


class MysteryPathEnvironment(MemoryGymEnvironment):
    """Base class of both tasks.

    Args:
        show_origin: draw the first tile of the path.
        show_goal: draw the last tile of the path.
        visual_feedback: draw a cross where the agent leaves the path.
    """

    result_names = ("success", "num_fails")
    defaults: ClassVar[Mapping[str, Any]]

    def __init__(self, *, show_origin: bool = False, show_goal: bool = False, visual_feedback: bool = True) -> None:
        self._show_origin = show_origin
        self._show_goal = show_goal
        self._visual_feedback = visual_feedback

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> tuple[Self, MysteryPathParams]:
        """Creates the task and its parameters from the options of Memory Gym's `reset`.

        Raises:
            ConfigError: an option is unknown, not supported, or has an invalid value.
        """
        read = Options(options, {**cls.defaults, **cls.own_options})
        read.require_default("agent_scale")
        every_step = read.number("reward_step")

        def reward(name: str) -> np.float32:
            # Added in float64, as in the original.
            return np.float32(read.number(name) + every_step)

        speed = read.number("agent_speed", 1, TILE) if read.has("agent_speed") else 0.0
        params = MysteryPathParams(
            max_steps_in_episode=read.integer("max_steps", 1),
            origins=np.array(read.integer_list_among("cardinal_origin_choice", ORIGINS), np.int32),
            goal_reward=reward("reward_goal"),
            progress_reward=reward("reward_path_progress"),
            fall_reward=reward("reward_fall_off"),
            step_reward=np.float32(every_step),
            straight=int(speed),
            diagonal=int(1.0 / math.sqrt(2.0) * speed),
        )
        flags = {name: read.boolean(name) for name in ("show_origin", "show_goal", "visual_feedback", *cls.own_options)}
        return cls(**flags), params

    def init_layout(self, key: jax.Array, params: MysteryPathParams, needed: ArrayLike = True) -> MysteryPathLayout:
        """Samples from a key[] both ends on opposite edges, walls, and a path between the ends."""
        return _sample_layout(needed, key, jnp.asarray(params.origins))

    def reset_from_layout(self, layout: MysteryPathLayout, params: MysteryPathParams) -> MysteryPathState:
        """The initial state: the agent is on the path's first tile and faces up."""
        return MysteryPathState(
            time=jnp.int32(0),
            start=layout.start,
            end=layout.end,
            path=layout.path,
            walls=layout.walls,
            centre=layout.start * TILE + RADIUS,
            direction=jnp.int32(0),
            visited=jnp.zeros(GRID_SIZE, jnp.int32),
            fallen=jnp.bool_(False),
            num_fails=jnp.int32(0),
        )

    @abstractmethod
    def move(
        self, centre: jax.Array, direction: jax.Array, action: jax.Array, params: MysteryPathParams
    ) -> tuple[jax.Array, jax.Array]:
        """Moves the agent.

        Args:
            centre: i32[2], centre of the agent in pixels.
            direction: i32[], its direction, 0..7.
            action: i32[] or i32[2].
            params: the parameters.

        Returns:
            Centre i32[2] and direction i32[] after the action.
        """

    def transition(
        self, state: MysteryPathState, action: jax.Array, params: MysteryPathParams
    ) -> tuple[MysteryPathState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step with actions i32[...]; after a fall, the action is ignored and the agent returns to the start."""
        centre, direction = self.move(state.centre, state.direction, action, params)
        centre = jnp.where(state.fallen, state.start * TILE + RADIUS, centre)
        direction = jnp.where(state.fallen, state.direction, direction)
        tile = centre // TILE
        here = _bit_of(tile)
        at_goal = (tile == state.end).all()
        at_start = (tile == state.start).all()
        on_path = ((here & state.path) != 0).any()
        new = on_path & ~at_start & ~at_goal & ((here & state.visited) == 0).all()
        fallen = ~on_path
        reward = jnp.where(
            at_goal,
            params.goal_reward,
            jnp.where(fallen, params.fall_reward, jnp.where(new, params.progress_reward, params.step_reward)),
        )
        time = state.time + 1
        state = state.replace(
            time=time,
            centre=centre,
            direction=direction,
            visited=state.visited | here,
            fallen=fallen,
            num_fails=state.num_fails + fallen,
        )
        info = {"success": at_goal.astype(jnp.float32), "num_fails": state.num_fails.astype(jnp.float32)}
        return state, reward.astype(jnp.float32), at_goal | (time == params.max_steps_in_episode), info

    def picture(self, state: MysteryPathState, params: MysteryPathParams) -> jax.Array:
        """A picture u8[84, 84, 3]: a black screen with the agent and, if options say so, the ends of the path."""
        canvas = jnp.full((SCREEN, SCREEN), sprites.colour(0, 0, 0), jnp.uint8)
        shown = self.shown_ends(state)
        for colour, tile in shown:
            canvas = drawing.rectangle(canvas, colour, tile[0] * TILE, tile[1] * TILE, TILE, TILE)
        return to_rgb(self._with_agent(canvas, state), *(colour for colour, _ in shown))

    def render_debug(self, state: MysteryPathState, params: MysteryPathParams) -> jax.Array:
        """A picture u8[height, width, 3] that also shows the path, its ends and the walls."""
        tiles = jnp.full((GRID_SIZE, GRID_SIZE), sprites.colour(0, 0, 0), jnp.uint8)
        for bits, colour in (
            (state.path, sprites.colour(255, 255, 255)),
            (_bit_of(state.end), sprites.colour(0, 255, 0)),
            (_bit_of(state.start), sprites.colour(0, 0, 255)),
            (state.walls, sprites.colour(255, 0, 0)),
        ):
            tiles = jnp.where((bits[:, None] >> jnp.arange(GRID_SIZE)) & 1, jnp.uint8(colour), tiles)
        return drawing.debug_frame(self._with_agent(tiles[TILE_OF_PIXEL][:, TILE_OF_PIXEL], state))

    def shown_ends(self, state: MysteryPathState) -> list[tuple[int, jax.Array]]:
        """The ends of the path that observations show: colour in the palette, and tile i32[2]."""
        goal = (sprites.colour(0, 255, 0), state.end) if self._show_goal else None
        origin = (sprites.colour(0, 0, 255), state.start) if self._show_origin else None
        return [end for end in (goal, origin) if end]

    def crossed(self, state: MysteryPathState) -> jax.Array:
        """Whether observations show the cross of a fall, bool[]."""
        return state.fallen & self._visual_feedback

    def _with_agent(self, canvas: jax.Array, state: MysteryPathState) -> jax.Array:
        x, y = state.centre
        return draw_agent(canvas, state.direction, self.crossed(state), x, y)


@only_where_needed
def _sample_layout(key: jax.Array, origins: jax.Array) -> MysteryPathLayout:
    words = jax.random.bits(key, (NUM_WORDS + 3,))
    origin = origins[words[0] % origins.size]
    from_row, to_row = (words[1:3] % GRID_SIZE).astype(jnp.int32)
    across = jnp.where(origin % 2 == 0, jnp.array([0, GRID_SIZE - 1]), jnp.array([GRID_SIZE - 1, 0]))
    sideways = origin < 2
    start = jnp.where(sideways, jnp.stack([across[0], from_row]), jnp.stack([from_row, across[0]]))
    end = jnp.where(sideways, jnp.stack([across[1], to_row]), jnp.stack([to_row, across[1]]))
    path = find_path(path_draws(words[3:]), start, end)
    return MysteryPathLayout(start=start, end=end, path=_column_bits(path.places > 0), walls=_column_bits(path.walls))


def _column_bits(tiles: jax.Array) -> jax.Array:
    """Packs tiles bool[7, 7], indexed [column, row], into bit masks i32[7], one per column."""
    return (tiles.astype(jnp.int32) << jnp.arange(GRID_SIZE)).sum(axis=1)


def _bit_of(tile: jax.Array) -> jax.Array:
    """Bit masks i32[7] of a single tile i32[2], column and row."""
    return ((jnp.arange(GRID_SIZE) == tile[0]).astype(jnp.int32) << tile[1]).astype(jnp.int32)
