"""Base class of tasks on the device whose resets draw a layout.

It implements gymnax's interface so that a step renders one observation, and so that a layout that was read from another
implementation starts the same episode.
"""

from abc import abstractmethod
from functools import partial
from typing import Any

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class LayoutEnvironment(gymnax_environment.Environment[Any, Any]):
    """Base class of a task.

    A task implements `init_layout`, `reset_from_layout`, `transition` and `render`; gymnax's `reset` and `step` are
    built from them. `init_layout` contains all randomness of a reset.
    """

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
            Next state, reward f32[], terminated bool[], and the task's results by name, f32[].
        """

    @abstractmethod
    def render(self, state: Any, params: Any) -> jax.Array:
        """The observation [*obs_shape]."""

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        """Whether the episode is cut after this state, bool[]."""
        return jnp.bool_(False)

    def truncation_info(self, truncated: jax.Array) -> dict[str, jax.Array]:
        """Further entries of infos, f32[] by name, for episodes that are cut where bool[] `truncated`."""
        return {}

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        """Starts an episode; returns the observation [*obs_shape] and the state."""
        state = self.reset_from_layout(self.init_layout(key, params), params)
        return self.render(state, params), state

    def step_env(
        self, key: jax.Array, state: Any, action: ArrayLike, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step without a reset, obs [*obs_shape], for gymnax. `key` is unused: the state holds the random key."""
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
            observation [*obs_shape], state, reward f32[], terminated bool[], truncated bool[], info.
        """
        params = self.default_params if params is None else params
        ended, reward, terminated, info = self.transition(state, jnp.asarray(action), params)
        truncated = self.is_truncated(ended, params) & ~terminated
        done = terminated | truncated
        started = self.reset_from_layout(self.init_layout(key, params, done), params)
        state = jax.tree.map(partial(jnp.where, done), started, ended)
        info = {
            **info,
            **self.truncation_info(truncated),
            "terminated": terminated,
            "truncated": truncated,
            "final_observation": self.render(ended, params),
        }
        return self.render(state, params), state, reward, terminated, truncated, info
