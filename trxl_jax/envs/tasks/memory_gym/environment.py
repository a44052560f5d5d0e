"""Base class of Memory Gym's tasks in JAX.

It implements gymnax's interface so that a step renders one observation and searches a new layout only where an episode
has ended.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces as gymnax_spaces
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN

OVERFLOW = "overflow"
"""Entry of infos: whether the episode was truncated because a fixed-size table was full."""

GRID_NVEC, FREE_NVEC = (4,), (3, 3)
"""Numbers of choices per action branch.

Grid tasks: one branch (none, turn left, turn right, forward). Free movement: two branches (none, left, right; none, up,
down).
"""

_ROTATIONS = np.array([(-1, 0, 4), (2, 1, 3), (6, 7, 5)], np.int32)
"""Rotation after an action of `FREE_NVEC`, indexed by both choices; -1 keeps the rotation.

Rotations are multiples of 45 degrees counter-clockwise; 0 is up.
"""


def direction(action: jax.Array) -> jax.Array:
    """Direction of movement i32[2] in -1..1, (right, down), of an action i32[2] of `FREE_NVEC`."""
    return (action == 2).astype(jnp.int32) - (action == 1).astype(jnp.int32)


def next_rotation(rotation: jax.Array, action: jax.Array) -> jax.Array:
    """Rotation i32[] of the agent after an action i32[2] of `FREE_NVEC`."""
    turned = jnp.asarray(_ROTATIONS)[action[0], action[1]]
    return jnp.where(turned < 0, rotation, turned)


class MultiDiscrete(gymnax_spaces.Space):
    """Space of several discrete choices, which gymnax lacks.

    Args:
        nvec: number of choices of each branch. Samples are i32[branches] with `0 <= sample < nvec`.
    """

    def __init__(self, *nvec: int) -> None:
        self.nvec = np.asarray(nvec)
        self.shape = self.nvec.shape
        self.dtype = jnp.int32

    def sample(self, key: jax.Array) -> jax.Array:
        """Samples uniformly, i32[branches]."""
        return jax.random.randint(key, self.shape, 0, self.nvec, self.dtype)

    def contains(self, x: jax.Array) -> jax.Array:
        """Whether every choice is valid, bool[]."""
        return jnp.all((x >= 0) & (x < self.nvec))


class MemoryGymEnvironment(gymnax_environment.Environment[Any, Any]):
    """Base class of a task.

    A task implements `init_layout`, `reset_from_layout`, `transition` and `render`; gymnax's `reset` and `step` are
    built from them. `init_layout` contains all randomness of a reset, so that a layout read from the released package's
    objects starts the same episode.

    Fields:
        task: Memory Gym's id.
        nvec: number of choices of each action branch; with one branch, actions are scalars.
        fps: steps per second for videos, as in Memory Gym.
        result_names: entries of `info` that are statistics of an episode, valid in its last step.
        x_first: image observations are indexed [x, y, channel], as in Memory Gym.
    """

    task: ClassVar[str]
    nvec: ClassVar[tuple[int, ...]]
    fps: ClassVar[int]
    result_names: ClassVar[tuple[str, ...]]
    x_first: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def from_options(cls, options: Mapping[str, Any]) -> tuple[Any, Any]:
        """Creates the task and its parameters from the options of Memory Gym's `reset`.

        Raises:
            ConfigError: an option is unknown, not supported, or has an invalid value.
        """

    @property
    def default_params(self) -> Any:
        """Memory Gym's default options."""
        return self.from_options({})[1]

    @abstractmethod
    def init_layout(self, key: jax.Array, params: Any, needed: ArrayLike = True) -> Any:
        """Samples everything that is random in a reset.

        Args:
            key: random key; tasks that sample in steps also store it in the layout.
            params: the task's parameters.
            needed: bool[], whether the layout will be used. If not, searches are skipped.
        """

    @abstractmethod
    def reset_from_layout(self, layout: Any, params: Any) -> Any:
        """The state at the start of an episode.

        A recorded layout may also contain what would be sampled in steps. The pytree structure of its state then
        differs from that of `reset`: use it with `transition`, not with `step`, which resets.
        """

    @abstractmethod
    def transition(
        self, state: Any, action: jax.Array, params: Any
    ) -> tuple[Any, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step without a reset.

        Args:
            state: the state.
            action: i32[] with one branch, i32[branches] with several.
            params: the task's parameters.

        Returns:
            Next state, reward f32[], terminated bool[], and a dict of f32[] with `result_names` except overflow.
        """

    @abstractmethod
    def render(self, state: Any, params: Any) -> jax.Array:
        """The observation u8[84, 84, 3], indexed [x, y, channel]."""

    @abstractmethod
    def render_debug(self, state: Any, params: Any) -> jax.Array:
        """A picture with the ground truth for people, u8[height, width, 3], rows first."""

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        """Starts an episode; returns the observation u8[84, 84, 3] and the state."""
        state = self.reset_from_layout(self.init_layout(key, params), params)
        return self.render(state, params), state

    def step_env(
        self, key: jax.Array, state: Any, action: ArrayLike, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step without a reset, obs u8[84, 84, 3], for gymnax. `key` is unused: the state holds the random key."""
        state, reward, terminated, info = self.transition(state, jnp.asarray(action), params)
        return self.render(state, params), state, reward, terminated, info

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: jax.Array, state: Any, action: ArrayLike, params: Any = None
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, jax.Array, dict[Any, Any]]:
        """One step with automatic reset: if the episode ends, the observation is the next episode's first.

        gymnax's implementation renders both observations and searches a layout in every step. This one searches a
        layout only if the episode has ended, and renders one observation; under `jit`, an unused `final_observation` is
        optimised away.

        Args:
            key: random key of the next episode, if this one ends.
            state: the state.
            action: i32[] with one branch, i32[branches] with several.
            params: the task's parameters; None for the defaults.

        Returns:
            observation u8[84, 84, 3], state, reward f32[], terminated bool[], truncated bool[], info.
        """
        params = self.default_params if params is None else params
        ended, reward, terminated, info = self.transition(state, jnp.asarray(action), params)
        truncated = self.is_truncated(ended, params) & ~terminated
        done = terminated | truncated
        started = self.reset_from_layout(self.init_layout(key, params, done), params)
        state = jax.tree.map(partial(jnp.where, done), started, ended)
        info = {
            **info,
            OVERFLOW: truncated.astype(jnp.float32),
            "terminated": terminated,
            "truncated": truncated,
            "final_observation": self.render(ended, params),
        }
        return self.render(state, params), state, reward, terminated, truncated, info

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        """Whether a fixed-size table is full, bool[]; only endless tasks. Memory Gym's time limits are terminations."""
        return jnp.bool_(False)

    def action_space(self, params: Any = None) -> gymnax_spaces.Space:
        """Discrete with one action branch, else `MultiDiscrete`."""
        return gymnax_spaces.Discrete(*self.nvec) if len(self.nvec) == 1 else MultiDiscrete(*self.nvec)

    @property
    def num_actions(self) -> int:
        """Number of combinations of all branches."""
        return math.prod(self.nvec)

    @property
    def name(self) -> str:
        """Memory Gym's id."""
        return self.task

    def observation_space(self, params: Any) -> gymnax_spaces.Box:
        """Images u8[84, 84, 3], indexed [x, y, channel]."""
        return gymnax_spaces.Box(0, 255, (SCREEN, SCREEN, 3), np.uint8)
