"""T-Maze for gymnax; `host.py` describes the task."""

from collections.abc import Mapping
from typing import Any

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces as gymnax_spaces
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.layouts import LayoutEnvironment
from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.t_maze import rules


@struct.dataclass(kw_only=True)
class TMazeParams(gymnax_environment.EnvParams):
    """Parameters of the task.

    Fields:
        max_steps_in_episode: i32[], steps of every episode.
        corridor_length: i32[], steps from the passive variant's start to the junction.
        start: i32[], x of the agent's start: 0, or 1 in the active variant.
        penalty: f32[], reward of a step that ends behind the straight way.
    """

    max_steps_in_episode: Any
    corridor_length: Any
    start: Any
    penalty: Any


@struct.dataclass
class TMazeState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        x, y: i32[], the agent's cell.
        goal: i32[], y of the goal, -1 or 1.
        shown: bool[], whether the agent is at the oracle for the first time.
        visited: bool[], whether it has been there, now included.
    """

    time: Any  # gymnax annotates int but uses arrays
    x: jax.Array
    y: jax.Array
    goal: jax.Array
    shown: jax.Array
    visited: jax.Array


class TMaze(LayoutEnvironment):
    """The gymnax environment; see `TMazeEnv`. Its layout is y of the goal, i32[]."""

    result_names = ("success",)
    fps = 4

    def from_options(self, options: Mapping[str, Any]) -> "tuple[TMaze, TMazeParams]":
        """The task, and its parameters from options.

        Args:
            options: arguments of `TMazeEnv`: `corridor_length`, `active`, `penalty`.

        Raises:
            ConfigError: an option is unknown or has an invalid value.
        """
        read = Options(options, {"corridor_length": rules.CORRIDOR_LENGTH, "active": False, "penalty": None})
        length = read.integer("corridor_length", 1, rules.MAX_CORRIDOR_LENGTH)
        active = read.boolean("active")
        penalty = -1 / length if options.get("penalty") is None else read.number("penalty", -1e6, 0)
        return self, TMazeParams(
            max_steps_in_episode=rules.episode_length(length, active=active),
            corridor_length=length,
            start=rules.ORACLE_LENGTH if active else 0,
            penalty=np.float32(penalty),
        )

    @property
    def default_params(self) -> TMazeParams:
        """Passive, with a corridor of 10 steps."""
        return self.from_options({})[1]

    def init_layout(self, key: jax.Array, params: TMazeParams, needed: ArrayLike = True) -> jax.Array:
        """Samples from a key[] y of the goal, i32[]."""
        return jnp.where(jax.random.bernoulli(key), 1, -1).astype(jnp.int32)

    def reset_from_layout(self, layout: jax.Array, params: TMazeParams) -> TMazeState:
        """The state at the start of an episode whose goal is at y = i32[] `layout`."""
        x = jnp.asarray(params.start, jnp.int32)
        return TMazeState(
            time=jnp.int32(0), x=x, y=jnp.int32(0), goal=jnp.asarray(layout), shown=x == 0, visited=x == 0
        )

    def transition(
        self, state: TMazeState, action: jax.Array, params: TMazeParams
    ) -> tuple[TMazeState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step without a reset.

        Args:
            state: the state.
            action: i32[], 0 right, 1 up, 2 left, 3 down.
            params: the task's parameters.

        Returns:
            Next state, reward f32[], terminated bool[], and success f32[].
        """
        junction = params.start + params.corridor_length
        dx, dy = jnp.asarray(rules.MOVES)[action]
        x, y = state.x + dx, state.y + dy
        free = ((y == 0) & (x >= 0) & (x <= junction)) | ((jnp.abs(y) == 1) & (x == junction))
        x, y = jnp.where(free, x, state.x), jnp.where(free, y, state.y)
        time = state.time + 1
        at_oracle = x == 0
        state = state.replace(time=time, x=x, y=y, shown=at_oracle & ~state.visited, visited=at_oracle | state.visited)
        terminated = jnp.asarray(time == params.max_steps_in_episode)
        success = (terminated & (y == state.goal)).astype(jnp.float32)
        behind = ~terminated & (x < time - params.start)
        return state, jnp.where(behind, jnp.float32(params.penalty), success), terminated, {"success": success}

    def render(self, state: TMazeState, params: TMazeParams) -> jax.Array:
        """The observation f32[2]."""
        ahead = state.x == params.start + params.corridor_length
        second = jnp.where(ahead, state.y, jnp.where(state.shown, state.goal, 0))
        return jnp.stack([ahead, second]).astype(jnp.float32)

    def render_debug(self, state: TMazeState, params: TMazeParams) -> jax.Array:
        """Picture u8[90, 450, 3] of the maze around the agent; see `rules.picture`."""
        junction = params.start + params.corridor_length
        return jnp.asarray(rules.picture(jnp, state.x, state.y, state.goal, junction))

    def action_space(self, params: TMazeParams | None = None) -> gymnax_spaces.Discrete:
        """Actions: 0 right, 1 up, 2 left, 3 down."""
        return gymnax_spaces.Discrete(len(rules.MOVES))

    def observation_space(self, params: TMazeParams) -> gymnax_spaces.Box:
        """Observations f32[2]: at the junction or a candidate; then y there, else the goal where it is shown."""
        return gymnax_spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    @property
    def name(self) -> str:
        """Id of the task on the device."""
        return "TMaze-v0"

    @property
    def num_actions(self) -> int:
        """Number of actions: 4."""
        return len(rules.MOVES)
