"""The wrapper around each single Gymnasium environment: seeds, options, statistics, checks. Doesn't use JAX."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from trxl_jax.envs.action_masks import ALONE, add_mask, nvec_to_mask, read_mask, split_space, with_mask
from trxl_jax.envs.actions import ActionSpace, DiscreteActions
from trxl_jax.envs.host.digest import extend_digest, new_digest
from trxl_jax.envs.native_actions import NativeActions
from trxl_jax.envs.observations import DictSpace, ObservationSpace, map_arrays, read_observation_space
from trxl_jax.errors import EnvironmentFailure, UserError, brief, is_text, warn_once

RESULT = "episode_result"
"""Key of a finished episode's results in the info of its last step."""

DIGEST = "episode_digest"
"""Key of the digest of a replayed episode in the info of the reset that replayed it."""

_LARGEST = float(np.finfo(np.float32).max)


class EpisodeRules(NamedTuple):
    """What is the same in all episodes of a batch of environments.

    Fields:
        seed: the run's seed.
        options: reset options of every episode.
        max_steps: length at which an episode is truncated; None: the environment's own limit, if it has one.
        seed_bits: bits of the episodes' seeds. 31, because environments in C take no larger ones; the runs of
            version 0.1.0 have 32.
        mask_key: name of the mask of actions in the observations or else the infos; None: there is none.
    """

    seed: int = 1
    options: dict[str, Any] | None = None
    max_steps: int | None = None
    seed_bits: int = 31
    mask_key: str | None = None

    def episode_seed(self, index: int, episode: int) -> int:
        """Seed of the episode of that number in the environment of that index."""
        return int(np.random.SeedSequence((self.seed, index, episode)).generate_state(1)[0]) % 2**self.seed_bits


DEFAULT_RULES = EpisodeRules()


