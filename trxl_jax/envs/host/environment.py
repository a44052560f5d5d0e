"""Gymnasium environments on the host, stepped as a batch from inside compiled programs by `io_callback`."""

import logging
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import io_callback

from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS, EnvSpec, TimeStep, require_settings
from trxl_jax.envs.host.episode import DEFAULT_RULES, EpisodeRules, env_name, make_wrapped, one_line
from trxl_jax.envs.host.lock_watch import LockWatch
from trxl_jax.envs.host.options import WatchedOptions
from trxl_jax.envs.host.thread import DaemonThread, is_done
from trxl_jax.envs.host.vector import EnvFactory, VectorBatch
from trxl_jax.envs.results import EpisodeResult
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.errors import ConfigError, EnvironmentFailure, UserError, brief, warn_once

# The same trees as on the device, of shapes.
_HostTimeStep: Any = TimeStep
_HostEpisodeStats: Any = EpisodeStats


class HostEnvironment:
    """N Gymnasium environments behind ordered callbacks.

    The state is a counter of steps, which keeps calls in order. Callbacks use NumPy only.

    Environments with pictures are slow. If N is even they are double-buffered: a thread steps one half while
    the agent acts in the other. This changes only the rounding of products, whose sizes differ.

    Args:
        make: makes one environment.
        num_envs: N.
        rules: seed, options and limit of every episode.
        num_positions: E; None: the episodes' limit.
        asynchronous: one process for each environment.
        timeout: seconds after which it counts as hanging if the batch doesn't answer a step or a reset, or if an
            environment can't be made or closed; None: never.
        send_final_obs: return the last observation of ended episodes too.
        first_env: number of the first environment among all of the run.

    Raises:
        ConfigError: spaces that the agent can't take, or options that the environment refuses.
        EnvironmentFailure: the environment can't be made or reset.
    """

    on_host = True

    def __init__(
        self,
        make: EnvFactory,
        num_envs: int,
        rules: EpisodeRules = DEFAULT_RULES,
        *,
        num_positions: int | None = None,
        asynchronous: bool = False,
        timeout: float | None = None,
        send_final_obs: bool = False,
        first_env: int = 0,
    ) -> None:
        self.num_envs = num_envs
        self.failure: BaseException | None = None
        self._timeout = timeout
        self._send_final_obs = send_final_obs
        self._results: list[EpisodeResult] = []
        # A call that hangs in a separate thread can be abandoned.
        self._thread: DaemonThread | None = None
        self._watch: LockWatch | None = None
        self._begun: Future[Any] | None = None
        self._groups: list[VectorBatch] = []
        logging.getLogger("jax._src.callback").addFilter(_is_not_ours)
        try:
            name, self.spec, bounds = self._wait_for(self._begin(partial(_inspect, make, rules, num_positions)))
        finally:
            self._stop_thread()
        self.num_buffers = 2 if self.spec.has_pictures and num_envs % 2 == 0 else 1
        self._stepping: list[Future[TimeStep] | None] = [None] * self.num_buffers
        self._newest: list[Any] = [None] * self.num_buffers
        self._groups = [
            VectorBatch(
                make,
                name,
                indices.tolist(),
                self.spec,
                self._results,
                rules=rules,
                bounds=bounds,
                asynchronous=asynchronous,
                send_final_obs=send_final_obs,
            )
            for indices in np.split(first_env + np.arange(num_envs), self.num_buffers)
        ]

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
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
        """The number of episodes started in each environment, and the actions since the last one's start.

        Also digests of the observations and rewards since then. If one of these episodes is too long to be replayed
        (`history.MAX_REPLAY`), there are no actions.
        """
        snapshot: dict[str, Any] = {"episodes": np.concatenate([group.episodes for group in self._groups]).tolist()}
        actions = [group.actions() for group in self._groups]
        if any(taken is None for taken in actions):
            return snapshot | {"actions": []}
        return snapshot | {
            "actions": [taken for of_group in actions for taken in of_group or ()],
            "digests": [digest for group in self._groups for digest in group.digests()],
        }

    def restore(self, snapshot: dict[str, Any]) -> Any:
        """Restarts the episodes that were interrupted and repeats their actions; see `Environment.restore`.

        If that fails, or no episode was interrupted, only their count is restored: the next `reset` starts new ones.
        It fails if observations or rewards differ from those of the first time, of which digests were kept.
        """
        self.close()
        self.failure = None
        for group, episodes in zip(self._groups, self._split(np.asarray(snapshot["episodes"], np.int64)), strict=True):
            group.episodes = episodes.copy()
        space = self.spec.action
        actions = [np.array(taken, space.dtype).reshape(-1, space.num_columns) for taken in snapshot.get("actions", ())]
        if not actions:
            return None
        digests = snapshot.get("digests")  # version 0.1.0 kept none
        size = self.num_envs // self.num_buffers
        parts = [slice(i * size, (i + 1) * size) for i in range(self.num_buffers)]

        def replay() -> list[TimeStep]:
            played = zip(self._groups, parts, strict=True)
            return [group.replay(actions[part], digests and digests[part]) for group, part in played]

        try:
            for group, part in zip(self._groups, parts, strict=True):
                self._make(group, actions[part])
            self._newest = self._wait_for(self._begin(replay, watched=False), timeout=None)
        except Exception as error:  # of any kind: these actions did not raise it before
            self.failure = error
            return self.restore(snapshot | {"actions": ()})
        return _joined([step.obs for step in self._newest])

    def close(self) -> None:
        """Ends worker processes and frees the environments.

        Nothing is raised, so that what happened before isn't hidden; an environment that hangs is abandoned.
        """
        hangs = self._begun is not None and not self._begun.done()
        try:
            if not hangs:
                self._close_groups()
        finally:
            for group in self._groups:
                group.abandon()
            self._stepping = [None] * self.num_buffers
            self._stop_thread()

    def _close_groups(self) -> None:
        for group in filter(lambda group: group.is_open, self._groups):
            closing = self._begin(group.close)
            if not is_done(closing, self._timeout):
                waited = f"no answer for --env_timeout {self._timeout} seconds"
                warn_once(f"environment {group.unclosed()} hangs in close: {waited}")
                return

    def _stop_thread(self) -> None:
        self._begun = None
        thread, self._thread = self._thread, None
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()
        if thread is not None:
            thread.stop()

    def _shapes(self, n: int) -> Any:
        """Shapes of the `TimeStep` of n environments."""
        obs = self.spec.obs.build(lambda array: jax.ShapeDtypeStruct((n, *array.shape), array.dtype))
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

    def _host_reset(self) -> Any:
        def reset() -> Any:
            for i in range(self.num_buffers):
                self._take(i)
            for group in self._groups:
                if not group.is_made:
                    self._make(group)
            self._require_different()
            self._newest = self._wait_for(self._begin(lambda: [group.reset() for group in self._groups]))
            self._results.clear()
            return _joined([step.obs for step in self._newest])

        return self._guard(reset)

    def _host_step(self, action: jax.Array) -> TimeStep:
        # A copy: the program may use the memory again.
        actions = self._split(np.array(action))

        def step() -> TimeStep:
            taken = zip(self._groups, actions, strict=True)
            self._newest = self._wait_for(self._begin(lambda: [group.step(given) for group, given in taken]))
            return _joined(self._newest)

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

    def _make(self, group: VectorBatch, replay: list[np.ndarray] | None = None) -> None:
        """Makes a group's environments, each of which may take `--env_timeout` seconds."""

        def answered() -> int:
            if self._watch is not None:
                self._watch.go_on()
            return group.answered()

        self._wait_for(self._begin(partial(group.make, replay)), progress=answered)

    def _require_different(self) -> None:
        objects = [env for group in self._groups for env in group.objects]
        if len({id(env) for env in objects}) < len(objects):
            raise EnvironmentFailure("`env` returned the same environment twice; it must make a new one in each call")

    def _begin(self, call: Callable[[], Any], *, watched: bool = True) -> Future[Any]:
        """Starts a call in the thread; if it holds Python's lock for too long, the process is ended."""
        if self._thread is None:
            self._thread = DaemonThread("environments")
        if watched and self._timeout is not None:
            self._watch = self._watch or LockWatch(self._timeout)
            call = partial(self._watch.call, call)
        self._begun = self._thread.submit(call)
        return self._begun

    def _wait_for(
        self, future: Future[Any], timeout: float | None = math.inf, progress: Callable[[], Any] = lambda: None
    ) -> Any:
        """The result of a call, for which by default it waits `--env_timeout` seconds; see `is_done`."""
        timeout = self._timeout if timeout == math.inf else timeout
        if is_done(future, timeout, progress):
            return future.result()
        assert timeout is not None
        if self._watch is not None:
            self._watch.stop()  # the lock is free, or this wouldn't be known
        failures = (group.hanging(timeout) for group in self._groups)
        nameless = f"the environment hangs while it is made and reset: no answer for --env_timeout {timeout:g} seconds"
        raise next(filter(None, failures), EnvironmentFailure(nameless))

    def _guard(self, call: Callable[[], Any]) -> Any:
        # JAX turns an exception into one of its own, with a traceback; `original_errors` raises the first one instead.
        if self.failure is not None:
            raise self.failure
        try:
            result = call()
            require_settings()
            return result
        except (UserError, KeyboardInterrupt) as failure:
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


