"""Some Gymnasium environments, neighbours in the batch, that are stepped together. Knows nothing of JAX."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from trxl_jax.envs.base import EnvSpec, EpisodeStats, TimeStep
from trxl_jax.envs.episode import RESULT, EpisodeWrapper
from trxl_jax.errors import EnvironmentFailure

# The same trees as on the device, of NumPy arrays.
_HostTimeStep: Any = TimeStep
_HostEpisodeStats: Any = EpisodeStats

EnvFactory = Callable[[], gymnasium.Env[Any, Any]]


class VectorBatch:
    """A Gymnasium vector environment, and how many episodes each of its environments has started.

    Args:
        make: makes one environment.
        indices: places of these environments in the whole batch.
        spec: what `host.inspect` found.
        results: where the numbers of ended episodes go: r, l, t and the environment's own.
        seed: the run's seed.
        options: reset options of every episode.
        asynchronous: one process for each environment.
        send_final_obs: return the last observation of ended episodes too.
    """

    def __init__(
        self,
        make: EnvFactory,
        indices: Sequence[int],
        spec: EnvSpec,
        results: list[dict[str, float]],
        *,
        seed: int,
        options: dict[str, Any] | None,
        asynchronous: bool,
        send_final_obs: bool,
    ) -> None:
        self.num_envs = len(indices)
        self.episodes = np.zeros(self.num_envs, np.int64)
        self._indices = indices
        self._spec = spec
        self._results = results
        self._asynchronous = asynchronous
        self._send_final_obs = send_final_obs
        self._make_wrapped = partial(_make_wrapped, make, seed, options)
        self._envs: Any = None

    def reset(self) -> TimeStep:
        """Starts the next episode in each environment; only the observations tell something."""
        if self._envs is None:
            episodes = zip(self._indices, self.episodes.tolist(), strict=True)
            self._envs = _vectorise([partial(self._make_wrapped, *where) for where in episodes], self._asynchronous)
        obs, _ = self._envs.reset()
        self.episodes += 1
        nothing = np.zeros(self.num_envs, bool)
        return self._time_step(obs, np.zeros(self.num_envs), nothing, nothing, {})

    def step(self, action: np.ndarray) -> TimeStep:
        """Takes i32[n, A]."""
        if self._envs is None:
            raise EnvironmentFailure("step called on a closed environment; call reset first")
        return self._time_step(*self._envs.step(action if action.shape[1] > 1 else np.squeeze(action, axis=1)))

    def close(self, *, failed: bool) -> None:
        """Ends worker processes and frees the environments; the next `reset` makes new ones."""
        envs, self._envs = self._envs, None
        if envs is None:
            return
        # Workers that died, or were interrupted in a step, make closing raise; there is nothing left to save in them.
        with contextlib.suppress(Exception):
            envs.close(**({"terminate": True} if self._asynchronous and failed else {}))
        envs.closed = True  # or else it tries again when it is collected
        for process in getattr(envs, "processes", ()):
            if process.is_alive():
                process.kill()

    def dead(self) -> list[int]:
        """Places of the environments whose worker processes have ended."""
        processes = getattr(self._envs, "processes", ())
        for process in processes:
            process.join(0.2)  # its pipe closes a moment before it ends
        return [i for i, process in zip(self._indices, processes) if process.exitcode is not None]

    def _time_step(
        self, obs: np.ndarray, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, infos: dict[str, Any]
    ) -> TimeStep:
        done = terminated | truncated
        episode_return, episode_length = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, np.int32)
        if done.any():
            self.episodes += done
            results = infos["final_info"][RESULT]
            names = [name for name in results if not name.startswith("_")]
            for i in np.flatnonzero(done):
                self._results.append({name: float(results[name][i]) for name in names if results[f"_{name}"][i]})
            episode_return[done], episode_length[done] = results["r"][done], results["l"][done]
        return _HostTimeStep(
            # A copy: JAX may alias it, and the vector environment writes the next one over it.
            obs=np.array(obs, self._spec.obs_dtype),
            reward=np.asarray(reward, np.float32),
            terminated=terminated,
            truncated=truncated,
            final_obs=self._final_obs(done, infos) if self._send_final_obs else None,
            episode=_HostEpisodeStats(done=done, episode_return=episode_return, episode_length=episode_length),
        )

    def _final_obs(self, done: np.ndarray, infos: dict[str, Any]) -> np.ndarray:
        final_obs = np.zeros((self.num_envs, *self._spec.obs_shape), self._spec.obs_dtype)
        for i in np.flatnonzero(done):
            final_obs[i] = infos["final_obs"][i]
        return final_obs


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
