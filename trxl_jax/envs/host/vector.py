"""Some Gymnasium environments, neighbours in the batch, that are stepped together. Knows nothing of JAX."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from trxl_jax.envs.base import EnvSpec, EpisodeStats, TimeStep
from trxl_jax.envs.host.episode import RESULT, EpisodeWrapper, episode_seed, failure
from trxl_jax.envs.host.history import ActionHistory
from trxl_jax.errors import EnvironmentFailure

# The same trees as on the device, of NumPy arrays.
_HostTimeStep: Any = TimeStep
_HostEpisodeStats: Any = EpisodeStats

# Seconds: given a timeout, Gymnasium waits for every worker before it takes any one's answer; then it is known who gave
# none.
_FOREVER = 1e6

EnvFactory = Callable[[], gymnasium.Env[Any, Any]]


class VectorBatch:
    """A Gymnasium vector environment, and how many episodes each of its environments has started.

    Args:
        make: makes one environment.
        name: what errors call an environment.
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
        name: str,
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
        self._name = name
        self._seed = seed
        self._indices = indices
        self._spec = spec
        self._results = results
        self._asynchronous = asynchronous
        self._send_final_obs = send_final_obs
        self._make_wrapped = partial(_make_wrapped, make, os.getpid(), seed, options)
        self._envs: Any = None
        self._busy = False
        self._history = ActionHistory(self.num_envs, spec.action_nvec)

    def make(self) -> None:
        """Makes the environments, unless there are some; `reset` comes next."""
        if self._envs is None:
            self._make([None] * self.num_envs)

    def reset(self) -> TimeStep:
        """Starts the next episode in each environment; only the observations tell something."""
        self.make()
        return self._start()

    def replay(self, actions: Sequence[np.ndarray]) -> TimeStep:
        """Begins each environment's last episode again and plays its actions, [steps, A] each; as `reset`."""
        self.episodes -= 1
        self._make(actions)
        began = self._start()
        self._history.load(actions)
        return began

    def step(self, action: np.ndarray) -> TimeStep:
        """Takes i32[n, A], which is kept."""
        if self._envs is None:
            raise EnvironmentFailure("step called on a closed environment; call reset first")
        action_of_each = action if action.shape[1] > 1 else np.squeeze(action, axis=1)
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
        """What was done so far in each environment's episode, whole numbers [steps, A]; None before the first."""
        return None if self._envs is None else self._history.of_each()

    def close(self, *, failed: bool, stepping: bool = False) -> None:
        """Ends worker processes and frees the environments; the next `reset` makes new ones.

        Args:
            failed: there is nothing left to save in them.
            stepping: a thread may still be stepping them; without processes they can only be given up.
        """
        envs, self._envs = self._envs, None
        self._busy = False
        if envs is None or (stepping and not self._asynchronous):
            return
        processes = getattr(envs, "processes", ())
        if failed or stepping:  # a worker that hangs would be waited for
            for process in processes:
                process.kill()
        # Workers that died, or were interrupted in a step, make closing raise.
        with contextlib.suppress(Exception):
            envs.close(**({"terminate": True} if processes and (failed or stepping) else {}))
        envs.closed = True  # or else it tries again when it is collected
        for process in processes:
            if process.is_alive():
                process.kill()

    def dead(self) -> EnvironmentFailure | None:
        """About the first environment whose worker process has ended."""
        processes = getattr(self._envs, "processes", ())
        # A pipe closes a moment before its process ends.
        multiprocessing.connection.wait([process.sentinel for process in processes], 1)
        for i, process in enumerate(processes):
            if process.exitcode is not None:
                return self._failure(i, "died", f"its process ended with status {process.exitcode}")
        return None

    def hanging(self, seconds: float) -> EnvironmentFailure | None:
        """About the first environment from which nothing came, where that is waited for."""
        if self._envs is None or not self._busy:
            return None
        if self._asynchronous:
            waiting = [not pipe.poll() for pipe in self._envs.parent_pipes]
        else:
            waiting = [env.busy for env in self._envs.envs]
        if not any(waiting):
            return None
        return self._failure(waiting.index(True), "hangs", f"nothing came of it for --env_timeout {seconds:g} seconds")

    def _failure(self, i: int, what: str, reason: str) -> EnvironmentFailure:
        """About an environment; of a worker in the reset after an episode, the last step that it answered is told."""
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
        self._history = ActionHistory(self.num_envs, self._spec.action_nvec)
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
    make: EnvFactory,
    pid: int,
    seed: int,
    options: dict[str, Any] | None,
    index: int,
    episode: int,
    replay: np.ndarray | None,
) -> EpisodeWrapper:
    parent = multiprocessing.parent_process()
    if parent is not None and os.getpid() != pid:  # in a worker
        # A terminal and a scheduler signal the whole group; the run ends its update and closes its workers itself.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        # A worker that hangs would outlive a run that was killed.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    return EpisodeWrapper(make(), seed, index, options, episode, replay)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _vectorise(makers: Sequence[Callable[[], EpisodeWrapper]], asynchronous: bool) -> Any:
    # SAME_STEP is what the original trained with: the observation after an end is the next episode's first.
    if not asynchronous:
        return SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    # A fork of a process with XLA's threads may hang; a fork server that imported the wrapper once forks fast.
    gymnasium.logger.min_level = gymnasium.logger.ERROR + 1  # it prints a worker's traceback before we say it in a line
    multiprocessing.set_forkserver_preload(["trxl_jax.envs.host.episode"])
    return AsyncVectorEnv(makers, context="forkserver", autoreset_mode=AutoresetMode.SAME_STEP)
