"""MiniGrid's Memory tasks in JAX, equal to the package step by step and pixel by pixel.

An object is shown in the room at the start; at the junction at the hallway's end the agent must turn to the same one.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces as gymnax_spaces
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.layouts import LayoutEnvironment
from trxl_jax.envs.tasks.minigrid import tiles
from trxl_jax.envs.tasks.minigrid.host import MAX_STEPS, SYMBOLS, VIEW, view_size
from trxl_jax.envs.tasks.minigrid.rooms import (
    COLOURS,
    FORWARD,
    NUM_ROWS,
    UNSEEN,
    all_views,
    draw_room,
    reachable,
)
from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.spaces import MultiDiscrete
from trxl_jax.errors import ConfigError

NUM_ACTIONS = 7
TURN_LEFT, TURN_RIGHT, GO = 0, 1, 2
"""Actions that do something; the four others have no effect in these tasks."""

_DEFAULTS = {"num_actions": NUM_ACTIONS, "symbolic": False, "agent_view_size": VIEW, "in_sight": False}

_UP = 3


@struct.dataclass
class MiniGridMemoryParams(gymnax_environment.EnvParams):
    """Parameters of a task.

    Fields:
        max_steps_in_episode: i32[], steps after which an episode is truncated.
        in_sight: bool[], whether the agent always starts where it sees the object, in the first column.
    """

    max_steps_in_episode: Any = MAX_STEPS
    in_sight: Any = False


@struct.dataclass
class MiniGridMemoryLayout:
    """What a reset samples.

    Fields:
        hallway_end: i32[], column of the hallway's last cell.
        x: i32[], column in which the agent starts, in the middle row and facing right.
        start: i32[], the object in the room: 0 key, 1 ball.
        upper: i32[], the object above the junction; the other one is below.
    """

    hallway_end: jax.Array
    x: jax.Array
    start: jax.Array
    upper: jax.Array


@struct.dataclass
class MiniGridMemoryState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        hallway_end, start, upper: as in the layout.
        x: i32[], column of the agent.
        row: i32[], row of the agent, counted from the one above the middle: 0, 1 or 2.
        direction: i32[], 0..3: right, down, left, up.
    """

    time: Any  # gymnax annotates int but uses arrays
    hallway_end: jax.Array
    start: jax.Array
    upper: jax.Array
    x: jax.Array
    row: jax.Array
    direction: jax.Array


