"""Trains PPO with Transformer-XL: `python train.py [PRESET] [--flags]`."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from trxl_jax.cli import command_line, parse_flags, run_command
from trxl_jax.commands.config_flags import config_of, defaults_from, with_config_flags
from trxl_jax.config import AUTO, Config, load_config
from trxl_jax.envs.registry import move_to_backend
from trxl_jax.errors import ConfigError
from trxl_jax.presets import PRESETS, preset
from trxl_jax.runs.seeds import of_directories, with_seeds


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What the command line of `train.py` asks for.

    Fields:
        configs: one of each run; several differ only in seed and directory.
        resume: the directory of each run to continue, "auto", or None.
        allow_import: whether a run that is continued may import a module that it names.
        devices: how many train it; None: see `trainer.train`.
        coordinator, process, processes: see `runs.processes.Processes`.
    """

    configs: Sequence[Config]
    resume: Sequence[Path] | str | None = None
    allow_import: bool = False
    devices: int | None = None
    coordinator: str | None = None
    process: int | None = None
    processes: int | str | None = None

    @property
    def config(self) -> Config:
        """The configuration, apart from other seeds."""
        return self.configs[0]


@dataclasses.dataclass(frozen=True)
class _Flags:
    """Flags of `train.py` that are not fields of `Config`."""

    preset: Annotated[
        str | None,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[PRESET]", help=f"configuration to start from: {', '.join(PRESETS)}"),
    ] = None
    backend: Literal["host", "device"] | None = None
    """where to run a task that exists for both (Memory Gym, MiniGrid-Memory, T-Maze, Proof of Memory); None: as env_id
    says"""
    num_seeds: int = 1
    """runs that train side by side, with the seeds seed, seed + 1, ... and a directory each: the usual one, or with
    run_dir DIR the directories DIR__<seed> (tasks on the device only)"""
    devices: int | None = None
    """devices that share the environments (GPUs, TPU cores); None: all that there are and that env_groups allows"""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes, which share the run"""
    process: int | None = None
    """number of this process, from 0"""
    processes: int | Literal["auto"] | None = None
    """how many processes share the run; auto: as Slurm or a TPU pod says"""
    resume: tuple[Path, ...] | None = None
    """directory of a run to continue, or directories of runs to continue side by side; other flags may only extend them
    or change how they are saved and tracked; `auto`: continue what is in run_dir with the same flags if there is
    something, and else start it"""
    allow_import: bool = False
    """with --resume: import the module that the run's env_id names (module:id); only if you trust the run"""


DESCRIPTION = """Trains PPO with Transformer-XL as episodic memory.

{prog} [PRESET] [--flags]; flags override the preset, or the defaults if no preset is given."""


def parse(flags: Sequence[str]) -> Arguments:
    """Parses the flags: an optional preset and flags that override it.

    Raises:
        UserError: an unknown preset or flag, or an invalid value.
    """
    # Twice: the preset or the run to resume, which may stand anywhere, has the defaults of the other flags.
    asks_for_help = not {"-h", "--help"}.isdisjoint(flags)
    given = _parse_with_defaults([flag for flag in flags if flag not in ("-h", "--help")], Config())
    name, directories = given.preset, _directories(given.resume)
    if name is not None and directories:
        raise ConfigError(
            f"give either the preset {name} or --resume {directories[0]}, which has its own configuration"
        )
    config = Config() if name is None else preset(name)
    if directories:
        config = load_config(directories[0] / "config.json")
    given = _parse_with_defaults(["--help"] if asks_for_help else flags, config)
    wanted = _wanted(given)
    if not directories:
        resume = None if given.resume is None else AUTO
        return Arguments(with_seeds(wanted, given.num_seeds), resume, given.allow_import, *_machine(given))
    if wanted.run_dir != config.run_dir:
        raise ConfigError(f"--run_dir {wanted.run_dir}: a resumed run stays in {directories[0]}; leave it out")
    if given.num_seeds not in (1, len(directories)):
        raise ConfigError(
            f"--num_seeds {given.num_seeds}: --resume names {len(directories)} run{'s' * (len(directories) > 1)}; name "
            "the directory of each seed"
        )
    configs = of_directories(wanted, directories, lambda stored: _wanted(_parse_with_defaults(flags, stored)))
    return Arguments(configs, directories, given.allow_import, *_machine(given))


def _wanted(given: Any) -> Config:
    config = config_of(given)
    return config if given.backend is None else move_to_backend(config, given.backend)


def _machine(given: Any) -> tuple[Any, ...]:
    return given.devices, given.coordinator, given.process, given.processes


def _directories(resume: Sequence[Path] | None) -> Sequence[Path]:
    """The directories that `--resume` names; none if it isn't given, or is `auto`."""
    if resume is None or resume == (Path(AUTO),):
        return ()
    if not resume:
        raise ConfigError(f"--resume: name the directory of a run, or {AUTO}")
    if Path(AUTO) in resume:
        raise ConfigError(f"--resume {' '.join(map(str, resume))}: {AUTO} stands alone; put a preset before --resume")
    return resume


def _parse_with_defaults(flags: Sequence[str], config: Config) -> Any:
    """`_Flags` and the groups of `Config`'s fields, whose defaults are those of a configuration."""
    kind, prog = with_config_flags(_Flags), command_line("train")
    default = kind(**defaults_from(config))
    return parse_flags(kind, default, flags, prog=prog, description=DESCRIPTION.format(prog=prog))


def main(flags: Sequence[str]) -> int:
    """Trains; returns 0, or 128 plus the signal number if stopped by a signal."""
    # Imported here because it takes seconds.
    from trxl_jax.runs.processes import Processes, ending_at_once, is_leader, start

    arguments = parse(flags)
    start(Processes(arguments.coordinator, arguments.process, arguments.processes))
    from trxl_jax.runs.progress import closing_lines  # after that: a module that they import uses a device
    from trxl_jax.runs.trainer import train_seeds

    with ending_at_once():
        results = train_seeds(
            arguments.configs,
            resume=arguments.resume,
            allow_import=arguments.allow_import,
            num_devices=arguments.devices,
        )
    if not is_leader():
        return 0
    signals = [result.signal for result in results if result.signal is not None]
    if signals:
        resume = f"{command_line('train')} --resume {shlex.join(str(result.run_dir) for result in results)}"
        resume += " --allow_import" if arguments.config.names_module else ""
        print(f"stopped at step {min(result.global_step for result in results):,}; continue with: {resume}")
        return 128 + signals[0]
    for line in closing_lines(results):
        print(line)
    return 0


def cli() -> int:
    """Entry point: runs the command with the process's arguments and returns the exit status."""
    return run_command(main, sys.argv[1:], prints_results=False)  # they are in the run's directory


if __name__ == "__main__":
    sys.exit(cli())
