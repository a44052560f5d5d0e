"""The contract that every batch of environments fulfils, on the host or on the device.

N environments are two pure functions. Randomness is their own: a device state carries its keys, a host
environment draws its seeds from the run's seed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

ENDLESS_MAX_EPISODE_STEPS = 1024
"""E of tasks without a limit, as in the original; it only sets the phase of the positional encoding."""

IMAGE_SHAPE = (84, 84, 3)


class EnvSpec(NamedTuple):
    """What an agent must know of a task.

    Fields:
        obs_shape: shape of one observation, (features,) or (84, 84, 3).
        obs_dtype: float32 for vectors, uint8 for images.
        action_nvec: number of choices of each action branch.
        max_episode_steps: E, at least 1.
    """

    obs_shape: tuple[int, ...]
    obs_dtype: np.dtype
    action_nvec: tuple[int, ...]
    max_episode_steps: int


class EpisodeStats(NamedTuple):
    """What the episodes that ended in this step came to; the numbers are valid where `done`.

    Fields:
        done: bool[N].
        episode_return: f32[N], undiscounted sum of rewards.
        episode_length: i32[N], steps.
        others: f32[N] by name, the task's own numbers; None where it has none, or tells them by `drain_results`.
    """

    done: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array
    others: dict[str, jax.Array] | None = None


class TimeStep(NamedTuple):
    """The outcome of one step of N environments.

    Fields:
        obs: [N, *obs_shape]; after an end the next episode's first observation.
        reward: f32[N].
        terminated: bool[N].
        truncated: bool[N].
        final_obs: [N, *obs_shape], the last observation of the episodes that ended, valid where they
            did; None unless the environment was built with `send_final_obs`.
        episode: statistics of the episodes that ended.
    """

    obs: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_obs: jax.Array | None
    episode: EpisodeStats


class Environment(Protocol):
    """A batch of `num_envs` environments that reset themselves."""

    spec: EnvSpec
    num_envs: int
    on_host: bool

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Starts a first episode everywhere.

        Args:
            key: source of randomness of a device environment; a host one doesn't need it.

        Returns:
            The environments' state (a pytree of arrays) and obs [N, *obs_shape].
        """
        ...

    def step(self, env_state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        """Steps every environment once.

        Args:
            env_state: as the last call returned it.
            action: i32[N, A], one column per action branch.
        """
        ...

    def drain_results(self) -> list[dict[str, float]] | None:
        """Results of the episodes that ended since the last call, in order; None if `episode` holds all there is."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """What a checkpoint must keep beside the state's arrays: JSON, with NumPy arrays in place of lists."""
        ...

    def restore(self, snapshot: dict[str, Any]) -> np.ndarray | None:
        """Takes back what `snapshot` gave.

        Returns:
            Of environments on the host that could be put back where they were, as far as they can tell: the
            observations [N, *obs_shape] that they show now. Else None: `reset` must come next, unless the environments'
            state is all there is to them.
        """
        ...

    def close(self) -> None:
        """Frees processes and windows."""
        ...


@runtime_checkable
class InParts(Protocol):
    """What an `Environment` may offer beside: to be stepped part after part, each while something else is computed.

    Fields:
        num_parts: parts of N / num_parts neighbours each; with 1, `step` is what is called.
    """

    num_parts: int

    def exchange(self, env_state: Any, part: int, action: jax.Array) -> tuple[Any, TimeStep]:
        """Begins a step of one part and waits for the next one's, cyclically, which was begun before.

        Args:
            env_state: as the last call returned it.
            part: whose step begins.
            action: i32[N / num_parts, A].

        Returns:
            The state, and what `receive` would return of the next part.
        """
        ...

    def receive(self, env_state: Any, part: int) -> tuple[Any, TimeStep]:
        """What came of a part's newest step; when asked again, or after a reset, its observations still hold."""
        ...


@contextmanager
def original_errors(env: Environment) -> Iterator[None]:
    """In place of what JAX makes of an exception in a callback, the exception itself."""
    try:
        yield
    except Exception:
        failure = getattr(env, "failure", None)
        if failure is None:
            raise
        raise failure from None