class MiniGridMemory(LayoutEnvironment):
    """One of the tasks.

    Args:
        task: MiniGrid's id.
        size: of the grid.
        random_length: whether the hallway's length is random.
        num_actions: how many of the 7 actions are offered.
        symbolic_view: observations are MiniGrid's numbers of object, colour and state of each cell, in a view of that
            many cells along a side; None: pictures of 3x3 cells.
    """

    result_names: ClassVar[tuple[str, ...]] = ()
    fps: ClassVar[int] = 10

    def __init__(
        self,
        task: str,
        size: int,
        *,
        random_length: bool = False,
        num_actions: int = NUM_ACTIONS,
        symbolic_view: int | None = None,
    ) -> None:
        self._task, self._size, self._random_length = task, size, random_length
        self._num_actions, self._symbolic = num_actions, symbolic_view is not None
        self._ends = range(4, size - 2) if random_length else range(size - 3, size - 2)
        self._views = all_views(size, self._ends, symbolic_view or VIEW)
        self._frames = _symbols(self._views.cells) if self._symbolic else _pictures(self._views.cells)
        rooms = [[[draw_room(size, end, *both) for both in ((s, 0), (s, 1))] for s in (0, 1)] for end in self._ends]
        self._rooms = np.array(rooms)
        free = [reachable(room[0, 0], end) for room, end in zip(self._rooms, self._ends, strict=True)]
        self._free = np.pad(np.array(free), ((0, 0), (0, 0), (1, 1)))
        # In float64, rounded once, as the package's rewards are when they reach an agent.
        self._most_steps = 5 * size**2
        self._rewards = (1 - 0.9 * (np.arange(self._most_steps + 1) / self._most_steps)).astype(np.float32)

    def from_options(self, options: Mapping[str, Any]) -> "tuple[MiniGridMemory, MiniGridMemoryParams]":
        """Creates the task with other options, and its parameters.

        Args:
            options: `num_actions`, 1 to 7; `symbolic`, and with it `agent_view_size`, 3, 5, 7, 9 or 11 cells along a
                side of the view; and `in_sight`: the agent always starts where it sees the object, in the first column,
                which MiniGrid doesn't offer.

        Raises:
            ConfigError: an option is unknown or has an invalid value.
        """
        read = Options(options, _DEFAULTS)
        symbolic = read.boolean("symbolic")
        try:
            view = view_size(options.get("agent_view_size"), symbolic)
        except ValueError as error:
            raise ConfigError(f"--env_options: {error}") from None
        task = MiniGridMemory(
            self._task,
            self._size,
            random_length=self._random_length,
            num_actions=read.integer("num_actions", 1, NUM_ACTIONS),
            symbolic_view=view if symbolic else None,
        )
        return task, task.default_params.replace(in_sight=read.boolean("in_sight"))

    @property
    def default_params(self) -> MiniGridMemoryParams:
        """At most 96 steps per episode, as in the original."""
        return MiniGridMemoryParams()

    def init_layout(
        self, key: jax.Array, params: MiniGridMemoryParams, needed: ArrayLike = True
    ) -> MiniGridMemoryLayout:
        """Samples from a key[] the hallway's length, the agent's column and the objects."""
        end_key, x_key, start_key, upper_key = jax.random.split(key, 4)
        end = jax.random.randint(end_key, (), self._ends.start, self._ends.stop, jnp.int32)
        return MiniGridMemoryLayout(
            hallway_end=end,
            x=jnp.where(params.in_sight, 1, jax.random.randint(x_key, (), 1, end + 1, jnp.int32)),
            start=jax.random.bernoulli(start_key).astype(jnp.int32),
            upper=jax.random.bernoulli(upper_key).astype(jnp.int32),
        )

    def reset_from_layout(self, layout: MiniGridMemoryLayout, params: MiniGridMemoryParams) -> MiniGridMemoryState:
        """The state at the start of an episode."""
        return MiniGridMemoryState(
            time=jnp.int32(0),
            hallway_end=layout.hallway_end,
            start=layout.start,
            upper=layout.upper,
            x=layout.x,
            row=jnp.int32(NUM_ROWS // 2),
            direction=jnp.int32(0),
        )

    def transition(
        self, state: MiniGridMemoryState, action: jax.Array, params: MiniGridMemoryParams
    ) -> tuple[MiniGridMemoryState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step without a reset.

        Args:
            state: the state.
            action: i32[], 0 turn left, 1 turn right, 2 forward; others have no effect.
            params: the task's parameters.

        Returns:
            Next state, reward f32[] (1 at the start falling to 0.1 after 5 size^2 steps, at the right object),
            terminated bool[], and no results.
        """
        turn = (action == TURN_RIGHT).astype(jnp.int32) - (action == TURN_LEFT).astype(jnp.int32)
        dx, dy = jnp.asarray(FORWARD)[state.direction]
        free = jnp.asarray(self._free)[state.hallway_end - self._ends.start, state.x + dx, state.row + dy + 1]
        moves = (action == GO) & free
        state = state.replace(
            time=state.time + 1,
            x=jnp.where(moves, state.x + dx, state.x),
            row=jnp.where(moves, state.row + dy, state.row),
            direction=(state.direction + turn) % 4,
        )
        terminated = (state.x == state.hallway_end + 1) & (state.row != NUM_ROWS // 2)
        success = terminated & ((state.row == 0) == (state.start == state.upper))
        reward = jnp.where(success, jnp.asarray(self._rewards)[state.time], jnp.float32(0))
        return state, reward, terminated, {}

    def is_truncated(self, state: MiniGridMemoryState, params: MiniGridMemoryParams) -> jax.Array:
        """Whether the time is up, bool[]."""
        return jnp.asarray(state.time >= jnp.minimum(params.max_steps_in_episode, self._most_steps))

    def render(self, state: MiniGridMemoryState, params: MiniGridMemoryParams) -> jax.Array:
        """The observation: u8[84, 84, 3], rows first, or i32[view, view, 3], columns first."""
        return jnp.asarray(self._frames)[self._view(state)]

    def render_debug(self, state: MiniGridMemoryState, params: MiniGridMemoryParams) -> jax.Array:
        """The whole grid u8[28 size, 28 size, 3], rows first, with light on what the agent sees."""
        view = self._views.cells.shape[-1]
        ahead, aside = (view - 1 - jnp.arange(view))[None, :], (jnp.arange(view) - view // 2)[:, None]
        dx, dy = jnp.asarray(FORWARD)[state.direction]
        y = state.row + self._size // 2 - 1
        column, row = state.x + dx * ahead - dy * aside, y + dy * ahead + dx * aside
        # With a margin, because the view may reach beyond the grid.
        lit = jnp.zeros((self._size + 2 * view,) * 2, bool)
        lit = lit.at[column + view, row + view].max(jnp.asarray(self._views.cells)[self._view(state)] != UNSEEN)
        lit = lit[view:-view, view:-view]
        room = jnp.asarray(self._rooms)[state.hallway_end - self._ends.start, state.start, state.upper]
        which = (room + tiles.LIT * lit).astype(jnp.int32).at[state.x, y].set(tiles.AGENT + state.direction)
        return tiles.assemble(jnp.asarray(tiles.tiles()), which)

    def action_space(self, params: MiniGridMemoryParams | None = None) -> gymnax_spaces.Discrete:
        """Actions: 0 turn left, 1 turn right, 2 forward, 3 pick up, 4 drop, 5 toggle, 6 done."""
        return gymnax_spaces.Discrete(self._num_actions)

    def observation_space(self, params: MiniGridMemoryParams) -> gymnax_spaces.Space:
        """Observations: see `render`; numbers that name things are choices, which agents see as one-hot vectors."""
        if self._symbolic:
            return MultiDiscrete(*np.broadcast_to(SYMBOLS, self._frames.shape[1:]))
        return gymnax_spaces.Box(0, 255, self._frames.shape[1:], np.uint8)

    @property
    def name(self) -> str:
        """MiniGrid's id."""
        return self._task

    @property
    def num_actions(self) -> int:
        """Number of actions."""
        return self._num_actions

    def _view(self, state: MiniGridMemoryState) -> jax.Array:
        """Number of the view, i32[]."""
        end = state.hallway_end - self._ends.start
        place = end, state.x, state.row, state.direction, state.start, state.upper
        return jnp.asarray(self._views.numbers)[place]


def _symbols(cells: np.ndarray) -> np.ndarray:
    """MiniGrid's encoding i32[views, view, view, 3] of views u8[views, view, view]."""
    return np.stack([cells, COLOURS[cells], np.zeros_like(cells)], axis=-1).astype(np.int32)


def _pictures(cells: np.ndarray) -> np.ndarray:
    """Pictures u8[views, 28 view, 28 view, 3] of views u8[views, view, view]."""
    which = cells.astype(np.int32) + tiles.LIT * (cells != UNSEEN)
    view = cells.shape[-1]
    which[:, view // 2, view - 1] = tiles.AGENT + _UP
    return tiles.assemble(tiles.tiles(), which)
