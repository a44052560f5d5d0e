"""One run: its agent and environments, its counters, and what is written into its directory after each update."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.config import RESUMABLE_FIELDS, Config, load_config
from trxl_jax.envs.base import original_errors
from trxl_jax.envs.groups import AnyEnvironment, GroupedEnvironment
from trxl_jax.errors import CheckpointError, ConfigError, Divergence, EnvironmentFailure, UserError, disk_errors
from trxl_jax.files import write_text_atomically
from trxl_jax.play.policy import Policy
from trxl_jax.ppo.many_devices import init_all_states, init_rollouts, local_copy, place
from trxl_jax.ppo.rollout import RolloutState
from trxl_jax.ppo.train_step import TrainOutput, iteration_keys, make_collect_and_learn
from trxl_jax.ppo.update import TrainState
from trxl_jax.runs import checkpoint, processes
from trxl_jax.runs.best import BestCheckpoint
from trxl_jax.runs.debug import write_rollout
from trxl_jax.runs.former_run import forget_former_run
from trxl_jax.runs.logger import Logger
from trxl_jax.runs.monitor import Monitor
from trxl_jax.runs.recent_episodes import RecentEpisodes
from trxl_jax.runs.states import blank, blank_of_all, gather_states, own_part
from trxl_jax.runs.update_checks import check_update
from trxl_jax.signals import StopSignals

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
        seed: its configuration's.
    """

    run_dir: Path
    global_step: int
    metrics: dict[str, float]
    signal: int | None
    num_episodes: int
    seed: int


