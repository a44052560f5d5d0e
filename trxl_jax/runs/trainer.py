"""The training loop: updates runs, lets them log, evaluate and save, and ends them well.

`train` trains one run, `train_seeds` several at once that differ only in their seeds.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import jax

from trxl_jax.config import AUTO, Config, load_config
from trxl_jax.envs.base import Environment, original_errors
from trxl_jax.envs.groups import AnyEnvironment, GroupedEnvironment, Layout, make_layout
from trxl_jax.envs.registry import CUSTOM_PREFIX, make_env, require_no_import
from trxl_jax.errors import CheckpointError, ConfigError, Divergence, UserError
from trxl_jax.ppo.many_devices import compile_step
from trxl_jax.ppo.rollout import RolloutState
from trxl_jax.ppo.train_step import (
    SeedsStep,
    TrainStep,
    compile_seeds_step,
    make_collect_and_learn,
)
from trxl_jax.ppo.update import TrainState
from trxl_jax.runs import checkpoint
from trxl_jax.runs.debug import checked_train_step
from trxl_jax.runs.directory import LOCK, OwnedDirectory, own_directory
from trxl_jax.runs.monitor import UNWATCHED, Monitor
from trxl_jax.runs.processes import gather, is_leader, lost_processes, shared_directory
from trxl_jax.runs.progress import ProgressLine, opening_lines
from trxl_jax.runs.run import Run, RunResult
from trxl_jax.runs.seeds import Resume, require_seeds, resumed_directories
from trxl_jax.signals import StopSignals, stop_signals


def train(
    config: Config,
    *,
    env: Any = None,
    resume: str | Path | None = None,
    allow_import: bool = False,
    num_devices: int | None = None,
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
        num_devices: how many devices train it; None: all that there are and that `config.env_groups` allows.

    Raises:
        UserError: bad input, an environment that failed or a disk that is full; what could be saved has been.
    """
    (result,) = train_seeds([config], env=env, resume=resume, allow_import=allow_import, num_devices=num_devices)
    return result


def train_seeds(
    configs: Sequence[Config],
    *,
    env: Any = None,
    resume: Resume = None,
    allow_import: bool = False,
    num_devices: int | None = None,
) -> list[RunResult]:
    """Trains runs that differ only in their seeds side by side; each has its own directory.

    Each is the run that `train` would make of its configuration, except that on accelerators, where one program is
    vmapped over them, sums may round differently. Runs of which some are further than others end when each has done
    its steps. One that diverges ends, and the others go on.

    Args:
        configs: their configurations, equal except for `seed` and `run_dir`.
        env: as for `train`.
        resume: the directories to continue, one for each configuration, or `"auto"`, as for `train`.
        allow_import: as for `train`.
        num_devices: as for `train`.

    Returns:
        How each ended, in the order of seeds.

    Raises:
        UserError: as for `train`; also environments on the host, and flags that are for one run at a time.
        LostProcess: another process that trains the run is gone.
    """
    if env is not None:  # so that `--resume` can't mistake a registered task of that name for it
        name = f"{CUSTOM_PREFIX}{getattr(env, '__name__', type(env).__name__)}"
        configs = [config.replace(env_id=name) for config in configs]
    directories = resumed_directories(resume, len(configs))
    if env is None and directories[0] not in (None, AUTO):
        require_no_import(configs[0], allow_import=allow_import)
    require_seeds(configs, directories, env)
    configs = [_with_stored_choices(*pair) for pair in zip(configs, directories, strict=True)]
    layout = _layout(configs, env, num_devices)
    configs = [config.replace(env_groups=layout.num_groups) for config in configs]
    # In the order of seeds, so that it doesn't depend on that of the arguments how sums round.
    ordered = sorted(zip(configs, directories, strict=True), key=lambda pair: pair[0].seed)
    with (
        lost_processes(),
        stop_signals() as stop,
        jax.debug_nans(True) if configs[0].debug else nullcontext(),
        ExitStack() as stack,
    ):
        owned = [stack.enter_context(shared_directory(config, directory)) for config, directory in ordered]
        batch = _make_batch(ordered[0][0], env, layout)
        stack.callback(batch.close)
        runs = []
        for (given, _), directory in zip(ordered, owned, strict=True):
            config = given if is_leader() else given.replace(**UNWATCHED)
            monitor = Monitor(config, env, directory.path / "videos")
            stack.callback(monitor.close)
            runs.append(_make_run(config, batch, directory, len(configs)))
            runs[-1].open(monitor)
            stack.callback(runs[-1].close)
        progress = ProgressLine(runs[0].config, min(run.iteration for run in runs), quiet=not is_leader())
        stack.callback(progress.stop)
        return _Loop(runs, batch, progress, stop).run()


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
    config = config.replace(env_groups=1)
    with own_directory(config, None) as directory:
        if {path.name for path in directory.path.iterdir()} != {LOCK}:
            raise ConfigError(f"--run_dir {directory.path}: it is not empty; name a new directory")
        with original_errors(env):
            run = Run(config, env, directory.path, params=params)
        run.save()
    return directory.path