class EpisodeWrapper(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Makes an episode a function of its recorded seed and the actions, and keeps its statistics.

    Autoreset calls `reset()` without arguments, so that options given once would be lost after the first episode; this
    wrapper passes options and a seed to every reset. Infos are dropped, except the last step's. It
    takes the agent's actions and makes the environment's own of them.

    Args:
        env: the environment.
        rules: seed, options and limit of every episode.
        index: of this environment in the batch.
        episode: number of the first episode; a resumed run continues the count.
        replay: [steps, C], actions that the first `reset` repeats.

    Fields:
        space: of the observations that `reset` and `step` return.
        bounds: of its arrays of numbers, see `ObservationReader.bounds`.
        episode: number of the next episode.
        episode_seed: of the current episode.
        length: steps in it so far.
        busy: whether it is being stepped or reset; it then may hang.
        native_actions: the environment's own.

    Raises:
        ConfigError: observations or actions that the agent can't take.
        EnvironmentFailure: from `reset` and `step`, if the environment raised, or returned numbers that are
            not finite or an observation of another shape or type than its space.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        rules: EpisodeRules = DEFAULT_RULES,
        index: int = 0,
        episode: int = 0,
        replay: np.ndarray | None = None,
    ) -> None:
        super().__init__(env)
        self.index = index
        self.episode = episode
        self.episode_seed: int | None = None
        self.busy = False
        self.length = 0
        self._rules = rules
        self._replay = replay
        self._return = 0.0
        self._pid = os.getpid()
        self.native_actions = NativeActions.read(env.action_space, env_name(env))
        self.action_space = _rows_of(self.native_actions.space)
        own_space, self._mask_is_observed = env.observation_space, False
        self._nvec: tuple[int, ...] = ()
        if rules.mask_key is not None:
            own_space, self._mask_is_observed = split_space(own_space, rules.mask_key)
            self._nvec = nvec_to_mask(self.native_actions.space, rules.mask_key, env_name(env))
        self._reader = read_observation_space(env_name(env), own_space)
        self.space, self.bounds = self._reader.space, self._reader.bounds()
        if rules.mask_key is not None:
            self.space = with_mask(self.space, sum(self._nvec), rules.mask_key)
            self.bounds = {name or ALONE: limits for name, limits in self.bounds.items()}
        # The vector layer allocates by the space's dtype.
        self.observation_space = _vector_space(self.space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts the next episode with the run's own seed and options, not the caller's.

        Returns:
            obs [*obs_shape], and of an episode that was replayed its digest under `DIGEST`.
        """
        self.busy = True
        self.episode_seed = self._rules.episode_seed(self.index, self.episode)
        self.episode += 1
        self.length, self._return = 0, 0.0
        _forget_previous_episode(self.env.unwrapped)
        obs, own_info = self._call(lambda: self.env.reset(seed=self.episode_seed, options=self._rules.options or None))
        obs = self._read(obs, own_info)
        replay, self._replay = self._replay, None
        info: dict[str, Any] = {}
        if replay is not None:
            obs, info = self._repeat(obs, replay)
        self.busy = False
        return obs, info

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps with an action [C] to obs [*obs_shape].

        The last step's info holds the episode's results under `RESULT`, all floats.
        """
        self.busy = True
        native = self.native_actions.unpack(action)
        obs, reward, terminated, truncated, info = self._call(lambda: self.env.step(native))
        terminated, truncated = bool(terminated), bool(truncated)
        obs, reward = self._read(obs, info, ended=terminated or truncated), self._finite_reward(reward)
        self.busy = False
        self.length += 1
        self._return += reward
        limit = self._rules.max_steps
        cut = self.length == limit and not (terminated or truncated)
        result = {}
        if terminated or truncated or cut:
            # Ours last: an environment's own "l" must not replace the length.
            result[RESULT] = _numbers(info) | {"r": self._return, "l": float(self.length)}
            result[RESULT] |= {} if limit is None else {"cut": float(cut)}
        return obs, reward, terminated, truncated or cut, result

    def render(self) -> Any:
        """A copy of the picture, which the environment may draw over."""
        return np.array(self._call(self.env.render))

    def close(self) -> None:
        """Closes the environment, except Memory Gym's, which would quit pygame for all tasks of the process.

        An error in it is a warning, so that it hides nothing that happened before.
        """
        _close(self.env)

    def _repeat(self, obs: Any, actions: np.ndarray) -> tuple[Any, dict[str, Any]]:
        digest = new_digest(map_arrays(_row, obs))
        for action in actions:
            obs, reward, terminated, truncated, _ = self.step(action)
            if terminated or truncated:
                raise self._failure("the episode ended earlier when it was played again")
            digest = extend_digest(digest, map_arrays(_row, obs), np.array([reward], np.float32))
        return obs, {DIGEST: digest[0]}

    def _call(self, call: Callable[[], Any]) -> Any:
        """The environment's answer; whatever it raises, `SystemExit` included, is a failure."""
        try:
            return call()
        except BaseException as error:
            if is_interrupt(error):
                raise
            raise self._failure(one_line(error)) from error
        finally:
            if os.getpid() != self._pid:  # a process that the environment forked must not go on as if it were the run
                os._exit(1)

    def _read(self, obs: Any, info: dict[str, Any], ended: bool = False) -> Any:
        """A copy of the observation, which the environment may overwrite, as the agent gets it."""
        try:
            read = self._reader.read(obs)
            return add_mask(read, self._mask(obs, info, ended)) if self._nvec else read
        except ValueError as error:
            raise self._failure(str(error)) from None

    def _mask(self, obs: Any, info: dict[str, Any], ended: bool) -> np.ndarray:
        if ended:  # no action follows
            return np.ones(sum(self._nvec), np.uint8)
        source, key = obs if self._mask_is_observed else info, str(self._rules.mask_key)
        if key not in source:
            raise ValueError(f"neither observations nor infos have the action mask {key}; change --action_mask_key")
        return read_mask(source[key], self._nvec)

    def _finite_reward(self, reward: Any) -> float:
        try:
            value = float(reward)
        except (TypeError, ValueError):
            raise self._failure(f"the reward is no number but {brief(reward)}") from None
        if not abs(value) <= _LARGEST:
            raise self._failure(f"reward {value:g} is no finite float32")
        return value

    def _failure(self, reason: str) -> EnvironmentFailure:
        return failure(env_name(self.env), "failed", self.index, self.episode_seed, self.length, reason)


def make_wrapped(
    make: Callable[[], gymnasium.Env[Any, Any]],
    rules: EpisodeRules = DEFAULT_RULES,
    index: int = 0,
    episode: int = 0,
    replay: np.ndarray | None = None,
) -> EpisodeWrapper:
    """Makes an environment in an `EpisodeWrapper`; for the other arguments see `EpisodeWrapper`.

    Raises:
        ConfigError: see `EpisodeWrapper`; the environment is closed.
        EnvironmentFailure: its constructor raised anything that isn't a `UserError` already.
    """
    try:
        env = make()
    except UserError:
        raise
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise EnvironmentFailure(f"an environment (index {index}) can't be made: {one_line(error)}") from error
    if not isinstance(env, gymnasium.Env):
        raise EnvironmentFailure(f"`env` must make a Gymnasium environment; it made an object of {type(env).__name__}")
    try:
        return EpisodeWrapper(env, rules, index, episode, replay)
    except BaseException:
        _close(env)
        raise


def is_interrupt(error: BaseException) -> bool:
    """Whether it is the user's Ctrl-C: only the main thread gets it, and worker processes ignore it."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return isinstance(error, KeyboardInterrupt) and in_main_thread and multiprocessing.parent_process() is None


def one_line(error: BaseException) -> str:
    """Kind and text of an error, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def env_name(env: gymnasium.Env[Any, Any]) -> str:
    """The name of an environment in error messages."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def failure(name: str, what: str, index: int, seed: int | None, step: int, reason: str) -> EnvironmentFailure:
    """An error that names the environment, its index, the episode's seed and the step, counted from 0."""
    return EnvironmentFailure(f"environment {name} {what} (index {index}, seed {seed}, step {step}): {reason}")


def is_memory_gym(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether it is one of Memory Gym's tasks, which share one screen and have observations with x first."""
    return type(env.unwrapped).__module__.startswith("memory_gym.")


def _close(env: gymnasium.Env[Any, Any]) -> None:
    """See `EpisodeWrapper.close`."""
    if is_memory_gym(env):
        return
    try:
        env.close()
    except BaseException as error:
        if is_interrupt(error):
            raise
        warn_once(f"environment {env_name(env)} failed in close: {one_line(error)}")


def _vector_space(space: ObservationSpace) -> gymnasium.Space[Any]:
    if isinstance(space, DictSpace):
        return gymnasium.spaces.Dict(space.build(_vector_space))
    if space.dtype.kind == "f":
        return gymnasium.spaces.Box(-np.inf, np.inf, space.shape, np.float32)
    limits = np.iinfo(space.dtype)
    return gymnasium.spaces.Box(limits.min, limits.max, space.shape, space.dtype.type)


def _row(array: np.ndarray) -> np.ndarray:
    return array[None]


def _numbers(info: dict[str, Any]) -> dict[str, float]:
    """The numeric entries of an info whose names are text; a short vector becomes one entry an element.

    Memory Gym's ground truth is left out.
    """
    numbers: dict[str, float] = {}
    for name, value in info.items():
        if name == "ground_truth" or not isinstance(name, str) or not is_text(name):
            continue
        if not isinstance(value, bool | int | float | np.bool_ | np.number | np.ndarray):
            continue
        array = np.asarray(value)
        if array.dtype.kind in "biuf" and array.ndim == 0:
            numbers[name] = float(array)
        elif array.dtype.kind in "biuf" and array.ndim == 1 and array.size <= 8:
            numbers |= {f"{name}_{i}": float(element) for i, element in enumerate(array)}
    return numbers


def _rows_of(space: ActionSpace) -> gymnasium.Space[Any]:
    """A space of rows, which vector environments split and compare."""
    if isinstance(space, DiscreteActions):
        return gymnasium.spaces.MultiDiscrete(list(space.nvec))
    return gymnasium.spaces.Box(-np.inf, np.inf, (space.num_columns,))


def _forget_previous_episode(env: Any) -> None:
    # Memory Gym keeps its agent's sprite across resets: Endless-MortarMayhem shows the old one for three frames, and
    # most tasks draw it into the first picture for people.
    if is_memory_gym(env):
        env.rotated_agent_surface = None
        env.rotated_agent_rect = None
