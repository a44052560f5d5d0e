"""Base class of Memory Gym's tasks in JAX."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.layouts import LayoutEnvironment
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN
from trxl_jax.envs.tasks.spaces import MultiDiscrete

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


class MemoryGymEnvironment(LayoutEnvironment):
    """Base class of a task.

    Layouts can be read from the released package's objects. `transition` returns `result_names` except overflow.

    Fields:
        task: Memory Gym's id.
        nvec: number of choices of each action branch; with one branch, actions are scalars.
        fps: steps per second for videos, as in Memory Gym.
        result_names: entries of `info` that are statistics of an episode, valid in its last step.
        own_options: options that Memory Gym doesn't have, with their defaults.
        x_first: image observations are indexed [x, y, channel], as in Memory Gym.
    """

    task: ClassVar[str]
    nvec: ClassVar[tuple[int, ...]]
    fps: ClassVar[int]
    result_names: ClassVar[tuple[str, ...]]
    own_options: ClassVar[Mapping[str, Any]] = {}
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
    def picture(self, state: Any, params: Any) -> jax.Array:
        """What the package shows an agent, u8[84, 84, 3], indexed [x, y, channel]."""

    def render(self, state: Any, params: Any) -> jax.Array:
        """The observation; see `picture`."""
        return self.picture(state, params)

    @abstractmethod
    def render_debug(self, state: Any, params: Any) -> jax.Array:
        """A picture with the ground truth for people, u8[height, width, 3], rows first."""

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        """Whether a fixed-size table is full, bool[]; only endless tasks. Memory Gym's time limits are terminations."""
        return jnp.bool_(False)

    def truncation_info(self, truncated: jax.Array) -> dict[str, jax.Array]:
        """A result, f32[]: whether the episode is cut, bool[] `truncated`, because a table is full."""
        return {OVERFLOW: truncated.astype(jnp.float32)}

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

    def observation_space(self, params: Any) -> gymnax_spaces.Space:
        """Images u8[84, 84, 3], indexed [x, y, channel]."""
        return gymnax_spaces.Box(0, 255, (SCREEN, SCREEN, 3), np.uint8)
