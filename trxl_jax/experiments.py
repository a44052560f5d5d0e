"""Experiments by name, each over several seeds: what is finished is skipped, what was begun is resumed.

    python -m trxl_jax.experiments list
    python -m trxl_jax.experiments run NAME... --seeds 1 2 3 [--flags] [-- FLAGS OF TRAIN.PY]

An experiment is a table of a TOML file with `description`, `train` (arguments of train.py) and perhaps `published`.
"""

import dataclasses
import shlex
import sys
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from trxl_jax.cli import parse_flags, run_command
from trxl_jax.config import RESUMABLE_FIELDS, Config, load_config
from trxl_jax.errors import ConfigError, UserError, disk_errors
from trxl_jax.jobs import Job, default_jobs, run_all
from trxl_jax.presets import preset

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "benchmarks" / "experiments" / "published.toml"
PROG = "python -m trxl_jax.experiments"


class Experiment(NamedTuple):
    """An entry of the file.

    Fields:
        name: also the first part of its runs' directories.
        description: one line.
        train: arguments of train.py.
        published: the published result as text; empty if there is none.
    """

    name: str
    description: str
    train: tuple[str, ...]
    published: str


class Run(NamedTuple):
    """One seed of an experiment.

    Fields:
        name: <experiment>__<seed>.
        flags: arguments of train.py but for seed and directory.
        config: what they come to.
    """

    name: str
    flags: tuple[str, ...]
    config: Config

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return Path(str(self.config.run_dir))


@dataclasses.dataclass(frozen=True)
class ListArguments:
    """Flags of `list`."""

    file: Path = PUBLISHED
    """TOML file of the experiments"""


@dataclasses.dataclass(frozen=True)
class RunArguments:
    """Flags of `run`."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """experiments to run; `list` tells which there are"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """seeds of each experiment"""
    dir: Path = Path("runs")
    """directory of the runs' directories, <experiment>__<seed>"""
    file: Path = PUBLISHED
    """TOML file of the experiments"""
    print: bool = False
    """print the commands in place of running them, one a line"""
    jobs: int | None = None
    """runs at once; None: half the number of cores"""


def read_experiments(path: Path) -> dict[str, Experiment]:
    """The experiments of a file, by name.

    Raises:
        ConfigError: the file can't be read, or an entry lacks something.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--file {path}: {error.strerror}; name a TOML file of experiments") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--file {path}: it is not TOML ({error})") from None
    return {name: _experiment(path, name, table) for name, table in tables.items()}


def _experiment(path: Path, name: str, table: Any) -> Experiment:
    texts = {"description", "train", "published"}
    if not isinstance(table, dict) or not {"description", "train"} <= set(table) <= texts:
        raise ConfigError(f"--file {path}: [{name}] must have description and train, may have published, nothing else")
    if not all(isinstance(value, str) for value in table.values()):
        raise ConfigError(f"--file {path}: [{name}]: description, train and published are strings")
    if not name or "/" in name or name.startswith("."):
        raise ConfigError(f"--file {path}: [{name}]: the name must do for a directory")
    try:
        train = tuple(shlex.split(table["train"]))
    except ValueError as error:
        raise ConfigError(f"--file {path}: [{name}]: train can't be split into arguments ({error})") from None
    return Experiment(name, table["description"], train, table.get("published", ""))


def make_run(experiment: Experiment, seed: int, directory: Path, extra: Sequence[str] = ()) -> Run:
    """One seed of an experiment.

    Args:
        experiment: what to train.
        seed: of everything random.
        directory: where the run's own directory is or will be.
        extra: further flags of train.py.

    Raises:
        UserError: flags that train.py would refuse.
    """
    train = experiment.train
    base = preset(train[0]) if train and not train[0].startswith("-") else None
    flags = (*(train if base is None else train[1:]), *extra)
    name = f"{experiment.name}__{seed}"
    default = (base or Config()).replace(seed=seed, run_dir=str(directory / name))
    config = parse_flags(Config, default, flags, prog="train.py", description="Flags of every run.")
    for own, remedy in (("seed", "--seeds"), ("run_dir", "--dir")):
        if getattr(config, own) != getattr(default, own):
            raise ConfigError(f"--{own} {getattr(config, own)}: each run has its own; give {remedy}")
    return Run(name, (*train, *extra), config)


def train_command(run: Run) -> list[str] | None:
    """Arguments of train.py that bring a run to its end, or None if it has reached it.

    Raises:
        ConfigError: its directory holds a run of another configuration.
    """
    from trxl_jax.checkpoint import latest  # inside, because JAX takes seconds to import

    newest = latest(run.directory / "checkpoints")
    if newest is None:
        return [*run.flags, "--seed", str(run.config.seed), "--run_dir", str(run.directory)]
    stored = load_config(run.directory / "config.json")
    _check_same(run, stored)
    if int(newest.name) >= run.config.num_iterations:
        return None
    command = ["--resume", str(run.directory)]
    for name in sorted(RESUMABLE_FIELDS):
        value = getattr(run.config, name)
        if value != getattr(stored, name):
            command += [
                f"--no_{name}" if value is False else f"--{name}",
                *([] if isinstance(value, bool) else [value]),
            ]
    return [str(part) for part in command]


def _check_same(run: Run, stored: Config) -> None:
    """What a run began with is what it goes on with; train.py alone knows the task's limit, which cuts the window."""
    wanted = run.config
    limit = stored.max_episode_steps
    if limit is not None:
        window = min(wanted.trxl_memory_length, limit)
        wanted = wanted.replace(trxl_memory_length=window, max_episode_steps=wanted.max_episode_steps or limit)
    for name, value in vars(wanted).items():
        if value != getattr(stored, name) and name not in RESUMABLE_FIELDS and name != "run_dir":
            raise ConfigError(
                f"--{name} {value}: {run.directory} was started with {getattr(stored, name)}; name another --dir"
            )


