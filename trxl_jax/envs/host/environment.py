"""Gymnasium environments on the host, stepped as a batch from inside compiled programs by `io_callback`."""

import concurrent.futures
import logging
import math
import sys
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from jax.experimental import io_callback

from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS, EnvSpec, TimeStep
from trxl_jax.envs.host.episode import EpisodeWrapper, env_name
from trxl_jax.envs.host.options import WatchedOptions
from trxl_jax.envs.host.thread import DaemonThread
from trxl_jax.envs.host.vector import VectorBatch
from trxl_jax.envs.host.worker import EnvFactory
from trxl_jax.envs.results import EpisodeResult
from trxl_jax.envs.spaces import read_action_space, read_observation_space
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.errors import ConfigError, EnvironmentFailure, brief, printable

_A_MOMENT = 1.0  # seconds

# The same trees as on the device, of shapes.
_HostTimeStep: Any = TimeStep
_HostEpisodeStats: Any = EpisodeStats


class HostEnvironment:
    """N Gymnasium environments behind ordered callbacks.

    The state is a counter of steps, which keeps calls in order. Callbacks use NumPy only.

    Environments with image observations are slow. If N is even they are double-buffered: a thread steps one half while
    the agent acts in the other. This changes only the rounding of products, whose sizes differ.

    Args:
        make: makes one environment.
        num_envs: N.
        seed: the run's seed; every episode's own is derived from it, its index and its number.
        options: reset options of every episode.
        max_episode_steps: E; None asks the environment.
        asynchronous: one process for each environment.
        timeout: seconds after which a step or a reset of the batch counts as hanging; None: never.
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
        timeout: float | None = None,
        send_final_obs: bool = False,
    ) -> None:
        self.num_envs = num_envs
        name, self.spec = _inspect(make, seed, options, max_episode_steps)
        self.num_buffers = 2 if self.spec.is_pixels and num_envs % 2 == 0 else 1
        self.failure: BaseException | None = None
        self._timeout = timeout
        self._send_final_obs = send_final_obs
        self._results: list[EpisodeResult] = []
        self._groups = [
            VectorBatch(
                make,
                name,
                indices.tolist(),
                self.spec,
                self._results,
                seed=seed,
                options=options,
                asynchronous=asynchronous,
                send_final_obs=send_final_obs,
            )
            for indices in np.split(np.arange(num_envs), self.num_buffers)
        ]
        # A call that hangs in a separate thread can be abandoned.
        self._thread: DaemonThread | None = None
        self._begun: Future[Any] | None = None
        self._stepping: list[Future[TimeStep] | None] = [None] * self.num_buffers
        self._newest: list[Any] = [None] * self.num_buffers
        logging.getLogger("jax._src.callback").addFilter(_is_not_ours)

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Starts the next episode in each environment; the key is not used. See `Environment.reset`."""
        return jax.numpy.int32(0), io_callback(self._host_reset, self._shapes(self.num_envs).obs, ordered=True)

    def step(self, env_state: jax.Array, action: jax.Array) -> tuple[jax.Array, TimeStep]:
        """Steps each environment; see `Environment.step`."""
        return env_state + 1, io_callback(self._host_step, self._shapes(self.num_envs), action, ordered=True)

    def send_and_receive(self, env_state: jax.Array, buffer: int, action: jax.Array) -> tuple[jax.Array, TimeStep]:
        """Starts a step of one group and waits for the next group's; see `DoubleBuffered.send_and_receive`."""
        # One callback: a second one would wait for Python's lock until the step that the first one started has ended.
        shapes = self._shapes(self.num_envs // self.num_buffers)
        return env_state + 1, io_callback(partial(self._host_send_and_receive, buffer), shapes, action, ordered=True)

    def receive(self, env_state: jax.Array, buffer: int) -> tuple[jax.Array, TimeStep]:
        """The result of a group's newest step; see `DoubleBuffered.receive`."""
        shapes = self._shapes(self.num_envs // self.num_buffers)
        return env_state, io_callback(partial(self._host_receive, buffer), shapes, ordered=True)

    def pop_episode_results(self, episode: EpisodeStats | None = None) -> list[EpisodeResult]:
        """Results of the episodes that ended since the last call, as the environments reported them."""
        results = self._results.copy()
        self._results.clear()
        return results

    def snapshot(self) -> dict[str, Any]:
        """The number of episodes started in each environment, and the actions since the last one's start."""
        actions = [taken for group in self._groups for taken in group.actions() or ()]
        return {"episodes": np.concatenate([group.episodes for group in self._groups]).tolist(), "actions": actions}

    def restore(self, snapshot: dict[str, Any]) -> np.ndarray | None:
        """Restarts the episodes that were interrupted and repeats their actions; see `Environment.restore`.

        If that fails, or no episode was interrupted, only their count is restored: the next `reset` starts new ones.
        """
        self.close()
        self.failure = None
        for group, episodes in zip(self._groups, self._split(np.asarray(snapshot["episodes"], np.int64)), strict=True):
            group.episodes = episodes.copy()
        space = self.spec.action
        actions = [np.array(taken, space.dtype).reshape(-1, space.num_columns) for taken in snapshot.get("actions", ())]
        if not actions:
            return None
        size = self.num_envs // self.num_buffers

        def replay() -> list[TimeStep]:
            return [group.replay(actions[i * size : (i + 1) * size]) for i, group in enumerate(self._groups)]

        try:
            self._newest = self._wait_for(self._begin(replay), timeout=None)
        except Exception as error:  # of any kind: these actions did not raise it before
            self.failure = error
            return self.restore(snapshot | {"actions": ()})
        return np.concatenate([step.obs for step in self._newest])

    def close(self) -> None:
        """Ends worker processes and frees the environments."""
        stepping = self._begun is not None and not self._begun.done()
        self._begun = None
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()
        self._stepping = [None] * self.num_buffers
        for group in self._groups:
            group.close(failed=self.failure is not None, stepping=stepping)

    def _shapes(self, n: int) -> Any:
        """Shapes of the `TimeStep` of n environments."""
        obs = jax.ShapeDtypeStruct((n, *self.spec.obs_shape), self.spec.obs_dtype)
        flag, number = jax.ShapeDtypeStruct((n,), np.bool_), jax.ShapeDtypeStruct((n,), np.float32)
        return _HostTimeStep(
            obs=obs,
            reward=number,
            terminated=flag,
            truncated=flag,
            final_obs=obs if self._send_final_obs else None,
            episode=_HostEpisodeStats(
                done=flag, episode_return=number, episode_length=jax.ShapeDtypeStruct((n,), np.int32)
            ),
        )

    def _split(self, x: np.ndarray) -> list[np.ndarray]:
        return np.split(x, self.num_buffers)

    def _host_reset(self) -> np.ndarray:
        def reset() -> np.ndarray:
            for i in range(self.num_buffers):
                self._take(i)
            for group in self._groups:
                self._wait_for(self._begin(group.make), timeout=None)
            self._newest = self._wait_for(self._begin(lambda: [group.reset() for group in self._groups]))
            self._results.clear()
            return np.concatenate([step.obs for step in self._newest])

        return self._guard(reset)

    def _host_step(self, action: jax.Array) -> TimeStep:
        # A copy: the program may use the memory again.
        actions = self._split(np.array(action))

        def step() -> TimeStep:
            taken = zip(self._groups, actions, strict=True)
            self._newest = self._wait_for(self._begin(lambda: [group.step(given) for group, given in taken]))
            return jax.tree.map(lambda *leaves: np.concatenate(leaves), *self._newest)

        return self._guard(step)

    def _host_send_and_receive(self, buffer: int, action: jax.Array) -> TimeStep:
        def send_and_receive() -> TimeStep:
            # A copy: the program may use the memory again while the thread reads it.
            self._stepping[buffer] = self._begin(partial(self._groups[buffer].step, np.array(action)))
            return self._take((buffer + 1) % self.num_buffers)

        return self._guard(send_and_receive)

    def _host_receive(self, buffer: int) -> TimeStep:
        return self._guard(partial(self._take, buffer))

    def _take(self, buffer: int) -> Any:
        stepping, self._stepping[buffer] = self._stepping[buffer], None
        if stepping is not None:
            self._newest[buffer] = self._wait_for(stepping)
        return self._newest[buffer]

    def _begin(self, call: Callable[[], Any]) -> Future[Any]:
        if self._thread is None:
            self._thread = DaemonThread("environments")
        self._begun = self._thread.submit(call)
        return self._begun

    def _wait_for(self, future: Future[Any], timeout: float | None = math.inf) -> Any:
        """The result of a call, for which by default it waits `--env_timeout` seconds."""
        timeout = self._timeout if timeout == math.inf else timeout
        done, _ = concurrent.futures.wait([future], timeout)
        if not done:  # again, because a process that was stopped and continued sees that time has passed
            done, _ = concurrent.futures.wait([future], _A_MOMENT)
        if done:
            return future.result()
        assert timeout is not None
        failures = (group.hanging(timeout) for group in self._groups)
        raise next(filter(None, failures), EnvironmentFailure("the environments hang"))

    def _guard(self, call: Callable[[], Any]) -> Any:
        # JAX turns an exception into one of its own, with a traceback; `original_errors` raises the first one instead.
        if self.failure is not None:
            raise self.failure
        try:
            return call()
        except (EnvironmentFailure, KeyboardInterrupt, SystemExit) as failure:
            self.failure = failure
            raise
        except Exception as error:
            self.failure = EnvironmentFailure(self._explain(error))
            raise self.failure from error

    def _explain(self, error: Exception) -> str:
        if isinstance(error, EOFError | ConnectionError):
            dead = next(filter(None, (group.dead() for group in self._groups)), None)
            if dead is not None:
                return str(dead)
        return "the environments failed: " + " ".join(f"{type(error).__name__} {error}".split())


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Filters out JAX's log of an `EnvironmentFailure`, which the caller reports in one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], EnvironmentFailure | KeyboardInterrupt))


@cache
def _warn_of_unread(name: str, options: str) -> None:
    line = f"warning: --env_options: {name} did not read {options} in its reset; it may have no such option"
    print(printable(line), file=sys.stderr)


def _inspect(
    make: EnvFactory, seed: int, options: dict[str, Any] | None, max_episode_steps: int | None
) -> tuple[str, EnvSpec]:
    """Makes one environment, resets it with the run's options, and returns its name and `EnvSpec`."""
    env = make()
    watched = WatchedOptions(options or {})
    wrapped = EpisodeWrapper(env, seed, 0, watched)
    try:
        name = env_name(env)
        action = read_action_space(name, env.action_space)
        shape, dtype = read_observation_space(name, env.observation_space)
        try:
            wrapped.reset()
        except EnvironmentFailure as error:
            if options:
                cause = error.__cause__ or error
                reason = " ".join(f"{type(cause).__name__}: {cause}".split())
                raise ConfigError(
                    f"--env_options {brief(options)}: {name} can't be reset with them ({reason})"
                ) from error
            raise
        if watched.unread:
            _warn_of_unread(name, ", ".join(sorted(watched.unread)))
        limits = (
            max_episode_steps,
            env.spec.max_episode_steps if env.spec else None,
            getattr(env.unwrapped, "max_episode_steps", None),
        )
        limit = next((n for n in limits if n is not None and n > 0), ENDLESS_MAX_EPISODE_STEPS)
        return name, EnvSpec(shape, dtype, action, int(limit))
    finally:
        wrapped.close()
