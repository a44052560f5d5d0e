"""What Memory Gym's tasks on the device have in common: gymnax's interface, one picture a step, resets where needed."""

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
"""Entry of infos: whether the episode was cut because a table was full."""

TURN, WALK = (4,), (3, 3)
"""`nvec` of the grids (nothing, left, right, forward) and of free ways (nothing, left, right; nothing, up, down)."""

_ROTATIONS = np.array([(-1, 0, 4), (2, 1, 3), (6, 7, 5)], np.int32)
"""By the two choices of `WALK`, in turns of 45 degrees to the left from upwards; -1 for no turn."""


def direction(action: jax.Array) -> jax.Array:
    """Where an action of `WALK` leads, i32[2] in -1..1, to the right and down."""
    return (action == 2).astype(jnp.int32) - (action == 1).astype(jnp.int32)


def rotation_after(rotation: jax.Array, action: jax.Array) -> jax.Array:
    """Where the agent looks, i32[], after an action of `WALK`."""
    turned = jnp.asarray(_ROTATIONS)[action[0], action[1]]
    return jnp.where(turned < 0, rotation, turned)


class MultiDiscrete(gymnax_spaces.Space):
    """Several choices at once, which gymnax has no space for: i32[branches], each below its entry of `nvec`."""

    def __init__(self, *nvec: int) -> None:
        self.nvec = np.asarray(nvec)
        self.shape = self.nvec.shape
        self.dtype = jnp.int32

    def sample(self, key: jax.Array) -> jax.Array:
        """Uniform choices."""
        return jax.random.randint(key, self.shape, 0, self.nvec, self.dtype)

    def contains(self, x: jax.Array) -> jax.Array:
        """Whether every choice is one of its branch's."""
        return jnp.all((x >= 0) & (x < self.nvec))


class MemoryGymEnvironment(gymnax_environment.Environment[Any, Any]):
    """A task in four pure functions, from which gymnax's `reset` and `step` are made.

    `init_layout` holds all randomness of a reset; a layout that was read off Memory Gym's own objects starts the same
    episode.

    Fields:
        task: Memory Gym's id.
        nvec: number of choices of each action branch; with one branch actions are scalars.
        fps: steps a second at which a person can follow, Memory Gym's own.
        result_names: what `info` holds of an episode beside gymnax's own entries; valid in its last step.
        x_first: observations have their columns first, as Memory Gym's.
    """

    task: ClassVar[str]
    nvec: ClassVar[tuple[int, ...]]
    fps: ClassVar[int]
    result_names: ClassVar[tuple[str, ...]]
    x_first: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def from_options(cls, options: Mapping[str, Any]) -> tuple[Any, Any]:
        """The task and its parameters that Memory Gym's options of a reset ask for.

        Raises:
            ConfigError: an option that is unknown, not to be changed here, or has a value that can't be.
        """

    @property
    def default_params(self) -> Any:
        """Memory Gym's."""
        return self.from_options({})[1]

    @abstractmethod
    def init_layout(self, key: jax.Array, params: Any, needed: ArrayLike = True) -> Any:
        """Draws what is random in a reset.

        Args:
            key: used here and kept for what is drawn in steps.
            params: the task's parameters.
            needed: bool[]; where false the layout will not be used, and searches may end at once.
        """

    @abstractmethod
    def reset_from_layout(self, layout: Any, params: Any) -> Any:
        """The state at the start of an episode.

        A layout that carries what steps draw, as one that was recorded, makes a state of another structure than `reset`
        does: only `transition` goes on from it, since `step` would have to choose between the two.
        """

    @abstractmethod
    def transition(
        self, state: Any, action: jax.Array, params: Any
    ) -> tuple[Any, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step: the next state, reward f32[], terminated bool[], and f32[] for `result_names` but overflow."""

    @abstractmethod
    def render(self, state: Any, params: Any) -> jax.Array:
        """What the agent sees, u8[84, 84, 3], x first."""

    @abstractmethod
    def render_debug(self, state: Any, params: Any) -> jax.Array:
        """What a person sees, the ground truth with it, u8[height, width, 3] with rows first."""

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        """Starts an episode."""
        state = self.reset_from_layout(self.init_layout(key, params), params)
        return self.render(state, params), state

    def step_env(
        self, key: jax.Array, state: Any, action: ArrayLike, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step without a reset; all randomness comes from the state's own key."""
        state, reward, terminated, info = self.transition(state, jnp.asarray(action), params)
        return self.render(state, params), state, reward, terminated, info

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: jax.Array, state: Any, action: ArrayLike, params: Any = None
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, jax.Array, dict[Any, Any]]:
        """One step; an episode that ends is followed by the next one's first observation.

        gymnax's own draws both pictures and searches a layout in every step. Here the layout is searched where it is
        needed, and one picture is drawn; `final_observation` costs nothing to who does not read it under `jit`.
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
        """False: Memory Gym tells its time limits as terminations. Endless tasks end here where a table is full."""
        return jnp.bool_(False)

    def action_space(self, params: Any = None) -> gymnax_spaces.Space:
        """By `nvec`."""
        return gymnax_spaces.Discrete(*self.nvec) if len(self.nvec) == 1 else MultiDiscrete(*self.nvec)

    @property
    def num_actions(self) -> int:
        """Of all branches together."""
        return math.prod(self.nvec)

    @property
    def name(self) -> str:
        """Memory Gym's id."""
        return self.task

    def observation_space(self, params: Any) -> gymnax_spaces.Box:
        """Pictures u8[84, 84, 3], x first."""
        return gymnax_spaces.Box(0, 255, (SCREEN, SCREEN, 3), np.uint8)
