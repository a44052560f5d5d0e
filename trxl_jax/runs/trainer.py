"""The training loop: run `train_step`, log, evaluate, checkpoint, resume."""

import json
import os
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.config import AUTO, RESUMABLE_FIELDS, Config, load_config
from trxl_jax.envs.base import Environment, original_errors
from trxl_jax.envs.registry import CUSTOM_PREFIX, make_env, require_no_import
from trxl_jax.errors import CheckpointError, ConfigError, Divergence, EnvironmentFailure, UserError, disk_errors
from trxl_jax.files import write_text_atomically
from trxl_jax.play.policy import Policy
from trxl_jax.ppo.rollout import init_rollout_state
from trxl_jax.ppo.train_step import (
    TrainStep,
    compile_train_step,
    init_states,
    iteration_keys,
    make_collect_and_learn,
)
from trxl_jax.runs import checkpoint
from trxl_jax.runs.best import BestCheckpoint
from trxl_jax.runs.debug import checked_train_step, write_rollout
from trxl_jax.runs.directory import LOCK, own_directory
from trxl_jax.runs.logger import Logger
from trxl_jax.runs.monitor import Monitor
from trxl_jax.runs.progress import opening_lines
from trxl_jax.runs.recent_episodes import RecentEpisodes
from trxl_jax.runs.update_checks import check_update
from trxl_jax.signals import StopSignals, stop_signals

# Of an update; `--debug` raises the last two. The state with which it began is worth keeping, even that of the start.
_NUMERIC_ERRORS = (Divergence, FloatingPointError, AssertionError)


class RunResult(NamedTuple):
    """How a run ended.

    Fields:
        run_dir: where it is.
        global_step: environment steps done.
        metrics: the last row; of a run that had nothing to do, the means over its last episodes.
        signal: the signal that stopped it early, or None.
        num_episodes: number of episodes over which `episode/*_mean` in `metrics` are taken.
    """

    run_dir: Path
    global_step: int
    metrics: dict[str, float]
    signal: int | None
    num_episodes: int = 0


def train(
    config: Config, *, env: Any = None, resume: str | Path | None = None, allow_import: bool = False
) -> RunResult:
    """Trains to `config.total_timesteps`, or until SIGINT, SIGTERM or SIGHUP.

    During the loop a signal only sets a flag, which is read between updates: a program with host callbacks blocks its
    caller.

    Args:
        config: the run's configuration.
        env: an environment object to use instead of `config.env_id`; see `make_env`.
        resume: a run directory to continue; `config` may differ from it in `RESUMABLE_FIELDS` only. `"auto"`
            continues the run in `config.run_dir` if there is one, and else starts it.
        allow_import: with a directory as `resume`, whether to import the module of an `env_id` such as `module:id`,
            which a file may have chosen.

    Raises:
        UserError: bad input, an environment that failed or a disk that is full; what could be saved has been.
    """
    if env is not None:  # so that `--resume` can't mistake a registered task of that name for it
        config = config.replace(env_id=f"{CUSTOM_PREFIX}{getattr(env, '__name__', type(env).__name__)}")
    elif resume is not None and str(resume) != AUTO:
        require_no_import(config, allow_import=allow_import)
    with (
        stop_signals() as stop,
        jax.debug_nans(True) if config.debug else nullcontext(),
        own_directory(config, resume) as directory,
    ):
        batch = make_env(config, env)
        try:
            monitor = Monitor(config, env, directory.path / "videos")
            with original_errors(batch):
                run = _Run(config, batch, directory.path, resumed=directory.resumed)
            run.start_logger()
            try:
                return run.loop(monitor, stop)
            finally:
                run.logger.close()
                monitor.close()
        finally:
            batch.close()


def write_start(config: Config, env: Environment, params: Any) -> Path:
    """Writes a run without updates and with given parameters, for `train(..., resume=...)` to continue.

    The optimiser's state is fresh, and the environments are at the start of their first episodes.

    Args:
        config: the run's configuration; `run_dir`, if given, is a new or an empty directory.
        env: `make_env(config)`.
        params: the agent's variables.

    Returns:
        The run's directory.

    Raises:
        UserError: a directory that holds something, an environment that failed or a disk that is full.
    """
    with own_directory(config, None) as directory:
        if {path.name for path in directory.path.iterdir()} != {LOCK}:
            raise ConfigError(f"--run_dir {directory.path}: it is not empty; name a new directory")
        with original_errors(env):
            run = _Run(config, env, directory.path, params=params)
        run.save()
    return directory.path


