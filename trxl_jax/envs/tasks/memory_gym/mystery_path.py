"""MysteryPath and MysteryPath-Grid: find an invisible path across the screen, from one edge to the opposite one.

Who leaves the path sees a cross and is put back to its start a step later.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym import drawing, sprites
from trxl_jax.envs.tasks.memory_gym.environment import TURN, WALK, MemoryGymEnvironment, rotation_after
from trxl_jax.envs.tasks.memory_gym.environment import direction as direction_of
from trxl_jax.envs.tasks.memory_gym.mystery_path_drawing import TILE, TILE_OF_PIXEL, draw_agent, in_colours
from trxl_jax.envs.tasks.memory_gym.options import Options
from trxl_jax.envs.tasks.memory_gym.path_batch import only_where_needed
from trxl_jax.envs.tasks.memory_gym.path_search import SIDE, WORDS, draw, find_path
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN

RADIUS = 6
"""Of the agent in pixels; half a tile, so that at a tile's centre it touches the tile's edges."""

ORIGINS = (0, 1, 2, 3)
"""Edges that a path may start from: left, right, upper, lower."""


@struct.dataclass(kw_only=True)
class MysteryPathParams(gymnax_environment.EnvParams):
    """Parameters of both tasks.

    Fields:
        max_steps_in_episode: i32[], steps after which an episode ends.
        origins: i32[choices], edges that a path may start from, drawn from uniformly.
        goal_reward: f32[], reward of a step to the goal; this one and the next two include the one of every step.
        progress_reward: f32[], of a step to a tile of the path that is new.
        fall_reward: f32[], of a step off the path.
        step_reward: f32[], of any other step.
        straight: i32[], pixels of a step along an axis; not in the grid.
        diagonal: i32[], pixels along each axis of a diagonal step.
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
    """What a reset draws.

    Fields:
        start: i32[2], column and row of the path's first tile.
        end: i32[2], of its last.
        path: i32[7] by columns, with bit y set where the tile in row y is on the path.
        walls: i32[7], likewise, the walls that the path was led around.
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
        centre: i32[2], of the agent in pixels, x and y.
        direction: i32[], turns of 45 degrees to the left, from upwards.
        visited: i32[7], bits as in the path, tiles that were rewarded.
        fallen: bool[], the agent is off the path.
        num_fails: i32[], falls so far.
    """

    time: Any  # gymnax says int and means an array
    start: jax.Array
    end: jax.Array
    path: jax.Array
    walls: jax.Array
    centre: jax.Array
    direction: jax.Array
    visited: jax.Array
    fallen: jax.Array
    num_fails: jax.Array