def _with_stored_choices(config: Config, directory: Any) -> Config:
    """The configuration with what nobody chose for the run to continue: the bits of seeds, and groups not asked for.

    Version 0.1.0 had other bits, and devices may be others now.
    """
    path = Path(config.run_dir or "") if directory == AUTO else directory and Path(directory)
    if path is None or checkpoint.latest(path / "checkpoints") is None:
        return config
    with suppress(ConfigError):  # which the run itself will report
        stored = load_config(path / "config.json")
        return config.replace(env_groups=config.env_groups or stored.env_groups, seed_bits=stored.seed_bits)
    return config


def _layout(configs: Sequence[Config], env: Any, num_devices: int | None) -> Layout:
    """The layout of a run's groups. Seeds side by side, `--debug` and a batch of environments have one."""
    config = configs[0]
    alone = {
        f"--num_seeds {len(configs)}": len(configs) > 1,
        "--debug": config.debug,
        "`env`, a batch of environments,": isinstance(env, Environment),
    }
    reason = next((flag for flag, given in alone.items() if given), None)
    if reason is None:
        return make_layout(config, num_devices)
    if config.env_groups > 1 or (num_devices or 1) > 1 or jax.process_count() > 1:
        flag = f"--devices {num_devices}" if (num_devices or 1) > 1 else f"--env_groups {config.env_groups}"
        raise ConfigError(f"{flag}: {reason} has one group of environments, on one device; leave one of them out")
    return make_layout(config.replace(env_groups=1), 1)


def _make_run(config: Config, batch: AnyEnvironment, directory: OwnedDirectory, num_seeds: int) -> Run:
    path, resumed, checkpoints = directory
    with original_errors(batch):
        return Run(config, batch, path, resumed=resumed, num_seeds=num_seeds, checkpoints=checkpoints)


def _make_batch(config: Config, env: Any, layout: Layout) -> AnyEnvironment:
    return make_env(config, env) if layout.num_groups == 1 else GroupedEnvironment(config, env, layout, gather)


