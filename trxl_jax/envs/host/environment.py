"""Gymnasium environments on the host, stepped as a batch from inside compiled programs by `io_callback`."""

import concurrent.futures
import logging
import math
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import gymnasium
import jax
import numpy as np
from jax.experimental import io_callback

from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS, IMAGE_SHAPE, EnvSpec, EpisodeStats, TimeStep
from trxl_jax.envs.host.episode import EpisodeWrapper, env_name
from trxl_jax.envs.host.thread import DaemonThread
from trxl_jax.envs.host.vector import EnvFactory, VectorBatch
from trxl_jax.errors import ConfigError, EnvironmentFailure

_A_MOMENT = 1.0  # seconds

# The same trees as on the device, of shapes.
_HostTimeStep: Any = TimeStep
_HostEpisodeStats: Any = EpisodeStats


class HostEnvironment:
    """N Gymnasium environments behind ordered callbacks.

    The state is a counter of steps, passed through so that calls keep their order. Callbacks work in NumPy only.

    Pictures take long to draw: environments that draw them are of two parts where N is even. A thread steps one while
    the agent acts in the other, which changes nothing but the rounding of products of other sizes.

    Args:
        make: makes one environment.
        num_envs: N.
        seed: the run's seed; every episode's own is derived from it, its index and its number.
        options: reset options of every episode.
        max_episode_steps: E; None asks the environment.
        asynchronous: one process for each environment.
        timeout: seconds after which a step or a reset of the batch is taken to hang; None: never.
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
        self.num_parts = 2 if len(self.spec.obs_shape) > 1 and num_envs % 2 == 0 else 1
        self.failure: BaseException | None = None
        self._timeout = timeout
        self._send_final_obs = send_final_obs
        self._results: list[dict[str, float]] = []
        self._parts = [
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
            for indices in np.split(np.arange(num_envs), self.num_parts)
        ]
        # What hangs in a thread of its own can be given up.
        self._thread: DaemonThread | None = None
        self._begun: Future[Any] | None = None
        self._stepping: list[Future[TimeStep] | None] = [None] * self.num_parts
        self._newest: list[Any] = [None] * self.num_parts
        logging.getLogger("jax._src.callback").addFilter(_is_not_ours)

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Starts the next episode in each environment; the key is not used. See `Environment.reset`."""
        return jax.numpy.int32(0), io_callback(self._host_reset, self._shapes(self.num_envs).obs, ordered=True)

    def step(self, env_state: jax.Array, action: jax.Array) -> tuple[jax.Array, TimeStep]:
        """Steps each environment; see `Environment.step`."""
        return env_state + 1, io_callback(self._host_step, self._shapes(self.num_envs), action, ordered=True)

    def exchange(self, env_state: jax.Array, part: int, action: jax.Array) -> tuple[jax.Array, TimeStep]:
        """Begins a step of one part and waits for the next one's; see `InParts.exchange`."""
        # One callback: a second one would wait for Python's lock until the step that the first began has ended.
        shapes = self._shapes(self.num_envs // self.num_parts)
        return env_state + 1, io_callback(partial(self._host_exchange, part), shapes, action, ordered=True)

    def receive(self, env_state: jax.Array, part: int) -> tuple[jax.Array, TimeStep]:
        """What came of a part's newest step; see `InParts.receive`."""
        shapes = self._shapes(self.num_envs // self.num_parts)
        return env_state, io_callback(partial(self._host_receive, part), shapes, ordered=True)

    def drain_results(self) -> list[dict[str, float]]:
        """Numbers of the episodes that ended since the last call: r, l, t and the environment's own."""
        results = self._results.copy()
        self._results.clear()
        return results

    def snapshot(self) -> dict[str, Any]:
        """The number of episodes started in each environment, and the actions since the last one's start."""
        actions = [taken for part in self._parts for taken in part.actions() or ()]
        return {"episodes": np.concatenate([part.episodes for part in self._parts]).tolist(), "actions": actions}

    def restore(self, snapshot: dict[str, Any]) -> np.ndarray | None:
        """Begins the episodes that were going on again and plays their actions; see `Environment.restore`.

        Where that fails, or nothing was going on, counting goes on, so that the next `reset` starts new episodes.
        """
        self.close()
        self.failure = None
        for part, episodes in zip(self._parts, self._of_parts(np.asarray(snapshot["episodes"], np.int64)), strict=True):
            part.episodes = episodes.copy()
        branches = len(self.spec.action_nvec)
        actions = [np.array(taken, np.int32).reshape(-1, branches) for taken in snapshot.get("actions", ())]
        if not actions:
            return None
        size = self.num_envs // self.num_parts

        def replay() -> list[TimeStep]:
            return [part.replay(actions[i * size : (i + 1) * size]) for i, part in enumerate(self._parts)]

        try:
            self._newest = self._wait_for(self._begin(replay), timeout=None)
        except Exception as error:  # whatever it is, it didn't come of these actions before
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
        self._stepping = [None] * self.num_parts
        for part in self._parts:
            part.close(failed=self.failure is not None, stepping=stepping)

    def _shapes(self, n: int) -> Any:
        """Of the `TimeStep` of n environments."""
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

    def _of_parts(self, x: np.ndarray) -> list[np.ndarray]:
        return np.split(x, self.num_parts)

    def _host_reset(self) -> np.ndarray:
        def reset() -> np.ndarray:
            for i in range(self.num_parts):
                self._take(i)
            for part in self._parts:
                self._wait_for(self._begin(part.make), timeout=None)
            self._newest = self._wait_for(self._begin(lambda: [part.reset() for part in self._parts]))
            self._results.clear()
            return np.concatenate([step.obs for step in self._newest])

        return self._guard(reset)

    def _host_step(self, action: jax.Array) -> TimeStep:
        # A copy: the program may use the memory again.
        part_actions = self._of_parts(np.array(action))

        def step() -> TimeStep:
            taken = zip(self._parts, part_actions, strict=True)
            self._newest = self._wait_for(self._begin(lambda: [part.step(part_action) for part, part_action in taken]))
            return jax.tree.map(lambda *leaves: np.concatenate(leaves), *self._newest)

        return self._guard(step)

    def _host_exchange(self, part: int, action: jax.Array) -> TimeStep:
        def exchange() -> TimeStep:
            # A copy: the program may use the memory again while the thread reads it.
            self._stepping[part] = self._begin(partial(self._parts[part].step, np.array(action)))
            return self._take((part + 1) % self.num_parts)

        return self._guard(exchange)

    def _host_receive(self, part: int) -> TimeStep:
        return self._guard(partial(self._take, part))

    def _take(self, part: int) -> Any:
        stepping, self._stepping[part] = self._stepping[part], None
        if stepping is not None:
            self._newest[part] = self._wait_for(stepping)
        return self._newest[part]

    def _begin(self, call: Callable[[], Any]) -> Future[Any]:
        if self._thread is None:
            self._thread = DaemonThread("environments")
        self._begun = self._thread.submit(call)
        return self._begun

    def _wait_for(self, future: Future[Any], timeout: float | None = math.inf) -> Any:
        """Its result; by default it may take `--env_timeout` seconds."""
        timeout = self._timeout if timeout == math.inf else timeout
        done, _ = concurrent.futures.wait([future], timeout)
        if not done:  # once more, because a process that was stopped and goes on finds that time has passed
            done, _ = concurrent.futures.wait([future], _A_MOMENT)
        if done:
            return future.result()
        assert timeout is not None
        failures = (part.hanging(timeout) for part in self._parts)
        raise next(filter(None, failures), EnvironmentFailure("the environments hang"))

    def _guard(self, call: Callable[[], Any]) -> Any:
        # JAX turns an exception into its own, with a traceback; the first one is kept for whoever catches that.
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
            dead = next(filter(None, (part.dead() for part in self._parts)), None)
            if dead is not None:
                return str(dead)
        return "the environments failed: " + " ".join(f"{type(error).__name__} {error}".split())


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Drops JAX's log of an `EnvironmentFailure`, which the caller reports in one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], EnvironmentFailure | KeyboardInterrupt))


def _inspect(
    make: EnvFactory, seed: int, options: dict[str, Any] | None, max_episode_steps: int | None
) -> tuple[str, EnvSpec]:
    """Makes one environment, resets it with the run's options and reads its name and what the agent must know of it."""
    env = make()
    wrapped = EpisodeWrapper(env, seed, 0, options)
    try:
        name = env_name(env)
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
        return name, EnvSpec(shape, dtype, nvec, int(limit))
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