class _Run:
    """The state of a run: agent, environments, counters, directory."""

    logger: Logger

    def __init__(
        self, config: Config, env: Environment, run_dir: Path, *, resumed: bool = False, params: Any = None
    ) -> None:
        self.run_dir = run_dir
        self.env = env
        self.notes: list[str] = []
        self.config = self._fit(config, resumed)
        self.agent = make_agent(self.config, env.spec)
        init_key, self.key = jax.random.split(jax.random.key(config.seed))
        start = partial(init_states, self.config, env, self.agent, init_key, params=params)
        # To read a checkpoint only shapes are needed, no environment that starts.
        newest = checkpoint.latest(self.checkpoints) if resumed else None
        states = _blank(jax.eval_shape(start)) if newest else start()
        self.train_state, self.rollout_state = jax.block_until_ready(states)
        self.episodes = RecentEpisodes()
        self.iteration = 0
        self.saved: int | None = None
        self.row: dict[str, float] = {}
        if newest:
            self._restore(newest)
        elif resumed:
            self.notes.append(f"no checkpoint in {run_dir}: the run starts from the beginning")
        self.env_snapshot = env.snapshot()
        self.best = BestCheckpoint(run_dir / "best", resumed=resumed) if self.config.keep_best else None
        with disk_errors(self.run_dir, "--run_dir"):
            write_text_atomically(self.run_dir / "spec.json", json.dumps(env.spec.to_json(), indent=2) + "\n")
            write_text_atomically(self.run_dir / "config.json", self.config.to_json())

    @property
    def checkpoints(self) -> Path:
        return self.run_dir / "checkpoints"

    @property
    def global_step(self) -> int:
        return self.iteration * self.config.batch_size

    def _fit(self, config: Config, resumed: bool) -> Config:
        """The configuration fitted to this environment, which is what `config.json` holds."""
        fitted = config.fitted_to(self.env.spec.max_episode_steps)
        window = fitted.trxl_memory_length
        if window < config.trxl_memory_length and config.core in ("trxl", "gtrxl"):
            self.notes.append(
                f"--trxl_memory_length {config.trxl_memory_length} is cut to {window}, the task's longest episode"
            )
        if resumed:
            _check_same_run(fitted, load_config(self.run_dir / "config.json"), self.run_dir)
        return fitted

    def _restore(self, newest: Path) -> None:
        states, run = checkpoint.restore(newest, (self.train_state, self.rollout_state))
        self.train_state, self.rollout_state = states
        try:
            self.iteration = self.saved = int(newest.name)
            if run["iteration"] != self.iteration:
                raise ValueError("they are of another update")
            self.episodes = RecentEpisodes(run["episodes"])
            self.row = self.episodes.means()
            put_back = self._put_back(run["env"])
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            reason = f"its counters are damaged ({type(error).__name__}: {error})"
            raise CheckpointError(
                f"can't read checkpoint {newest}: {reason}; remove it to use an earlier one"
            ) from None
        self.notes.append(f"resumed from {newest} at step {self.global_step:,}")
        cores = run.get("cores", num_cores())  # version 0.1.0 kept no count
        if cores != num_cores() and jax.default_backend() == "cpu":
            self.notes.append(
                f"warning: the run had {cores} cores and now has {num_cores()}, so that sums may round differently; "
                "it may differ from one that was never interrupted"
            )
        if not put_back:
            fresh = init_rollout_state(self.env, self.agent, self.key)
            self.rollout_state = jax.block_until_ready(fresh)
            self.notes.append(
                "warning: the environments could not be put back into their episodes by the same seeds and actions; "
                "they start new episodes, and the run differs from one that was never interrupted"
            )

    def start_logger(self) -> None:
        """Opens the logger and prints the notes of the start."""
        with disk_errors(self.run_dir, "--run_dir"):
            self.logger = Logger(self.run_dir, self.config, self.iteration)
        for line in (*opening_lines(self.config, self.run_dir, self.train_state.params, self.env), *self.notes):
            self.logger.say(line)

    def loop(self, monitor: Monitor, stop: StopSignals) -> RunResult:
        """Trains to the end or until a signal. After an error the state before it is saved."""
        stop.deferred = True
        try:
            self._train(monitor, stop)
        except CheckpointError:
            raise
        except UserError as error:
            raise type(error)(f"{error}; {self._save_after(error)}") from error
        except Exception as error:  # a fault of ours or of --debug's checks, whose traceback shows where
            error.add_note(self._save_after(error))
            raise
        unfinished = self.iteration < self.config.num_iterations
        received = stop.received[0] if stop and unfinished else None
        return RunResult(self.run_dir, self.global_step, self.row, received, len(self.episodes.results))

    def _train(self, monitor: Monitor, stop: StopSignals) -> None:
        self._watch(monitor, stop)  # makes up for what an interrupted session left out
        if self.iteration < self.config.num_iterations:
            train_step = self._compile()
        while self.iteration < self.config.num_iterations and not stop:
            self._iterate(train_step)
            self._watch(monitor, stop)
            every = self.config.save_every
            if every and self.iteration % every == 0:
                self.save()
        self.save()

    def _compile(self) -> TrainStep:
        self.logger.say("compiling, which can take a minute")
        started = time.perf_counter()
        states = (self.train_state, self.rollout_state)
        if self.config.debug:
            collect, learn = make_collect_and_learn(self.config, self.env, self.agent)
            self.logger.say("debug: every result is checked, which is slow")
            return checked_train_step(jax.jit(collect), jax.jit(learn), self.env.spec)
        train_step = compile_train_step(self.config, self.env, self.agent, states, self.key)
        self.logger.say(f"compiled in {time.perf_counter() - started:.0f} s")
        return train_step

    def _iterate(self, train_step: TrainStep) -> None:
        """Does an update and logs it."""
        started = time.perf_counter()
        try:
            with original_errors(self.env):
                states = train_step(self.train_state, self.rollout_state, self.key)
                train_state, rollout_state, output = jax.block_until_ready(states)
            check_update(output.metrics, train_state.params, self.iteration + 1, self.config)
        except Divergence as error:
            raise Divergence(f"{error}; {self._write_rollout()}") from None
        self.train_state, self.rollout_state = train_state, rollout_state
        seconds = time.perf_counter() - started
        self.iteration += 1
        self.env_snapshot = self.env.snapshot()
        # By the mean time of a step: a clock would count compiling, evaluations and saves that an episode goes through.
        seconds_per_step = seconds / self.config.num_steps
        for result in self.env.pop_episode_results(output.episode):
            self.episodes.results.append(result | {"t": result["l"] * seconds_per_step})
        self.row = self.episodes.means() | {name: float(value) for name, value in output.metrics.items()}
        self.row["charts/SPS"] = self.config.batch_size / seconds
        with disk_errors(self.run_dir, "--run_dir"):
            self.logger.write(self.global_step, self.iteration, self.row)

    def _watch(self, monitor: Monitor, stop: StopSignals) -> None:
        """Evaluates and films the agent if that is due and not done yet, and logs it."""
        if self.iteration == 0:
            return
        policy = Policy(params=self.train_state.params, agent=self.agent, config=self.config)
        evaluation = {} if self.logger.has_evaluation else monitor.evaluate(policy, self.iteration, stop)
        with disk_errors(self.run_dir, "--run_dir"):
            if evaluation:
                self.row = self.row | evaluation
                if self.best is not None:  # before the row: an evaluation that is not in its row is done again
                    self.best.offer(evaluation, policy.params, self.iteration)
                self.logger.add_to_row(self.global_step, evaluation)
            video = monitor.film(policy, self.iteration, stop)
            if video is not None:
                self.logger.write_video(self.global_step, video)

    def save(self) -> None:
        """Writes a checkpoint of the current state, unless it has been saved already."""
        if self.saved == self.iteration:
            return
        run = {
            "iteration": self.iteration,
            "episodes": list(self.episodes.results),
            "env": self.env_snapshot,
            "cores": num_cores(),
        }
        states = (self.train_state, self.rollout_state)
        path = checkpoint.save(self.checkpoints, self.iteration, states, run, self.config.keep)
        if self.saved is None:  # the first one, in a directory of which nobody knows yet whether it can be read
            checkpoint.check(path)
        self.saved = self.iteration

    def _save_after(self, error: Exception) -> str:
        """Saves the state before an error; returns a clause that names where it is."""
        if self.iteration == 0 and not isinstance(error, _NUMERIC_ERRORS):
            return "no update was done yet"
        try:
            self.save()
        except CheckpointError as failed:
            return f"and {failed}"
        return f"the state before it is in {self.checkpoints / str(self.iteration)}"

    def _write_rollout(self) -> str:
        """Collects the rollout of a failed update a second time; returns a clause that names its file."""
        path = self.run_dir / "post_mortem" / f"{self.iteration + 1}.npz"
        try:
            if not self._put_back(self.env_snapshot):
                raise EnvironmentFailure("the environments could not be put back")
            collect, _ = make_collect_and_learn(self.config, self.env, self.agent)
            rollout_key, _ = iteration_keys(self.key, self.train_state.iteration)
            with original_errors(self.env), disk_errors(self.run_dir, "--run_dir"):
                _, collected = jax.jit(collect)(self.train_state, self.rollout_state, rollout_key)
                write_rollout(path, collected)
        except UserError as failed:
            return f"its rollout could not be collected again: {failed}"
        return f"its rollout is in {path}"

    def _put_back(self, env_snapshot: dict[str, Any]) -> bool:
        """Puts the environments back; returns whether they show the observations with which the next rollout begins."""
        obs = self.env.restore(env_snapshot)
        return not self.env.on_host or (obs is not None and _are_equal(obs, self.rollout_state.obs))


def _are_equal(obs: Any, others: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, obs, others)))


def num_cores() -> int:
    """CPU cores that this process may use, from which XLA takes the number of its threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _blank(shapes: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _check_same_run(config: Config, old: Config, resume: Path) -> None:
    for name, value in vars(config).items():
        if value != getattr(old, name) and name not in RESUMABLE_FIELDS and name != "run_dir":
            raise ConfigError(
                f"--{name} {value}: {resume} was started with {getattr(old, name)}; leave it out, or start a new run"
            )