class _Loop:
    """Trains runs, usually one, to their ends or until a signal."""

    def __init__(self, runs: Sequence[Run], env: AnyEnvironment, progress: ProgressLine, stop: StopSignals) -> None:
        self._runs = runs
        self._env = env
        self._progress = progress
        self._stop = stop
        self._diverged: dict[Run, str] = {}

    def run(self) -> list[RunResult]:
        """After an error the states before it are saved."""
        first = self._runs[0]
        opening = opening_lines(first.config, [run.run_dir for run in self._runs], first.train_state.params, self._env)
        for line in dict.fromkeys([*opening, *(note for run in self._runs for note in run.notes)]):
            self._progress.say(line)
        self._stop.deferred = True
        try:
            with lost_processes():
                self._train()
        except CheckpointError:
            raise
        except UserError as error:
            raise type(error)(f"{error}; {self._save_after(error)}") from error
        except Exception as error:  # a fault of ours or of --debug's checks, whose traceback shows where
            error.add_note(self._save_after(error))
            raise
        if self._diverged and not self._stop:
            raise Divergence("; ".join(self._diverged.values()))
        received = self._received()
        return [run.result(received) for run in self._runs]

    def _received(self) -> int | None:
        """The first signal that this process, or another one that trains the run, has received."""
        return next((number for numbers in gather(self._stop.received[:1]) for number in numbers), None)

    @property
    def _training(self) -> list[Run]:
        return [run for run in self._runs if not run.is_finished and run not in self._diverged]

    def _train(self) -> None:
        for run in self._runs:
            run.watch(self._stop)  # makes up for what an interrupted session left out
        if self._training:
            step = self._compile()
        while self._training and self._received() is None:
            updated = self._update(step)
            for run in updated:
                run.watch(self._stop)
            _save([run for run in updated if run.config.save_every and run.iteration % run.config.save_every == 0])
        _save(self._runs)

    def _compile(self) -> SeedsStep:
        self._progress.say("compiling, which can take a minute")
        started = time.perf_counter()
        config, agent = self._runs[0].config, self._runs[0].agent
        states, keys = self._states_and_keys()
        if config.debug:
            assert not isinstance(self._env, GroupedEnvironment), "see `_layout`"
            collect, learn = make_collect_and_learn(config, self._env, agent)
            self._progress.say("debug: every result is checked, which is slow")
            return _of_one(checked_train_step(jax.jit(collect), jax.jit(learn), self._env.spec))
        if len(keys) == 1:
            step = _of_one(compile_step(config, self._env, agent, states[0], keys[0]))
        else:
            assert not isinstance(self._env, GroupedEnvironment), "see `_layout`"
            step = compile_seeds_step(config, self._env, agent, states, keys)
        self._progress.say(f"compiled in {time.perf_counter() - started:.0f} s")
        return step

    def _update(self, step: SeedsStep) -> list[Run]:
        """Does an update of all runs; returns those that took it over: the others are finished, or diverge."""
        training = self._training
        started = time.perf_counter()
        with original_errors(self._env):
            results = jax.block_until_ready(step(*self._states_and_keys()))
        seconds = time.perf_counter() - started
        updated = []
        for run, result in zip(self._runs, results, strict=True):
            if run not in training:
                continue
            try:
                run.take(result, seconds)
            except Divergence as error:
                if len(self._runs) == 1:
                    raise
                self._diverged[run] = f"seed {run.config.seed}: {error}; {run.save_after(error)}"
                self._progress.say(f"{self._diverged[run]}; the other seeds go on")
            else:
                updated.append(run)
        if updated:
            self._progress.show(min(run.global_step for run in updated), [run.row for run in updated])
        return updated

    def _states_and_keys(self) -> tuple[list[tuple[TrainState, RolloutState]], list[jax.Array]]:
        return [(run.train_state, run.rollout_state) for run in self._runs], [run.key for run in self._runs]

    def _save_after(self, error: Exception) -> str:
        """Saves the states before an error; returns a clause that names where they are."""
        return "; ".join(dict.fromkeys(run.save_after(error) for run in self._runs))


def _of_one(step: TrainStep) -> SeedsStep:
    """An iteration of a single run in the form of one of several."""
    return lambda states, keys: [step(*states[0], keys[0])]


def _save(runs: Sequence[Run]) -> None:
    """Saves each run, also where another one can't be.

    Raises:
        CheckpointError: the first that can't be.
    """
    failures = []
    for run in runs:
        try:
            run.save()
        except CheckpointError as error:
            failures.append(error)
    if failures:
        raise failures[0]