def _joined(parts: list[Any]) -> Any:
    """Trees of arrays of some environments each as one of all."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Filters out JAX's log of a `UserError`, which the caller reports in one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], UserError | KeyboardInterrupt))


def _limit(value: Any) -> int | None:
    """What an environment gives as its number of steps, which may be infinity, a method or anything else: then None."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer):
        return None
    return int(value) if 1 <= value < 2**31 and value == int(value) else None


def _inspect(
    make: EnvFactory, rules: EpisodeRules, num_positions: int | None
) -> tuple[str, EnvSpec, Mapping[str, tuple[np.ndarray, np.ndarray]]]:
    """Makes one environment and resets it; returns its name, its `EnvSpec`, and the bounds of its observations."""
    watched = WatchedOptions(rules.options or {})
    wrapped = make_wrapped(make, rules._replace(options=watched))
    env = wrapped.env
    try:
        name = env_name(env)
        try:
            wrapped.reset()
        except EnvironmentFailure as error:
            if rules.options:
                what = f"{brief(rules.options)}: {name} can't be reset with them ({one_line(error.__cause__ or error)})"
                raise ConfigError(f"--env_options {what}") from error
            raise
        if watched.unread:
            unread = ", ".join(sorted(watched.unread))
            warn_once(f"--env_options: {name} did not read {unread} in its reset; it may have no such option")
        own = (env.spec.max_episode_steps if env.spec else None, getattr(env.unwrapped, "max_episode_steps", None))
        limit = next(filter(None, map(_limit, own)), None)
        limit = min(filter(None, (limit, rules.max_steps)), default=ENDLESS_MAX_EPISODE_STEPS)
        spec = EnvSpec(wrapped.space, wrapped.native_actions.space, int(num_positions or limit))
        return name, spec, wrapped.bounds
    finally:
        wrapped.close()