class Run:
    """The state of a run: agent, environments, counters, directory.

    Args:
        config: its configuration.
        env: `make_env(config)`. On the device environments are pure functions, which several runs may share.
        run_dir: its directory, which this process owns.
        resumed: whether it continues what is in the directory.
        params: variables of the agent that take the place of fresh ones.
        num_seeds: runs that train side by side; 1 means that it is alone.
        checkpoints: the directory of its checkpoints, if it isn't that of its name in `run_dir`.

    Fields:
        config: the configuration, fitted to the task.
        checkpoints: the directory of its checkpoints.
        train_state, rollout_state: after the newest update.
        key: key[], the run's; each update folds its number in.
        iteration: updates done.
        row: the newest metrics.
        notes: what its user should know of its start, a line each.
    """

    _logger: Logger
    _monitor: Monitor

    def __init__(
        self,
        config: Config,
        env: AnyEnvironment,
        run_dir: Path,
        *,
        resumed: bool = False,
        params: Any = None,
        num_seeds: int = 1,
        checkpoints: Path | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.checkpoints = checkpoints or run_dir / "checkpoints"
        self.env = env
        self._num_seeds = num_seeds
        self.notes: list[str] = []
        self.config = self._fit(config, resumed)
        self.agent = make_agent(self.config, env.spec)
        init_key, self.key = jax.random.split(jax.random.key(config.seed))
        start = partial(init_all_states, env, self.agent, init_key, params=params)
        # To read a checkpoint only shapes are needed, no environment that starts.
        newest = checkpoint.latest(self.checkpoints) if resumed else None
        states = blank(jax.eval_shape(start)) if newest else start()
        self.train_state, self.rollout_state = jax.block_until_ready(states)
        self._place()
        self.episodes = RecentEpisodes()
        self.iteration = 0
        self._saved: int | None = None
        self.row: dict[str, float] = {}
        if newest:
            self._restore(newest)
        elif resumed:
            self.notes.append(f"no checkpoint in {run_dir}: the run starts from the beginning")
        self._env_snapshot = env.snapshot()
        with disk_errors(self.run_dir, "--run_dir"):
            if not resumed:
                forget_former_run(run_dir)
            write_text_atomically(self.run_dir / "spec.json", json.dumps(env.spec.to_json(), indent=2) + "\n")
            write_text_atomically(self.run_dir / "config.json", self.config.to_json())
        self._best = BestCheckpoint(run_dir / "best") if self.config.keep_best else None

    @property
    def global_step(self) -> int:
        """Environment steps done."""
        return self.iteration * self.config.batch_size

    @property
    def is_finished(self) -> bool:
        """Whether all its updates are done."""
        return self.iteration >= self.config.num_iterations

    def _fit(self, config: Config, resumed: bool) -> Config:
        """The configuration fitted to this environment, which is what `config.json` holds."""
        fitted = config.fitted_to(self.env.spec.max_episode_steps)
        window = fitted.trxl_memory_length
        if window < config.trxl_memory_length and config.core in ("trxl", "gtrxl"):
            self.notes.append(
                f"--trxl_memory_length {config.trxl_memory_length} is cut to {window}, the number of positions: "
                "the task's longest episode (1,024 if it has no limit), or --trxl_num_positions"
            )
        if resumed:
            directory = self.checkpoints.parent
            _check_same_run(fitted, load_config(directory / "config.json"), directory)
        return fitted

    def _restore(self, newest: Path) -> None:
        if checkpoint.is_published(newest):
            raise CheckpointError(f"{newest} is a published agent without its training; play it with enjoy.py")
        target = blank_of_all((self.train_state, self.rollout_state), self.env)
        states, run = checkpoint.restore(newest, target)
        self.train_state, self.rollout_state = own_part(states, self.env)
        self._place()
        try:
            self.iteration = self._saved = int(newest.name)
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
        before = run.get("num_seeds", 1)
        if before != self._num_seeds and self.agent.numerics.platform != "cpu":  # see `compile_seeds_step`
            self.notes.append(
                f"warning: the run was trained {_company(before)} and now is {_company(self._num_seeds)}, so that sums "
                "may round differently; it may differ from one that was never interrupted"
            )
        if not put_back:
            self.rollout_state = jax.block_until_ready(init_rollouts(self.env, self.agent, self.key))
            self._place()
            self.notes.append(
                "warning: the environments could not be put back into their episodes by the same seeds and actions; "
                "they start new episodes, and the run differs from one that was never interrupted"
            )

    def open(self, monitor: Monitor) -> None:
        """Opens the files to which its metrics go; `monitor` evaluates and films its agent."""
        self._monitor = monitor
        with disk_errors(self.run_dir, "--run_dir"):
            self._logger = Logger(self.run_dir, self.config, self.iteration)
        self.notes += self._logger.warnings

    def close(self) -> None:
        """Closes them."""
        self._logger.close()

    def take(self, result: tuple[TrainState, RolloutState, TrainOutput], seconds: float) -> None:
        """Takes over the result of an update, if there is nothing wrong with it, and logs it.

        Args:
            result: what the train step returned.
            seconds: how long it took.

        Raises:
            UserError: a number is not finite, there were no valid actions, or the row can't be written.
        """
        train_state, rollout_state, output = result
        try:
            check_update(output.metrics, train_state.params, self.iteration + 1, self.config)
        except Divergence as error:
            raise Divergence(f"{error}; {self._write_rollout()}") from None
        self.train_state, self.rollout_state = train_state, rollout_state
        self.iteration += 1
        self._env_snapshot = self.env.snapshot()
        # By the mean time of a step: a clock would count compiling, evaluations and saves that an episode goes through.
        seconds_per_step = seconds / self.config.num_steps
        for episode in self.env.pop_episode_results(output.episode):
            self.episodes.results.append(episode | {"t": episode["l"] * seconds_per_step})
        self.row = self.episodes.means() | {name: float(value) for name, value in output.metrics.items()}
        self.row["charts/SPS"] = self.config.batch_size / seconds
        with disk_errors(self.run_dir, "--run_dir"):
            self._logger.write(self.global_step, self.iteration, self.row)

    def watch(self, stop: StopSignals) -> None:
        """Evaluates and films the agent if that is due and not done yet, and logs it."""
        if self.iteration == 0:
            return
        params = self.train_state.params
        params = local_copy(params) if isinstance(self.env, GroupedEnvironment) else params
        policy = Policy(params=params, agent=self.agent, config=self.config)
        evaluation = {} if self._logger.has_evaluation else self._monitor.evaluate(policy, self.iteration, stop)
        with disk_errors(self.run_dir, "--run_dir"):
            if evaluation:
                self.row = self.row | evaluation
                if self._best is not None:  # before the row: an evaluation that is not in its row is done again
                    self._best.offer(evaluation, policy.params, self.iteration)
                self._logger.add_to_row(self.global_step, evaluation)
            video = self._monitor.film(policy, self.iteration, stop)
            if video is not None:
                self._logger.write_video(self.global_step, video)

    def save(self) -> None:
        """Writes a checkpoint of the current state, unless it has been saved already.

        Raises:
            CheckpointError: it can't be written.
        """
        if self._saved == self.iteration:
            return
        snapshot = self._env_snapshot
        run = {
            "iteration": self.iteration,
            "episodes": list(self.episodes.results),
            "env": self.env.gather_snapshots(snapshot) if isinstance(self.env, GroupedEnvironment) else snapshot,
            "cores": num_cores(),
            "num_seeds": self._num_seeds,
        }
        states = gather_states((self.train_state, self.rollout_state))
        if not processes.is_leader():
            self._saved = self.iteration
            return
        self._sync_rows()
        path = checkpoint.save(self.checkpoints, self.iteration, states, run, self.config.keep)
        if self._saved is None:  # the first one, in a directory of which nobody knows yet whether it can be read
            checkpoint.check(path)
        self._saved = self.iteration

    def _sync_rows(self) -> None:
        """A loss of power must not leave a checkpoint without the rows before it."""
        if self.iteration == 0:
            return
        try:
            self._logger.sync()
        except OSError as error:
            raise CheckpointError(f"can't write {self.run_dir / 'metrics.jsonl'}: {error.strerror}") from None

    def save_after(self, error: Exception) -> str:
        """Saves the state before an error; returns a clause that names where it is."""
        if self.iteration == 0 and not isinstance(error, _NUMERIC_ERRORS):
            return "no update was done yet"
        if jax.process_count() > 1 and not isinstance(error, Divergence):  # which all processes see
            return f"the newest checkpoint is {checkpoint.latest(self.checkpoints) or 'missing'}"
        try:
            self.save()
        except CheckpointError as failed:
            return f"and {failed}"
        return f"the state before it is in {self.checkpoints / str(self.iteration)}"

    def result(self, received: int | None) -> RunResult:
        """How it ended, given the signal that ended the loop, or None."""
        signal, count = None if self.is_finished else received, len(self.episodes.results)
        return RunResult(self.run_dir, self.global_step, self.row, signal, count, self.config.seed)

    def _write_rollout(self) -> str:
        """Collects the rollout of a failed update a second time; returns a clause that names its file."""
        if isinstance(self.env, GroupedEnvironment):
            return "its rollout is not kept, because --env_groups divides it"
        path = self.run_dir / "post_mortem" / f"{self.iteration + 1}.npz"
        try:
            if not self._put_back(self._env_snapshot):
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
        state = self.rollout_state
        shown = tuple(group.obs for group in state) if isinstance(state, tuple) else state.obs
        succeeded = not self.env.on_host or (obs is not None and _are_equal(obs, shown))
        return all(processes.gather(succeeded))

    def _place(self) -> None:
        states = place((self.train_state, self.rollout_state), self.env)
        self.train_state, self.rollout_state = jax.block_until_ready(states)


def _are_equal(obs: Any, others: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, obs, others)))


def num_cores() -> int:
    """CPU cores that this process may use, from which XLA takes the number of its threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _company(num_seeds: int) -> str:
    return "alone" if num_seeds == 1 else f"side by side with {num_seeds - 1} other seed{'s' * (num_seeds > 2)}"


def _check_same_run(config: Config, old: Config, resume: Path) -> None:
    for name, value in vars(config).items():
        if value != getattr(old, name) and name not in RESUMABLE_FIELDS and name != "run_dir":
            raise ConfigError(
                f"--{name} {value}: {resume} was started with {getattr(old, name)}; leave it out, or start a new run"
            )