class _MysteryPathEnvironment(MemoryGymEnvironment):
    """What both tasks share.

    Args:
        show_origin: draw the tile where the path starts.
        show_goal: draw the one where it ends.
        visual_feedback: draw a cross where the agent falls.
    """

    result_names = ("success", "num_fails")
    defaults: ClassVar[Mapping[str, Any]]

    def __init__(self, *, show_origin: bool = False, show_goal: bool = False, visual_feedback: bool = True) -> None:
        self._show_origin = show_origin
        self._show_goal = show_goal
        self._visual_feedback = visual_feedback

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "tuple[_MysteryPathEnvironment, MysteryPathParams]":
        """The task with Memory Gym's options for its `reset`.

        Raises:
            ConfigError: an option that is unknown, not to be changed here, or has a value that can't be.
        """
        read = Options(options, cls.defaults)
        read.fixed("agent_scale")
        every_step = read.number("reward_step")

        def reward(name: str) -> np.float32:
            # The original adds in double precision.
            return np.float32(read.number(name) + every_step)

        speed = read.number("agent_speed", 1, TILE) if read.has("agent_speed") else 0.0
        params = MysteryPathParams(
            max_steps_in_episode=read.whole("max_steps", 1),
            origins=np.array(read.some_of("cardinal_origin_choice", ORIGINS), np.int32),
            goal_reward=reward("reward_goal"),
            progress_reward=reward("reward_path_progress"),
            fall_reward=reward("reward_fall_off"),
            step_reward=np.float32(every_step),
            straight=int(speed),
            diagonal=int(1.0 / math.sqrt(2.0) * speed),
        )
        flags = {name: read.flag(name) for name in ("show_origin", "show_goal", "visual_feedback")}
        return cls(**flags), params

    def init_layout(self, key: jax.Array, params: MysteryPathParams, needed: ArrayLike = True) -> MysteryPathLayout:
        """Draws both ends on opposite edges and a path between them."""
        return _draw_layout(needed, key, jnp.asarray(params.origins))

    def reset_from_layout(self, layout: MysteryPathLayout, params: MysteryPathParams) -> MysteryPathState:
        """The agent stands on the path's first tile and looks up."""
        return MysteryPathState(
            time=jnp.int32(0),
            start=layout.start,
            end=layout.end,
            path=layout.path,
            walls=layout.walls,
            centre=layout.start * TILE + RADIUS,
            direction=jnp.int32(0),
            visited=jnp.zeros(SIDE, jnp.int32),
            fallen=jnp.bool_(False),
            num_fails=jnp.int32(0),
        )

    @abstractmethod
    def move(
        self, centre: jax.Array, direction: jax.Array, action: jax.Array, params: MysteryPathParams
    ) -> tuple[jax.Array, jax.Array]:
        """The agent's centre and direction after an action."""

    def transition(
        self, state: MysteryPathState, action: jax.Array, params: MysteryPathParams
    ) -> tuple[MysteryPathState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """Moves the agent; after a fall the action is ignored and the agent put back to the start."""
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

    def render(self, state: MysteryPathState, params: MysteryPathParams) -> jax.Array:
        """Black, the path's ends if they are shown, and the agent."""
        canvas = jnp.full((SCREEN, SCREEN), sprites.colour(0, 0, 0), jnp.uint8)
        shown = []
        if self._show_goal:
            shown.append((sprites.colour(0, 255, 0), state.end))
        if self._show_origin:
            shown.append((sprites.colour(0, 0, 255), state.start))
        for colour, tile in shown:
            canvas = drawing.rectangle(canvas, colour, tile[0] * TILE, tile[1] * TILE, TILE, TILE)
        return in_colours(self._with_agent(canvas, state), *(colour for colour, _ in shown))

    def render_debug(self, state: MysteryPathState, params: MysteryPathParams) -> jax.Array:
        """Walls, path and its ends too."""
        tiles = jnp.full((SIDE, SIDE), sprites.colour(0, 0, 0), jnp.uint8)
        for bits, colour in (
            (state.path, sprites.colour(255, 255, 255)),
            (_bit_of(state.end), sprites.colour(0, 255, 0)),
            (_bit_of(state.start), sprites.colour(0, 0, 255)),
            (state.walls, sprites.colour(255, 0, 0)),
        ):
            tiles = jnp.where((bits[:, None] >> jnp.arange(SIDE)) & 1, jnp.uint8(colour), tiles)
        return drawing.for_people(self._with_agent(tiles[TILE_OF_PIXEL][:, TILE_OF_PIXEL], state))

    def _with_agent(self, canvas: jax.Array, state: MysteryPathState) -> jax.Array:
        x, y = state.centre
        return draw_agent(canvas, state.direction, state.fallen & self._visual_feedback, x, y)


class MysteryPathGrid(_MysteryPathEnvironment):
    """MysteryPath-Grid-v0: the agent turns, and walks from tile to tile."""

    task = "MysteryPath-Grid-v0"
    nvec = TURN
    fps = 3
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_steps": 128,
        "agent_scale": 0.25,
        "cardinal_origin_choice": [0, 1, 2, 3],
        "show_origin": False,
        "show_goal": False,
        "visual_feedback": True,
        "reward_goal": 1.0,
        "reward_fall_off": 0.0,
        "reward_path_progress": 0.0,
        "reward_step": 0.0,
    }

    def move(
        self, centre: jax.Array, direction: jax.Array, action: jax.Array, params: MysteryPathParams
    ) -> tuple[jax.Array, jax.Array]:
        """Actions: 0 nothing, 1 a turn to the left, 2 to the right, 3 a tile forward, unless that leaves the screen."""
        direction = (direction + jnp.where(action == 1, 2, 0) - jnp.where(action == 2, 2, 0)) % 8
        forward = jnp.stack(
            [
                (direction == 6).astype(jnp.int32) - (direction == 2),
                (direction == 4).astype(jnp.int32) - (direction == 0),
            ]
        )
        moved = jnp.clip(centre + TILE * forward, RADIUS, SCREEN - RADIUS)
        return jnp.where(action == 3, moved, centre), direction


class MysteryPath(_MysteryPathEnvironment):
    """MysteryPath-v0: the agent moves by pixels."""

    task = "MysteryPath-v0"
    nvec = WALK
    fps = 25
    defaults: ClassVar[Mapping[str, Any]] = {
        **MysteryPathGrid.defaults,
        "max_steps": 512,
        "agent_speed": 3.0,
        "reward_path_progress": 0.1,
    }

    def move(
        self, centre: jax.Array, direction: jax.Array, action: jax.Array, params: MysteryPathParams
    ) -> tuple[jax.Array, jax.Array]:
        """Actions: [0 nothing, 1 left, 2 right; 0 nothing, 1 up, 2 down]; the agent stays on the screen."""
        towards = direction_of(action)
        pixels = jnp.where((towards != 0).all(), params.diagonal, params.straight)
        moved = jnp.clip(centre + pixels * towards, RADIUS, SCREEN - RADIUS)
        return moved, rotation_after(direction, action)


@only_where_needed
def _draw_layout(key: jax.Array, origins: jax.Array) -> MysteryPathLayout:
    words = jax.random.bits(key, (WORDS + 3,))
    origin = origins[words[0] % origins.size]
    from_row, to_row = (words[1:3] % SIDE).astype(jnp.int32)
    across = jnp.where(origin % 2 == 0, jnp.array([0, SIDE - 1]), jnp.array([SIDE - 1, 0]))
    sideways = origin < 2
    start = jnp.where(sideways, jnp.stack([across[0], from_row]), jnp.stack([from_row, across[0]]))
    end = jnp.where(sideways, jnp.stack([across[1], to_row]), jnp.stack([to_row, across[1]]))
    path = find_path(draw(words[3:]), start, end)
    return MysteryPathLayout(start=start, end=end, path=column_bits(path.places > 0), walls=column_bits(path.walls))


def column_bits(tiles: jax.Array) -> jax.Array:
    """Columns i32[7] with a bit for each row, of bool[7, 7]."""
    return (tiles.astype(jnp.int32) << jnp.arange(SIDE)).sum(axis=1)


def _bit_of(tile: jax.Array) -> jax.Array:
    """Columns i32[7] with one bit, of a tile i32[2]."""
    return ((jnp.arange(SIDE) == tile[0]).astype(jnp.int32) << tile[1]).astype(jnp.int32)
