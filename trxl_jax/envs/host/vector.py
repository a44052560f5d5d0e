"""A group of Gymnasium environments, neighbours in the batch, that are stepped together, in NumPy."""

import contextlib
import multiprocessing.connection
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from trxl_jax.envs.base import EnvSpec, TimeStep
from trxl_jax.envs.host.digest import extend_digest, new_digest
from trxl_jax.envs.host.episode import DIGEST, RESULT, EpisodeRules, EpisodeWrapper, failure, make_wrapped
from trxl_jax.envs.host.history import ActionHistory
from trxl_jax.envs.host.processes import FOREVER, WorkerEnvs
from trxl_jax.envs.observations import arrays_of, map_arrays
from trxl_jax.envs.results import EpisodeResult
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.errors import EnvironmentFailure, warn_once

EnvFactory = Callable[[], gymnasium.Env[Any, Any]]

# The same trees as on the device, of NumPy arrays.
_HostTimeStep: Any = TimeStep
_HostEpisodeStats: Any = EpisodeStats


class VectorBatch:
    """A Gymnasium vector environment, with a count of the episodes that each of its environments has started.

    Args:
        make: makes one environment.
        name: what errors call an environment.
        indices: of these environments in the whole batch.
        spec: observations, actions and episode limit.
        results: the list to which results of finished episodes are appended.
        rules: seed, options and limit of every episode.
        bounds: by name of an array of numbers in the observations, the lowest and highest that the space allows.
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
        rules: EpisodeRules,
        bounds: Mapping[str, tuple[np.ndarray, np.ndarray]],
        asynchronous: bool,
        send_final_obs: bool,
    ) -> None:
        self.num_envs = len(indices)
        self.episodes = np.zeros(self.num_envs, np.int64)
        self.asynchronous = asynchronous
        self._name = name
        self._indices = indices
        self._spec = spec
        self._results = results
        self._rules = rules
        self._bounds = bounds
        self._send_final_obs = send_final_obs
        self._make_wrapped = partial(make_wrapped, make, rules)
        self._envs: Any = None
        self._made: list[EpisodeWrapper] = []  # in this process
        self._making = self._busy = False
        self._history = ActionHistory(self.num_envs, spec.action)
        self._digests = np.zeros(self.num_envs, np.uint64)

    def make(self, replay: Sequence[np.ndarray] | None = None) -> None:
        """Makes the environments; `reset` must come next, or `replay` with the actions [steps, C] of each."""
        if replay is not None:
            self.episodes -= 1
        given = [None] * self.num_envs if replay is None else replay
        where = zip(self._indices, self.episodes.tolist(), given, strict=True)
        makers = [partial(self._make_wrapped, *which) for which in where]
        made = self._made = []
        self._making = self._busy = True
        if self.asynchronous:
            WorkerEnvs(makers, started=self._take)
        else:
            makers = [partial(_make_into, made, maker) for maker in makers]
            # SAME_STEP is what the original trained with: the observation after an end is the next episode's first.
            self._envs = SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        self._making = self._busy = False

    @property
    def is_made(self) -> bool:
        """Whether there are environments."""
        return self._envs is not None

    @property
    def is_open(self) -> bool:
        """Whether there are environments to close: if one of them can't be made, those before it."""
        return self.is_made or bool(self._made)

    @property
    def objects(self) -> list[Any]:
        """The environments of this process, without wrappers."""
        return [] if self.asynchronous else [env.unwrapped for env in self._envs.envs]

    def reset(self) -> TimeStep:
        """Starts the next episode in each environment; only the observations of the result are meaningful."""
        return self._start()[0]

    def replay(self, actions: Sequence[np.ndarray], digests: Sequence[int] | None) -> TimeStep:
        """Restarts each environment's last episode and repeats its actions, [steps, C] each; see `reset`.

        Raises:
            EnvironmentFailure: with the digests of the episodes so far, observations or rewards were others.
        """
        began, info = self._start()
        found = info[DIGEST]
        if digests is not None and not np.array_equal(found, np.array(digests, np.uint64)):
            raise EnvironmentFailure("an episode went another way when it was played again")
        self._history.load(actions)
        self._digests = found
        return began

    def step(self, action: np.ndarray) -> TimeStep:
        """Steps with actions [n, C], which are kept."""
        if self._envs is None:
            raise EnvironmentFailure("step called on a closed environment; call reset first")
        self._busy = True
        if self.asynchronous:
            self._envs.step_async(action)
            outcome = self._envs.step_wait(FOREVER)
        else:
            outcome = self._envs.step(action)
        self._busy = False
        self._history.append(action)
        return self._time_step(*outcome)

    def actions(self) -> list[np.ndarray] | None:
        """The actions in each environment's current episode, [steps, C].

        None before the first reset, or if an episode is too long to be replayed; see `history.MAX_REPLAY`.
        """
        return None if self._envs is None else self._history.of_each()

    def digests(self) -> list[int]:
        """Digests of the current episodes' observations and rewards so far, which `replay` compares."""
        return [int(digest) for digest in self._digests]

    def close(self) -> None:
        """Closes the environments and ends worker processes; `abandon` must come next. It may hang."""
        if self.asynchronous:
            self._envs.close()
        else:
            for env in self._made:
                env.busy = True
                env.close()
                env.busy = False

    def unclosed(self) -> str:
        """While `close` hangs: which environment it waits for."""
        if self.asynchronous:
            busy = [process.is_alive() for process in self._envs.processes]
        else:
            busy = [env.busy for env in self._made]
        return f"{self._name} (index {self._indices[busy.index(True) if True in busy else 0]})"

    def abandon(self) -> None:
        """Forgets the environments, which are not closed, and kills worker processes."""
        envs, self._envs = self._envs, None
        self._made = []
        self._making = self._busy = False
        if envs is None:
            return
        if self.asynchronous:
            with contextlib.suppress(Exception):  # of workers that died
                envs.close(terminate=True)
        envs.closed = True  # otherwise it tries again when it is garbage collected

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
        if not self._busy:
            return None
        if self._envs is None:
            waiting = [i >= len(self._made) for i in range(self.num_envs)]
        elif self.asynchronous:
            waiting = [not pipe.poll() for pipe in self._envs.parent_pipes]
        else:
            waiting = [env.busy for env in self._envs.envs]
        if not any(waiting):
            return None
        i, reason = waiting.index(True), f"no answer for --env_timeout {seconds:g} seconds"
        if self._making:
            return EnvironmentFailure(
                f"environment {self._name} hangs while it is made (index {self._indices[i]}): {reason}"
            )
        return self._failure(i, "hangs", reason)

    def answered(self) -> int:
        """How many environments have been made so far, while they are."""
        if not self.asynchronous or self._envs is None:
            return len(self._made)
        return sum(pipe.poll() for pipe in self._envs.parent_pipes)

    def _failure(self, i: int, what: str, reason: str) -> EnvironmentFailure:
        """The error of an environment; of a worker that hangs in a reset, with its last step before."""
        index = self._indices[i]
        if not self.asynchronous:
            env = self._envs.envs[i]
            return failure(self._name, what, index, env.episode_seed, env.length, reason)
        seed = self._rules.episode_seed(index, max(int(self.episodes[i]) - 1, 0))
        return failure(self._name, what, index, seed, self._history.steps(i), reason)

    def _take(self, envs: WorkerEnvs) -> None:
        self._envs = envs

    def _start(self) -> tuple[TimeStep, dict[str, Any]]:
        self._busy = True
        if self.asynchronous:
            self._envs.reset_async()
            obs, info = self._envs.reset_wait(FOREVER)
        else:
            obs, info = self._envs.reset()
        self._busy = False
        self.episodes += 1
        self._history = ActionHistory(self.num_envs, self._spec.action)
        nothing = np.zeros(self.num_envs, bool)
        began = self._time_step(obs, np.zeros(self.num_envs), nothing, nothing, {})
        self._digests = new_digest(began.obs)
        return began, info

    def _time_step(
        self, obs: Any, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, infos: dict[str, Any]
    ) -> TimeStep:
        # A copy: JAX may alias it, and the vector environment overwrites it in the next step.
        obs, reward = map_arrays(np.array, obs), np.asarray(reward, np.float32)
        self._check_bounds(obs)
        self._digests = extend_digest(self._digests, obs, reward)
        done = terminated | truncated
        episode_return, episode_length = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, np.int32)
        if done.any():
            self.episodes += done
            self._history.restart(done)
            self._digests[done] = new_digest(map_arrays(lambda array: array[done], obs))
            results = infos["final_info"][RESULT]
            names = [name for name in results if not name.startswith("_")]
            for i in np.flatnonzero(done):
                self._results.append({name: float(results[name][i]) for name in names if results[f"_{name}"][i]})
            episode_return[done], episode_length[done] = results["r"][done], results["l"][done]
        return _HostTimeStep(
            obs=obs,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            final_obs=self._final_obs(done, infos) if self._send_final_obs else None,
            episode=_HostEpisodeStats(done=done, episode_return=episode_return, episode_length=episode_length),
        )

    def _check_bounds(self, obs: Any) -> None:
        for array_name, array in arrays_of(obs).items() if self._bounds else ():
            if array_name not in self._bounds:
                continue
            low, high = self._bounds[array_name]
            inside = (low <= array) & (array <= high)
            if not inside.all():
                self._bounds = {}  # one warning is enough
                i, *element = np.argwhere(~inside)[0].tolist()
                limits = f"{low[*element]:g} to {high[*element]:g}"
                which = ", ".join(map(str, element)) + (f" of {array_name}" if array_name else "")
                warn_once(
                    f"environment {self._name} (index {self._indices[i]}): element {which} of an observation is "
                    f"{array[i, *element]:g}, its space says {limits}; the agent gets it as it is"
                )
                return

    def _final_obs(self, done: np.ndarray, infos: dict[str, Any]) -> Any:
        final_obs = self._spec.zero_obs(self.num_envs)
        for i in np.flatnonzero(done):
            for array_name, array in arrays_of(final_obs).items():
                array[i] = arrays_of(infos["final_obs"][i])[array_name]
        return final_obs


def _make_into(made: list[EpisodeWrapper], maker: Callable[[], EpisodeWrapper]) -> EpisodeWrapper:
    env = maker()
    made.append(env)
    return env