DESCRIPTION = f"""Trains experiments by name, each over several seeds.

{PROG} run NAME... --seeds 1 2 3 [-- FLAGS OF TRAIN.PY]
{PROG} list

Finished runs are skipped and begun ones resumed."""


def main(flags: Sequence[str]) -> int:
    """Lists or runs; 0 when all is done, 128 plus the signal's number when stopped by one."""
    match list(flags):
        case ["list", *rest]:
            return _list(
                parse_flags(ListArguments, ListArguments(), rest, prog=f"{PROG} list", description=DESCRIPTION)
            )
        case ["run", *rest]:
            return _run(rest)
        case ["-h" | "--help", *_]:
            print(DESCRIPTION)
            return 0
    raise ConfigError(f"say what to do: {PROG} list, or {PROG} run NAME... --seeds 1 2 3")


def _list(given: ListArguments) -> int:
    for experiment in read_experiments(given.file).values():
        published = f" (published: {experiment.published})" if experiment.published else ""
        print(f"{experiment.name}: {experiment.description}{published}")
    return 0


def _run(flags: Sequence[str]) -> int:
    given, extra = _parse_run(flags)
    experiments = read_experiments(given.file)
    for name in given.names:
        if name not in experiments:
            raise ConfigError(f"no experiment {name!r} in {given.file}; there are {', '.join(experiments)}")
    runs = [
        make_run(experiments[name], seed, given.dir, extra)
        for name in dict.fromkeys(given.names)
        for seed in dict.fromkeys(given.seeds)
    ]
    script = ROOT / "train.py"
    if not script.is_file():
        raise UserError(f"train.py is not in {ROOT}: run this in a clone of trxl_jax, installed with pip install -e .")
    left = []
    for run in runs:
        command = train_command(run)
        if command is None:
            print(f"{run.name}: finished already", file=sys.stderr if given.print else sys.stdout)
        elif given.print:
            print(shlex.join([sys.executable, str(script), *command]))
        else:
            left.append(run)
    if not left:
        return 0

    with disk_errors(given.dir, "--dir"):
        given.dir.mkdir(parents=True, exist_ok=True)
    jobs = [Job(run.name, run.directory, run.config.total_timesteps, partial(_process, script, run)) for run in left]
    return run_all(jobs, given.jobs or default_jobs())


def _process(script: Path, run: Run) -> list[str] | None:
    """The arguments of a run's process, as of now."""
    command = train_command(run)
    return None if command is None else [sys.executable, str(script), *command]


def _parse_run(flags: Sequence[str]) -> tuple[RunArguments, list[str]]:
    """Flags before and after `--`."""
    split = list(flags).index("--") if "--" in flags else len(flags)
    given = parse_flags(RunArguments, RunArguments(), flags[:split], prog=f"{PROG} run", description=DESCRIPTION)
    if not given.names:
        raise ConfigError(f"name at least one experiment; {PROG} list tells which there are")
    if not given.seeds:
        raise ConfigError("--seeds: give at least one")
    if given.jobs is not None and given.jobs < 1:
        raise ConfigError(f"--jobs {given.jobs}: must be at least 1")
    return given, list(flags[split + 1 :])


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
