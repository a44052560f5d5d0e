"""The wrapper around each single Gymnasium environment: seeds, options, statistics, checks. Doesn't use JAX."""

import math
from typing import Any

import gymnasium
import numpy as np

from trxl_jax.errors import EnvironmentFailure, is_text

RESULT = "episode_result"
"""Key of a finished episode's results in the info of its last step."""


class EpisodeWrapper(gymnasium.Wrapper[np.ndarray, Any, np.ndarray, Any]):
    """Makes an episode a function of its recorded seed and the actions, and keeps its statistics.

    Autoreset calls `reset()` without arguments, so that options given once would be lost after the first episode; this
    wrapper passes options and a seed to every reset. Infos are dropped, except the last step's.

    Args:
        env: the environment.
        seed: the run's seed.
        index: of this environment in the batch.
        options: reset options of every episode.
        episode: number of the first episode; a resumed run continues the count.
        replay: [steps, ...], actions as the environment takes them, which the first `reset` repeats.

    Fields:
        episode: number of the next episode.
        episode_seed: of the current episode.
        length: steps in it so far.
        busy: whether it is being stepped or reset; it then may hang.

    Raises:
        EnvironmentFailure: from `reset` and `step`, if the environment raised, or returned numbers that are
            not finite or an observation outside its space.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int,
        index: int,
        options: dict[str, Any] | None = None,
        episode: int = 0,
        replay: np.ndarray | None = None,
    ) -> None:
        super().__init__(env)
        self.index = index
        self.options = options or None
        self.episode = episode
        self.episode_seed: int | None = None
        self.busy = False
        self._run_seed = seed
        self._replay = replay
        self.length = 0
        self._return = 0.0
        self._action_start = np.asarray(getattr(env.action_space, "start", 0))
        self._bounds = _bounds(env.observation_space)
        if len(env.observation_space.shape or ()) == 1:  # the vector layer allocates by the space's dtype
            self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts the next episode with the run's own seed and options, not the caller's; returns obs [*obs_shape]."""
        self.busy = True
        self.episode_seed = episode_seed(self._run_seed, self.index, self.episode)
        self.episode += 1
        self.length, self._return = 0, 0.0
        _forget_previous_episode(self.env.unwrapped)
        try:
            obs, _ = self.env.reset(seed=self.episode_seed, options=self.options)
            obs = self._cast(obs)
        except Exception as error:
            raise self._failure(error) from error
        replay, self._replay = self._replay, None
        for action in () if replay is None else replay:
            obs, _, terminated, truncated, _ = self.step(action)
            if terminated or truncated:
                raise self._failure(ValueError("the episode ended earlier when it was played again"))
        self.busy = False
        return obs, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Steps to obs [*obs_shape]; the last step's info holds the episode's results under `RESULT`, all floats."""
        self.busy = True
        try:
            obs, reward, terminated, truncated, info = self.env.step(action + self._action_start)
            obs, reward = self._cast(obs), _finite("reward", float(reward))
        except Exception as error:
            raise self._failure(error) from error
        self.busy = False
        self.length += 1
        self._return += reward
        result = {}
        if terminated or truncated:
            # Ours last: an environment's own "l" must not replace the length.
            result[RESULT] = _numbers(info) | {"r": self._return, "l": float(self.length)}
        return obs, reward, bool(terminated), bool(truncated), result

    def close(self) -> None:
        """Closes the environment, except Memory Gym's, which would quit pygame for all tasks of the process."""
        if not is_memory_gym(self.env):
            super().close()

    def _cast(self, obs: Any) -> np.ndarray:
        obs = np.asarray(obs)
        if obs.shape != self.observation_space.shape:
            raise ValueError(f"observation of shape {obs.shape} in a space of shape {self.observation_space.shape}")
        if self.observation_space.dtype == np.uint8 and obs.ndim == 3:
            if obs.dtype != np.uint8:
                raise ValueError(f"observation of {obs.dtype} in a space of uint8")
            return obs
        obs = obs.astype(np.float32)
        low, high = self._bounds
        inside = (low <= obs) & (obs <= high)
        if not inside.all():
            i = int(np.argmin(inside))
            limits = f" and not between {low[i]:g} and {high[i]:g}, as its space says" if np.isfinite(obs[i]) else ""
            raise ValueError(f"element {i} of the observation is {obs[i]:g}{limits}")
        return obs

    def _failure(self, error: Exception) -> EnvironmentFailure:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return failure(env_name(self.env), "failed", self.index, self.episode_seed, self.length, reason)


def episode_seed(run_seed: int, index: int, episode: int) -> int:
    """Seed of the episode of that number in the environment of that index."""
    return int(np.random.SeedSequence((run_seed, index, episode)).generate_state(1)[0])


def env_name(env: gymnasium.Env[Any, Any]) -> str:
    """The name of an environment in error messages."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def failure(name: str, what: str, index: int, seed: int | None, step: int, reason: str) -> EnvironmentFailure:
    """An error that names the environment, its index, the episode's seed and the step, counted from 0."""
    return EnvironmentFailure(f"environment {name} {what} (index {index}, seed {seed}, step {step}): {reason}")


def is_memory_gym(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether it is one of Memory Gym's tasks, which share one screen and have observations with x first."""
    return type(env.unwrapped).__module__.startswith("memory_gym.")


def _bounds(space: gymnasium.Space[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of float32 observations; numbers that aren't finite are always outside."""
    most = np.finfo(np.float32).max
    low, high = getattr(space, "low", -most), getattr(space, "high", most)
    return np.maximum(low, -most).astype(np.float32), np.minimum(high, most).astype(np.float32)


def _finite(what: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{what} {value} is not finite")
    return value


def _numbers(info: dict[str, Any]) -> dict[str, float]:
    """The numeric entries of an info whose names are text; a short vector becomes one entry an element."""
    numbers: dict[str, float] = {}
    for name, value in info.items():
        if not isinstance(name, str) or not is_text(name):
            continue
        if not isinstance(value, bool | int | float | np.bool_ | np.number | np.ndarray):
            continue
        array = np.asarray(value)
        if array.dtype.kind in "biuf" and array.ndim == 0:
            numbers[name] = float(array)
        elif array.dtype.kind in "biuf" and array.ndim == 1 and array.size <= 8:
            numbers |= {f"{name}_{i}": float(element) for i, element in enumerate(array)}
    return numbers


def _forget_previous_episode(env: Any) -> None:
    # Memory Gym keeps its agent's sprite across resets: Endless-MortarMayhem shows the old one for three frames, and
    # most tasks draw it into the first picture for people.
    if is_memory_gym(env):
        env.rotated_agent_surface = None
        env.rotated_agent_rect = None
