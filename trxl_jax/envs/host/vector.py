"""A group of Gymnasium environments, neighbours in the batch, that are stepped together, in NumPy."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from trxl_jax.envs.base import EnvSpec, TimeStep
from trxl_jax.envs.host.episode import RESULT, EpisodeWrapper, episode_seed, failure
from trxl_jax.envs.host.history import ActionHistory
from trxl_jax.envs.host.worker import EnvFactory, make_wrapped
from trxl_jax.envs.results import EpisodeResult
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.errors import EnvironmentFailure

# The same trees as on the device, of NumPy arrays.
_HostTimeStep: Any = TimeStep
_HostEpisodeStats: Any = EpisodeStats

# Seconds. With a timeout, Gymnasium waits for all workers before it reads any answer, so that it is known which worker
# gave none.
_FOREVER = 1e6


class VectorBatch:
    """A Gymnasium vector environment, with a count of the episodes that each of its environments has started.

    Args:
        make: makes one environment.
        name: what errors call an environment.
        indices: of these environments in the whole batch.
        spec: observations, actions and episode limit.
        results: the list to which results of finished episodes are appended.
        seed: the run's seed.
        options: reset options of every episode.
        asynchronous: one process for each environment.
        send_final_obs: return the last observation of ended episodes too.
    """

    def __init__(
        self,
        make: EnvFactory,
        name: str,
        indices: Sequence[int],
        spec: EnvSpec,
        results: list[EpisodeResult],
        *,
        seed: int,
        options: dict[str, Any] | None,
        asynchronous: bool,
        send_final_obs: bool,
    ) -> None:
        self.num_envs = len(indices)
        self.episodes = np.zeros(self.num_envs, np.int64)
        self._name = name
        self._seed = seed
        self._indices = indices
        self._spec = spec
        self._results = results
        self._asynchronous = asynchronous
        self._send_final_obs = send_final_obs
        self._make_wrapped = partial(make_wrapped, make, os.getpid(), seed, options)
        self._envs: Any = None
        self._busy = False
        self._history = ActionHistory(self.num_envs, spec.action)

    def make(self) -> None:
        """Makes the environments, unless they exist; `reset` must come next."""
        if self._envs is None:
            self._make([None] * self.num_envs)

    def reset(self) -> TimeStep:
        """Starts the next episode in each environment; only the observations of the result are meaningful."""
        self.make()
        return self._start()

    def replay(self, actions: Sequence[np.ndarray]) -> TimeStep:
        """Restarts each environment's last episode and repeats its actions, [steps, A] each; see `reset`."""
        self.episodes -= 1
        self._make(actions)
        began = self._start()
        self._history.load(actions)
        return began

    def step(self, action: np.ndarray) -> TimeStep:
        """Steps with actions i32[n, A], which are kept."""
        if self._envs is None:
            raise EnvironmentFailure("step called on a closed environment; call reset first")
        action_of_each = self._spec.action.for_environment(action)
        self._busy = True
        if self._asynchronous:
            self._envs.step_async(action_of_each)
            outcome = self._envs.step_wait(_FOREVER)
        else:
            outcome = self._envs.step(action_of_each)
        self._busy = False
        self._history.append(action)
        return self._time_step(*outcome)

    def actions(self) -> list[np.ndarray] | None:
        """The actions in each environment's current episode, integers [steps, A]; None before the first reset."""
        return None if self._envs is None else self._history.of_each()

    def close(self, *, failed: bool, stepping: bool = False) -> None:
        """Ends worker processes and frees the environments; the next `reset` makes new ones.

        Args:
            failed: an error occurred, and workers may not answer.
            stepping: a thread may still be stepping them; without processes they can only be abandoned.
        """
        envs, self._envs = self._envs, None
        self._busy = False
        if envs is None or (stepping and not self._asynchronous):
            return
        processes = getattr(envs, "processes", ())
        if failed or stepping:  # closing would wait for a worker that hangs
            for process in processes:
                process.kill()
        # Closing raises if workers died or were interrupted in a step.
        with contextlib.suppress(Exception):
            envs.close(**({"terminate": True} if processes and (failed or stepping) else {}))
        envs.closed = True  # otherwise it tries again when it is garbage collected
        for process in processes:
            if process.is_alive():
                process.kill()

    def dead(self) -> EnvironmentFailure | None:
        """The error of the first environment whose worker process has ended."""
        processes = getattr(self._envs, "processes", ())
        # A pipe closes a moment before its process ends.
        multiprocessing.connection.wait([process.sentinel for process in processes], 1)
        for i, process in enumerate(processes):
            if process.exitcode is not None:
                return self._failure(i, "died", f"its process ended with status {process.exitcode}")
        return None

    def hanging(self, seconds: float) -> EnvironmentFailure | None:
        """The error of the first environment that hasn't answered, if answers are awaited."""
        if self._envs is None or not self._busy:
            return None
        if self._asynchronous:
            waiting = [not pipe.poll() for pipe in self._envs.parent_pipes]
        else:
            waiting = [env.busy for env in self._envs.envs]
        if not any(waiting):
            return None
        return self._failure(waiting.index(True), "hangs", f"no answer for --env_timeout {seconds:g} seconds")

    def _failure(self, i: int, what: str, reason: str) -> EnvironmentFailure:
        """The error of an environment; of a worker that hangs in a reset, with its last step before."""
        index = self._indices[i]
        if not self._asynchronous:
            env = self._envs.envs[i]
            return failure(self._name, what, index, env.episode_seed, env.length, reason)
        seed = episode_seed(self._seed, index, max(int(self.episodes[i]) - 1, 0))
        return failure(self._name, what, index, seed, self._history.steps(i), reason)

    def _make(self, replays: Sequence[np.ndarray | None]) -> None:
        where = zip(self._indices, self.episodes.tolist(), replays, strict=True)
        self._envs = _vectorise([partial(self._make_wrapped, *which) for which in where], self._asynchronous)

    def _start(self) -> TimeStep:
        self._busy = True
        if self._asynchronous:
            self._envs.reset_async()
            obs, _ = self._envs.reset_wait(_FOREVER)
        else:
            obs, _ = self._envs.reset()
        self._busy = False
        self.episodes += 1
        self._history = ActionHistory(self.num_envs, self._spec.action)
        nothing = np.zeros(self.num_envs, bool)
        return self._time_step(obs, np.zeros(self.num_envs), nothing, nothing, {})

    def _time_step(
        self, obs: np.ndarray, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, infos: dict[str, Any]
    ) -> TimeStep:
        done = terminated | truncated
        episode_return, episode_length = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, np.int32)
        if done.any():
            self.episodes += done
            self._history.restart(done)
            results = infos["final_info"][RESULT]
            names = [name for name in results if not name.startswith("_")]
            for i in np.flatnonzero(done):
                self._results.append({name: float(results[name][i]) for name in names if results[f"_{name}"][i]})
            episode_return[done], episode_length[done] = results["r"][done], results["l"][done]
        return _HostTimeStep(
            # A copy: JAX may alias it, and the vector environment overwrites it in the next step.
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


def _vectorise(makers: Sequence[Callable[[], EpisodeWrapper]], asynchronous: bool) -> Any:
    # SAME_STEP is what the original trained with: the observation after an end is the next episode's first.
    if not asynchronous:
        return SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    # A fork of a process with XLA's threads may hang; a fork server that has imported the wrapper forks fast.
    gymnasium.logger.min_level = gymnasium.logger.ERROR + 1  # it prints a worker's traceback before we report it
    multiprocessing.set_forkserver_preload(["trxl_jax.envs.host.worker"])
    return AsyncVectorEnv(makers, context="forkserver", autoreset_mode=AutoresetMode.SAME_STEP)
