"""Gymnasium environments on the host, stepped as a batch from inside compiled programs by `io_callback`."""

import contextlib
import logging
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from jax.experimental import io_callback

from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS, IMAGE_SHAPE, EnvSpec, EpisodeStats, TimeStep
from trxl_jax.envs.episode import RESULT, EpisodeWrapper
from trxl_jax.errors import ConfigError, EnvironmentFailure

# The same trees as on the device, of NumPy arrays or their shapes.
_HostTimeStep: Any = TimeStep
_HostEpisodeStats: Any = EpisodeStats

EnvFactory = Callable[[], gymnasium.Env[Any, Any]]


class HostEnvironment:
    """N Gymnasium environments behind one ordered callback a step.

    The state is a counter of steps, passed through so that calls keep their order. Callbacks work in NumPy only.

    Args:
        make: makes one environment.
        num_envs: N.
        seed: the run's seed; every episode's own is derived from it, its index and its number.
        options: reset options of every episode.
        max_episode_steps: E; None asks the environment.
        asynchronous: one process for each environment.
        send_final_obs: return the last observation of ended episodes too.

    Raises:
        ConfigError: spaces that the agent can't take, or options that the environment refuses.
    """

    on_host = True

    def __init__(
        self,
        make: EnvFactory,
        num_envs: int,
        *,
        seed: int = 1,
        options: dict[str, Any] | None = None,
        max_episode_steps: int | None = None,
        asynchronous: bool = False,
        send_final_obs: bool = False,
    ) -> None:
        self.num_envs = num_envs
        self.spec = _inspect(make, seed, options, max_episode_steps)
        self.failure: EnvironmentFailure | None = None
        self._send_final_obs = send_final_obs
        self._results: list[dict[str, float]] = []
        self._episodes = np.zeros(num_envs, np.int64)
        self._asynchronous = asynchronous
        self._make_wrapped = partial(_make_wrapped, make, seed, options)
        self._envs: Any = None
        logging.getLogger("jax._src.callback").addFilter(_is_not_ours)

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Starts the next episode in each environment; the key is not used. See `Environment.reset`."""
        obs = jax.ShapeDtypeStruct((self.num_envs, *self.spec.obs_shape), self.spec.obs_dtype)
        return jax.numpy.int32(0), io_callback(self._host_reset, obs, ordered=True)

    def step(self, env_state: jax.Array, action: jax.Array) -> tuple[jax.Array, TimeStep]:
        """Steps each environment; see `Environment.step`."""
        n = self.num_envs
        obs = jax.ShapeDtypeStruct((n, *self.spec.obs_shape), self.spec.obs_dtype)
        flag = jax.ShapeDtypeStruct((n,), np.bool_)
        number = jax.ShapeDtypeStruct((n,), np.float32)
        result = _HostTimeStep(
            obs=obs,
            reward=number,
            terminated=flag,
            truncated=flag,
            final_obs=obs if self._send_final_obs else None,
            episode=_HostEpisodeStats(
                done=flag, episode_return=number, episode_length=jax.ShapeDtypeStruct((n,), np.int32)
            ),
        )
        return env_state + 1, io_callback(self._host_step, result, action, ordered=True)

    def drain_results(self) -> list[dict[str, float]]:
        """Numbers of the episodes that ended since the last call: r, l, t and the environment's own."""
        results, self._results = self._results, []
        return results

    def snapshot(self) -> dict[str, Any]:
        """The number of episodes started in each environment."""
        return {"episodes": self._episodes.tolist()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Goes on counting episodes, so that their seeds are new ones; the next `reset` starts them."""
        self._episodes = np.asarray(snapshot["episodes"], np.int64)
        self.close()

    def close(self) -> None:
        """Ends worker processes and frees the environments."""
        envs, self._envs = self._envs, None
        if envs is None:
            return
        # Workers that died, or were interrupted in a step, make closing raise; there is nothing left to save in them.
        with contextlib.suppress(Exception):
            envs.close(**({"terminate": True} if self._asynchronous and self.failure else {}))
        envs.closed = True  # or else it tries again when it is collected
        for process in getattr(envs, "processes", ()):
            if process.is_alive():
                process.kill()

    def _host_reset(self) -> np.ndarray:
        return self._guard(self._reset_all)

    def _reset_all(self) -> np.ndarray:
        if self._envs is None:
            makers = [partial(self._make_wrapped, i, int(n)) for i, n in enumerate(self._episodes)]
            self._envs = _vectorise(makers, self._asynchronous)
        obs, _ = self._envs.reset()
        self._episodes += 1
        self._results.clear()
        return np.array(obs, self.spec.obs_dtype)

    def _host_step(self, action: jax.Array) -> TimeStep:
        return self._guard(partial(self._step_all, np.asarray(action)))

    def _step_all(self, action: np.ndarray) -> TimeStep:
        if self._envs is None:
            raise EnvironmentFailure("step called on a closed environment; call reset first")
        actions = action if len(self.spec.action_nvec) > 1 else np.squeeze(action, axis=1)
        obs, reward, terminated, truncated, infos = self._envs.step(actions)
        done = terminated | truncated
        episode_return, episode_length = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, np.int32)
        if done.any():
            self._episodes += done
            results = infos["final_info"][RESULT]
            names = [name for name in results if not name.startswith("_")]
            for i in np.flatnonzero(done):
                self._results.append({name: float(results[name][i]) for name in names if results[f"_{name}"][i]})
            episode_return[done], episode_length[done] = results["r"][done], results["l"][done]
        return _HostTimeStep(
            # A copy: JAX may alias it, and the vector environment writes the next one over it.
            obs=np.array(obs, self.spec.obs_dtype),
            reward=np.asarray(reward, np.float32),
            terminated=terminated,
            truncated=truncated,
            final_obs=self._final_obs(done, infos) if self._send_final_obs else None,
            episode=_HostEpisodeStats(done=done, episode_return=episode_return, episode_length=episode_length),
        )

    def _final_obs(self, done: np.ndarray, infos: dict[str, Any]) -> np.ndarray:
        final_obs = np.zeros((self.num_envs, *self.spec.obs_shape), self.spec.obs_dtype)
        for i in np.flatnonzero(done):
            final_obs[i] = infos["final_obs"][i]
        return final_obs

    def _guard(self, call: Callable[[], Any]) -> Any:
        # JAX turns an exception into its own, with a traceback; the first one is kept for whoever catches that.
        if self.failure is not None:
            raise self.failure
        try:
            return call()
        except EnvironmentFailure as failure:
            self.failure = failure
            raise
        except Exception as error:
            self.failure = EnvironmentFailure(self._explain(error))
            raise self.failure from error

    def _explain(self, error: Exception) -> str:
        if isinstance(error, EOFError | ConnectionError):
            processes = self._envs.processes if self._envs is not None else []
            for process in processes:
                process.join(0.2)  # its pipe closes a moment before it ends
            dead = [i for i, process in enumerate(processes) if process.exitcode is not None]
            return f"the worker processes of environments {dead} died"
        return "the environments failed: " + " ".join(f"{type(error).__name__} {error}".split())


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Drops JAX's log of an `EnvironmentFailure`, which the caller reports in one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], EnvironmentFailure))


def _make_wrapped(
    make: EnvFactory, seed: int, options: dict[str, Any] | None, index: int, episode: int
) -> EpisodeWrapper:
    if multiprocessing.parent_process() is not None:
        # A terminal and a scheduler signal the whole group; the run ends its update and closes its workers itself.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    return EpisodeWrapper(make(), seed, index, options, episode)


def _vectorise(makers: Sequence[Callable[[], EpisodeWrapper]], asynchronous: bool) -> Any:
    # SAME_STEP is what the original trained with: the observation after an end is the next episode's first.
    if not asynchronous:
        return SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    # A fork of a process with XLA's threads may hang; a fork server that imported the wrapper once forks fast.
    gymnasium.logger.min_level = gymnasium.logger.ERROR + 1  # it prints a worker's traceback before we say it in a line
    multiprocessing.set_forkserver_preload(["trxl_jax.envs.episode"])
    return AsyncVectorEnv(makers, context="forkserver", autoreset_mode=AutoresetMode.SAME_STEP)


def _inspect(make: EnvFactory, seed: int, options: dict[str, Any] | None, max_episode_steps: int | None) -> EnvSpec:
    """Makes one environment, resets it with the run's options and reads what the agent must know of it."""
    env = make()
    wrapped = EpisodeWrapper(env, seed, 0, options)
    try:
        name = env.spec.id if env.spec else type(env.unwrapped).__name__
        nvec = _action_nvec(name, env.action_space)
        shape, dtype = _observation(name, env.observation_space)
        try:
            wrapped.reset()
        except EnvironmentFailure as error:
            if options:
                raise ConfigError(f"--env_options {options}: {error.__cause__ or error}") from error
            raise
        limits = (
            max_episode_steps,
            env.spec.max_episode_steps if env.spec else None,
            getattr(env.unwrapped, "max_episode_steps", None),
        )
        limit = next((n for n in limits if n is not None and n > 0), ENDLESS_MAX_EPISODE_STEPS)
        return EnvSpec(shape, dtype, nvec, int(limit))
    finally:
        wrapped.close()


def _action_nvec(name: str, space: gymnasium.Space[Any]) -> tuple[int, ...]:
    if isinstance(space, gymnasium.spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, gymnasium.spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return tuple(int(n) for n in space.nvec)
    raise ConfigError(f"--env_id {name}: action space {space} is not supported; only Discrete and MultiDiscrete are")


def _observation(name: str, space: gymnasium.Space[Any]) -> tuple[tuple[int, ...], np.dtype]:
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return space.shape, np.dtype(np.float32)
    if isinstance(space, gymnasium.spaces.Box) and space.shape == IMAGE_SHAPE and space.dtype == np.uint8:
        return space.shape, np.dtype(np.uint8)
    kind = f"{type(space).__name__}{space.shape or ''} of {space.dtype}"
    raise ConfigError(
        f"--env_id {name}: observation space {kind} is not supported; only vectors and 84x84x3 uint8 images are"
    )
