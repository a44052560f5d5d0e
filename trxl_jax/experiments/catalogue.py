"""Reads experiments from a TOML file and builds the training runs of each.

Each table of the file is an experiment with the keys `description`, `train` (arguments of train.py) and, optionally,
`published`. With the key `vary`, a list of tables, it is one experiment for every way to take one entry of each: the
entry's name is joined to the experiment's, and its flags follow those of `train`.
"""

import dataclasses
import itertools
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from trxl_jax.cli import command_line, parse_flags
from trxl_jax.config import AUTO, RESUMABLE_FIELDS, Config, load_config
from trxl_jax.envs.registry import is_on_device, move_to_backend
from trxl_jax.errors import ConfigError
from trxl_jax.presets import preset

PUBLISHED = Path(__file__).parent / "published.toml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Flags(Config):
    """Flags of every run."""

    backend: Literal["host", "device"] | None = None


class Experiment(NamedTuple):
    """An experiment, as in the TOML file.

    Fields:
        name: name of the table; run directories start with it.
        description: one line.
        train: arguments of train.py.
        published: the published result as text; empty if none.
    """

    name: str
    description: str
    train: tuple[str, ...]
    published: str


class Run(NamedTuple):
    """One seed of an experiment: one training run.

    Fields:
        name: <experiment>__<seed>.
        flags: arguments of train.py, without --seed and --run_dir.
        config: the resulting configuration.
    """

    name: str
    flags: tuple[str, ...]
    config: Config

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(str(self.config.run_dir))

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.name.removesuffix(f"__{self.config.seed}")


def read_experiments(path: Path) -> dict[str, Experiment]:
    """Reads the experiments of a file, by name.

    Raises:
        ConfigError: the file can't be read, or an entry is invalid.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--file {path}: {error.strerror}; give a TOML file of experiments") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--file {path}: it is not TOML ({error})") from None
    found = [experiment for name, table in tables.items() for experiment in _variants(path, name, table)]
    if len({experiment.name for experiment in found}) < len(found):
        raise ConfigError(f"--file {path}: two experiments have the same name; rename an entry of vary")
    return {experiment.name: experiment for experiment in found}


def _variants(path: Path, name: str, table: Any) -> list[Experiment]:
    """All experiments of a table."""
    if not isinstance(table, dict) or "vary" not in table:
        return [_experiment(path, name, table)]
    vary, common = table["vary"], {key: value for key, value in table.items() if key != "vary"}
    if not isinstance(vary, list) or not vary or not all(isinstance(entry, dict) and entry for entry in vary):
        raise ConfigError(f"--file {path}: [{name}]: vary must be a list of tables, each with names and flags")
    if not all(isinstance(flags, str) for entry in vary for flags in entry.values()):
        raise ConfigError(f"--file {path}: [{name}]: in vary, the flags of each name must be a string")
    _experiment(path, name, common)
    return [
        _experiment(
            path,
            "-".join([name, *(chosen for chosen, _ in choice)]),
            common
            | {"description": f"{common['description']}: {', '.join(chosen for chosen, _ in choice)}"}
            | {"train": " ".join([common["train"], *(flags for _, flags in choice)])},
        )
        for choice in itertools.product(*(entry.items() for entry in vary))
    ]


def _experiment(path: Path, name: str, table: Any) -> Experiment:
    texts = {"description", "train", "published"}
    if not isinstance(table, dict) or not {"description", "train"} <= set(table) <= texts:
        raise ConfigError(
            f"--file {path}: [{name}] needs description and train; published and vary are optional; no other keys"
        )
    if not all(isinstance(value, str) for value in table.values()):
        raise ConfigError(f"--file {path}: [{name}]: description, train and published must be strings")
    if not name or "/" in name or name.startswith("."):
        raise ConfigError(f"--file {path}: [{name}]: the name must be usable as a directory name")
    try:
        train = tuple(shlex.split(table["train"]))
    except ValueError as error:
        raise ConfigError(f"--file {path}: [{name}]: train can't be split into arguments ({error})") from None
    return Experiment(name, table["description"], train, table.get("published", ""))


def make_run(experiment: Experiment, seed: int, directory: Path, extra: Sequence[str] = ()) -> Run:
    """Builds the run of one seed of an experiment.

    Args:
        experiment: the experiment.
        seed: seed of all random numbers.
        directory: parent directory of the run directory.
        extra: additional flags of train.py.

    Raises:
        UserError: train.py would reject the flags.
    """
    train = experiment.train
    base = preset(train[0]) if train and not train[0].startswith("-") else None
    flags = (*(train if base is None else train[1:]), *extra)
    name = f"{experiment.name}__{seed}"
    default = (base or Config()).replace(seed=seed, run_dir=str(directory / name))
    given = parse_flags(
        _Flags, _Flags(**vars(default)), flags, prog=command_line("train"), description="Flags of every run."
    )
    config = Config(**{name: value for name, value in vars(given).items() if name != "backend"})
    if given.backend is not None:
        config = move_to_backend(config, given.backend)
    for own, remedy in (("seed", "--seeds"), ("run_dir", "--dir")):
        if getattr(config, own) != getattr(default, own):
            raise ConfigError(f"--{own} {getattr(config, own)}: set per run; use {remedy} instead")
    return Run(name, (*train, *extra), config)


def side_by_side(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups of runs that can train side by side: seeds that follow each other, of a task on the device."""
    names = [run.experiment for run in runs]
    groups: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: (names.index(run.experiment), run.config.seed)):
        newest = groups[-1][-1] if groups else run
        follows = (newest.experiment, newest.config.seed + 1) == (run.experiment, run.config.seed)
        if follows and is_on_device(run.config.env_id):
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def is_finished(run: Run) -> bool:
    """Whether the newest checkpoint is that of a finished run.

    Raises:
        ConfigError: the run directory holds a run with a different configuration.
    """
    from trxl_jax.runs.checkpoint import latest  # imported here because JAX takes seconds to import

    newest = latest(run.directory / "checkpoints")
    if newest is None:
        return False
    _check_same(run, load_config(run.directory / "config.json"))
    return int(newest.name) >= run.config.num_iterations


def train_command(runs: Sequence[Run]) -> list[str] | None:
    """Arguments of train.py that start or resume a run, or a group of `side_by_side`; None if all are finished.

    Raises:
        ConfigError: as for `is_finished`.
    """
    if all(is_finished(run) for run in runs):
        return None
    first, directory = runs[0], runs[0].directory
    flags = [*first.flags, "--seed", str(first.config.seed)]
    if len(runs) > 1:
        flags += ["--num_seeds", str(len(runs))]
        directory = directory.with_name(first.experiment)  # to which train.py appends the seeds
    return [*flags, "--run_dir", str(directory), "--resume", AUTO]


def _check_same(run: Run, stored: Config) -> None:
    """Checks that a run is resumed with the configuration it was started with.

    The stored window may be shorter than requested: train.py limits it to the task's longest episode. Unless groups of
    environments are asked for, they are those that are stored.
    """
    wanted = run.config.replace(env_groups=run.config.env_groups or stored.env_groups)
    limit = stored.trxl_num_positions
    if limit is not None:
        wanted = wanted.fitted_to(limit).replace(seed_bits=stored.seed_bits)
    for name, value in vars(wanted).items():
        if value != getattr(stored, name) and name not in RESUMABLE_FIELDS and name != "run_dir":
            raise ConfigError(
                f"--{name} {value}: {run.directory} was started with {getattr(stored, name)}; name another --dir"
            )
