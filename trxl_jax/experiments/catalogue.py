"""Experiments by name, read from a TOML file, and the training runs that each one consists of.

An experiment is a table of a TOML file with `description`, `train` (arguments of train.py) and perhaps `published`.
"""

import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trxl_jax.cli import command_line, parse_flags
from trxl_jax.config import RESUMABLE_FIELDS, Config, load_config
from trxl_jax.errors import ConfigError
from trxl_jax.presets import preset

PUBLISHED = Path(__file__).parent / "published.toml"


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
    config = parse_flags(Config, default, flags, prog=command_line("train"), description="Flags of every run.")
    for own, remedy in (("seed", "--seeds"), ("run_dir", "--dir")):
        if getattr(config, own) != getattr(default, own):
            raise ConfigError(f"--{own} {getattr(config, own)}: each run has its own; give {remedy}")
    return Run(name, (*train, *extra), config)


def train_command(run: Run) -> list[str] | None:
    """Arguments of train.py that bring a run to its end, or None if it has reached it.

    Raises:
        ConfigError: its directory holds a run of another configuration.
    """
    from trxl_jax.runs.checkpoint import latest  # inside, because JAX takes seconds to import

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
        wanted = wanted.fitted_to(limit).replace(max_episode_steps=wanted.max_episode_steps or limit)
    for name, value in vars(wanted).items():
        if value != getattr(stored, name) and name not in RESUMABLE_FIELDS and name != "run_dir":
            raise ConfigError(
                f"--{name} {value}: {run.directory} was started with {getattr(stored, name)}; name another --dir"
            )
