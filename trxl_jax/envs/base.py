"""The contract that every batch of environments fulfils, on the host or on the device.

N environments are two pure functions, `reset` and `step`. Randomness is their own: a device state carries its keys, a
host environment derives its seeds from the run's seed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from trxl_jax.envs.actions import ActionSpace, actions_from_json
from trxl_jax.envs.observations import ObservationSpace, numbers, observations_from_json, picture
from trxl_jax.envs.results import EpisodeResult
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.errors import ConfigError, brief

ENDLESS_MAX_EPISODE_STEPS = 1024
"""E of tasks without a limit, as in the original: the phase of the positional encoding, and the longest window."""


class EnvSpec(NamedTuple):
    """What an agent must know of a task.

    Fields:
        obs: the observation space. "[N, *obs_shape]" stands for N observations: an array, or a dict of arrays by name,
            whose shapes it gives.
        action: the action space.
        max_episode_steps: E, at least 1.
    """

    obs: ObservationSpace
    action: ActionSpace
    max_episode_steps: int

    @property
    def has_pictures(self) -> bool:
        """Whether there are pictures among the observations."""
        return any(array.kind == "picture" for array in self.obs.arrays.values())

    def zero_obs(self, *shape: int) -> Any:
        """NumPy arrays of zeros [*shape, *obs_shape]."""
        return self.obs.build(lambda array: np.zeros((*shape, *array.shape), array.dtype))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "obs": self.obs.to_json(),
            "action": self.action.to_json(),
            "max_episode_steps": self.max_episode_steps,
        }

    @classmethod
    def from_json(cls, value: Any) -> "EnvSpec":
        """Inverse of `to_json`.

        Raises:
            ConfigError: it is something else.
        """
        match value:
            case {"obs": obs, "action": action, "max_episode_steps": int(limit)} if 0 < limit < 2**31:
                return cls(observations_from_json(obs), actions_from_json(action), limit)
            # As written before there were other observations than vectors and pictures.
            case {"obs_shape": [*shape], "obs_dtype": "float32" | "uint8" as dtype} if all(
                type(n) is int and 0 < n < 2**31 for n in shape
            ):
                old = numbers(*shape) if dtype == "float32" else picture(*shape)
                return cls.from_json({**value, "obs": old.to_json()} if "obs" not in value else None)
        raise ConfigError(f"not the observations and actions of a task: {brief(value)}")


class TimeStep(NamedTuple):
    """The result of one step of N environments.

    Fields:
        obs: [N, *obs_shape]; after an end the next episode's first observation.
        reward: f32[N].
        terminated: bool[N].
        truncated: bool[N].
        final_obs: [N, *obs_shape], the last observation of the episodes that ended, valid where they
            did; None unless the environment was built with `send_final_obs`.
        episode: statistics of the episodes that ended.
    """

    obs: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_obs: Any
    episode: EpisodeStats


@runtime_checkable
class Environment(Protocol):
    """A batch of environments that reset themselves when an episode ends.

    Fields:
        spec: observations, actions and episode limit.
        num_envs: N.
        on_host: whether `reset` and `step` call Python code; programs with such callbacks can't be vmapped.
        failure: the exception that a host environment raised, which JAX turns into one of its own; None so far.
    """

    spec: EnvSpec
    num_envs: int
    on_host: bool
    failure: BaseException | None

    def reset(self, key: jax.Array) -> tuple[Any, Any]:
        """Starts a first episode in each environment.

        Args:
            key: source of randomness of a device environment; a host one doesn't need it.

        Returns:
            The environments' state (a pytree of arrays) and obs [N, *obs_shape].
        """
        ...

    def step(self, env_state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        """Steps every environment once.

        Args:
            env_state: as returned by the last call.
            action: [N, C] of `spec.action`.
        """
        ...

    def pop_episode_results(self, episode: EpisodeStats) -> list[EpisodeResult]:
        """Results of the episodes that ended since the last call, in order of time.

        Args:
            episode: the statistics [T, N] that the steps since then returned.
        """
        ...

    def snapshot(self) -> dict[str, Any]:
        """What a checkpoint must keep in addition to the state's arrays: JSON, with NumPy arrays as lists."""
        ...

    def restore(self, snapshot: dict[str, Any]) -> Any:
        """Restores what `snapshot` returned.

        Returns:
            Host environments that could be put back into the middle of their episodes return the observations
            [N, *obs_shape] that they show now. Otherwise None: `reset` must come next, unless the state's arrays are
            the environments' whole state.
        """
        ...

    def close(self) -> None:
        """Frees processes and windows."""
        ...


@runtime_checkable
class DoubleBuffered(Protocol):
    """An optional part of `Environment`: one group of environments is stepped while the agent acts in another.

    Fields:
        num_buffers: groups of N / num_buffers neighbouring environments; 1 means that `step` is to be called.
    """

    num_buffers: int

    def send_and_receive(self, env_state: Any, buffer: int, action: jax.Array) -> tuple[Any, TimeStep]:
        """Starts a step of one group and waits for the step of the next group (cyclically), started earlier.

        Args:
            env_state: as returned by the last call.
            buffer: the group whose step starts.
            action: [N / num_buffers, C].

        Returns:
            The state, and what `receive` would return for the next group.
        """
        ...

    def receive(self, env_state: Any, buffer: int) -> tuple[Any, TimeStep]:
        """The result of a group's newest step; called again, or after a reset, its observations are still valid."""
        ...


def require_settings() -> None:
    """Checks JAX's settings, which environment variables and environments may change.

    Raises:
        ConfigError: numbers would have 64 bits, or programs would not be compiled.
    """
    settings: Any = jax.config
    if settings.jax_enable_x64:
        raise ConfigError(
            "jax_enable_x64 is set, but the agent has 32 bits: unset JAX_ENABLE_X64, and let no environment set it"
        )
    if settings.jax_disable_jit:
        raise ConfigError("jax_disable_jit is set, but updates must be compiled: unset JAX_DISABLE_JIT")


class _MayFail(Protocol):
    @property
    def failure(self) -> BaseException | None: ...


@contextmanager
def original_errors(env: _MayFail) -> Iterator[None]:
    """Raises the environment's own exception instead of the one that JAX makes of it in a callback."""
    try:
        yield
    except Exception:
        if env.failure is None:
            raise
        raise env.failure from None
