"""Base class of POPGym's tasks in JAX.

It implements gymnax's interface, so that cards are shuffled and boards drawn only where an episode has ended.
"""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.batching import replaced_where_needed
from trxl_jax.envs.tasks.options import Options


@struct.dataclass
class RewardParams(gymnax_environment.EnvParams):
    """Parameters of a task that rewards every answer with the same amount.

    Fields:
        max_steps_in_episode: length of the longest episode.
        reward: of a right answer; a wrong one costs as much.
    """

    max_steps_in_episode: int = 1
    reward: float = 1.0


def share(numerator: float, denominator: float) -> Any:
    """A reward f32[]: divided in float64 and then rounded, as where the released package's rewards are stored."""
    return np.float32(numerator / denominator)


class POPGymEnvironment(gymnax_environment.Environment[Any, Any]):
    """Base class of a task.

    A task implements `init_layout`, `reset_from_layout`, `transition` and `observation`; gymnax's `reset` and `step`
    are built from them. `init_layout` has all randomness of a reset, so that a layout read from the released package's
    objects starts the same episode.

    Args:
        settings: arguments of the released package's constructor, which are the task's options.

    Fields:
        fps: steps per second for videos.
    """

    fps = 4

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def from_options(self, options: Mapping[str, Any]) -> tuple[Any, Any]:
        """The task with other settings, and its parameters.

        Args:
            options: arguments of the released package's constructor; what is missing stays as it is.

        Raises:
            ConfigError: an option is unknown or has an invalid value.
        """
        task = type(self)(**self.read_options(Options(options, self.settings)))
        return task, task.default_params

    @abstractmethod
    def read_options(self, read: Options) -> dict[str, Any]:
        """Arguments of the constructor.

        Raises:
            ConfigError: one has an invalid value.
        """

    @abstractmethod
    def init_layout(self, key: jax.Array, params: Any) -> Any:
        """Draws everything that is random in a reset; for shapes see `reset_from_layout`."""

    @abstractmethod
    def reset_from_layout(self, layout: Any, params: Any) -> Any:
        """The state at the start of an episode."""

    @abstractmethod
    def transition(
        self, key: jax.Array, state: Any, action: jax.Array, params: Any
    ) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        """One step without a reset.

        Args:
            key: random key, for tasks that draw in steps.
            state: the state.
            action: i32[], or i32[2] (row, column).
            params: the task's parameters.

        Returns:
            Next state, reward f32[], terminated bool[], truncated bool[]. As in the released package both may be true.
        """

    @abstractmethod
    def observation(self, state: Any) -> Any:
        """The observation: i32[] for a Discrete space, i32[n] for a MultiDiscrete one, a tuple of these for a Tuple."""

    @abstractmethod
    def render_debug(self, state: Any, params: Any) -> jax.Array:
        """A picture with the ground truth for people, u8[height, width, 3], rows first."""

    def reset_env(self, key: jax.Array, params: Any) -> tuple[Any, Any]:
        """Starts an episode; returns the observation, see `observation`, and the state."""
        state = self._start(key, params)
        return self.observation(state), state

    def step_env(
        self, key: jax.Array, state: Any, action: ArrayLike, params: Any
    ) -> tuple[Any, Any, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step without a reset, for gymnax; see `transition`. `info["truncated"]` is a bool[]."""
        state, reward, terminated, truncated = self.transition(key, state, jnp.asarray(action), params)
        return self.observation(state), state, reward, terminated, {"truncated": truncated}

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: jax.Array, state: Any, action: ArrayLike, params: Any = None
    ) -> tuple[Any, Any, jax.Array, jax.Array, jax.Array, dict[Any, Any]]:
        """One step with automatic reset: if the episode ends, the observation is the next episode's first.

        gymnax's implementation draws a new layout in every step; this one only if the episode has ended.

        Args:
            key: random key.
            state: the state.
            action: i32[], or i32[2] (row, column).
            params: the task's parameters; None for the defaults.

        Returns:
            observation, state, reward f32[], terminated bool[], truncated bool[], info; see `transition`.
        """
        params = self.default_params if params is None else params
        step_key, reset_key = jax.random.split(key)
        ended, reward, terminated, truncated = self.transition(step_key, state, jnp.asarray(action), params)
        state = replaced_where_needed(self._start)(terminated | truncated, ended, reset_key, params)
        info = {"terminated": terminated, "truncated": truncated, "final_observation": self.observation(ended)}
        return self.observation(state), state, reward, terminated, truncated, info

    @property
    def num_actions(self) -> int:
        """Number of combinations of all branches."""
        space = self.action_space(None)
        return int(np.prod(space.nvec)) if hasattr(space, "nvec") else int(space.n)

    def _start(self, key: jax.Array, params: Any) -> Any:
        return self.reset_from_layout(self.init_layout(key, params), params)
