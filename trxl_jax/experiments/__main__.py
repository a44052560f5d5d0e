"""Trains named experiments with several seeds; finished runs are skipped, interrupted runs are resumed.

python -m trxl_jax.experiments list
python -m trxl_jax.experiments run NAME... --seeds 1 2 3 [--flags] [-- TRAINING FLAGS]
"""

import dataclasses
import fnmatch
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import tyro

from trxl_jax.cli import command_line, parse_flags, run_command
from trxl_jax.errors import ConfigError, brief, disk_errors
from trxl_jax.experiments.catalogue import (
    PUBLISHED,
    Run,
    is_finished,
    make_run,
    read_experiments,
    side_by_side,
    train_command,
)
from trxl_jax.experiments.jobs import Job, core_sets, default_jobs, run_all

TRAIN = (sys.executable, "-m", "trxl_jax.commands.train")


@dataclasses.dataclass(frozen=True)
class ListArguments:
    """Command-line flags of `list`."""

    file: Path = PUBLISHED
    """TOML file of the experiments"""


@dataclasses.dataclass(frozen=True)
class RunArguments:
    """Command-line flags of `run`."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """experiments to run; `list` shows their names; patterns such as 'memory-chain-*' name all that match"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """seeds of each experiment"""
    dir: Path = Path("runs")
    """parent directory; each run is written to <dir>/<experiment>__<seed>"""
    file: Path = PUBLISHED
    """TOML file of the experiments"""
    print: bool = False
    """print the commands, one per line, instead of running them"""
    together: bool = False
    """train seeds that follow each other side by side in one process, as train.py's num_seeds does (tasks on the
    device; others train one by one)"""
    jobs: int | None = None
    """number of runs at the same time, or with together of groups of them; None: half the number of cores"""
    cores_per_run: int | None = None
    """bind each run to as many cores of its own, so that small runs don't wait for each other (Linux); None: all share
    all cores"""


DESCRIPTION = """Trains named experiments with several seeds.

{prog} run NAME... --seeds 1 2 3 [-- TRAINING FLAGS]
{prog} list

Finished runs are skipped, interrupted runs are resumed."""


def main(flags: Sequence[str]) -> int:
    """Lists or runs experiments; returns 0, or 128 plus the signal number if stopped by a signal."""
    prog = command_line("experiments")
    match list(flags):
        case ["list", *rest]:
            description = DESCRIPTION.format(prog=prog)
            return _list(
                parse_flags(ListArguments, ListArguments(), rest, prog=f"{prog} list", description=description)
            )
        case ["run", *rest]:
            return _run(rest)
        case ["-h" | "--help", *_]:
            print(DESCRIPTION.format(prog=prog))
            return 0
    raise ConfigError(f"missing command: use {prog} list, or {prog} run NAME... --seeds 1 2 3")


def _list(given: ListArguments) -> int:
    for experiment in read_experiments(given.file).values():
        published = f" (published: {experiment.published})" if experiment.published else ""
        print(f"{experiment.name}: {experiment.description}{published}")
    return 0


def _run(flags: Sequence[str]) -> int:
    given, extra = _parse_run(flags)
    experiments = read_experiments(given.file)
    chosen: list[str] = []
    for pattern in given.names:
        matching = fnmatch.filter(experiments, pattern)
        if not matching:
            raise ConfigError(f"no experiment {brief(pattern)} in {given.file}; there are {', '.join(experiments)}")
        chosen += matching
    runs = [
        make_run(experiments[name], seed, given.dir, extra)
        for name in dict.fromkeys(chosen)
        for seed in dict.fromkeys(given.seeds)
    ]
    unfinished = []
    for run in runs:
        if is_finished(run):
            print(f"{run.name}: finished already", file=sys.stderr if given.print else sys.stdout)
        else:
            unfinished.append(run)
    groups = side_by_side(unfinished) if given.together else [[run] for run in unfinished]
    if given.print:
        for group in groups:
            print(shlex.join(_process(group) or []))
        return 0
    if not groups:
        return 0

    at_once = min(given.jobs or default_jobs(), len(groups))
    cores = core_sets(at_once, given.cores_per_run) if given.cores_per_run else ()
    with disk_errors(given.dir, "--dir"):
        given.dir.mkdir(parents=True, exist_ok=True)
    return run_all([_job(group) for group in groups], at_once, cores)


def _job(runs: Sequence[Run]) -> Job:
    first, last = runs[0], runs[-1]
    name = first.name if first is last else f"{first.name}-{last.config.seed}"
    return Job(name, first.directory, first.config.total_timesteps, partial(_process, runs))


def _process(runs: Sequence[Run]) -> list[str] | None:
    """Command line that starts or resumes runs, given their current checkpoints; None if they are finished."""
    command = train_command(runs)
    return None if command is None else [*TRAIN, *command]


def _parse_run(flags: Sequence[str]) -> tuple[RunArguments, list[str]]:
    """Parses the flags before `--`; those after it are flags of train.py."""
    split = list(flags).index("--") if "--" in flags else len(flags)
    prog = command_line("experiments")
    description = DESCRIPTION.format(prog=prog)
    given = parse_flags(RunArguments, RunArguments(), flags[:split], prog=f"{prog} run", description=description)
    if not given.names:
        raise ConfigError(f"give at least one experiment; {prog} list shows their names")
    if not given.seeds:
        raise ConfigError("--seeds: give at least one")
    for name in ("jobs", "cores_per_run"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: must be at least 1")
    return given, list(flags[split + 1 :])


def cli() -> int:
    """Entry point: runs the command with the process's arguments and returns the exit status."""
    return run_command(main, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(cli())
