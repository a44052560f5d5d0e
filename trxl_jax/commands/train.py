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


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What the command line of `train.py` asks for."""

    config: Config
    resume: Path | None = None
    allow_import: bool = False


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
    resume: Path | None = None
    """directory of a run to continue; other flags may only extend it or change how it is saved and tracked; `auto`:
    continue the run in run_dir with the same flags if there is one, and else start it"""
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
    name, resume = given.preset, given.resume if given.resume != Path(AUTO) else None
    if name is not None and resume is not None:
        raise ConfigError(f"give either the preset {name} or --resume {resume}, which has its own configuration")
    config = Config() if name is None else preset(name)
    if resume is not None:
        config = load_config(resume / "config.json")
    given = _parse_with_defaults(["--help"] if asks_for_help else flags, config)
    wanted = config_of(given)
    if given.backend is not None:
        wanted = move_to_backend(wanted, given.backend)
    if resume is not None and wanted.run_dir != config.run_dir:
        raise ConfigError(f"--run_dir {wanted.run_dir}: a resumed run stays in {resume}; leave it out")
    return Arguments(wanted, given.resume, given.allow_import)


def _parse_with_defaults(flags: Sequence[str], config: Config) -> Any:
    """`_Flags` and the groups of `Config`'s fields, whose defaults are those of a configuration."""
    kind, prog = with_config_flags(_Flags), command_line("train")
    default = kind(**defaults_from(config))
    return parse_flags(kind, default, flags, prog=prog, description=DESCRIPTION.format(prog=prog))


def main(flags: Sequence[str]) -> int:
    """Trains; returns 0, or 128 plus the signal number if stopped by a signal."""
    from trxl_jax.runs.trainer import train  # imported here because JAX takes seconds to import

    arguments = parse(flags)
    outcome = train(arguments.config, resume=arguments.resume, allow_import=arguments.allow_import)
    if outcome.signal is not None:
        resume = f"{command_line('train')} --resume {shlex.quote(str(outcome.run_dir))}"
        resume += " --allow_import" if arguments.config.names_module else ""
        print(f"stopped at step {outcome.global_step:,}; continue with: {resume}")
        return 128 + outcome.signal
    score = outcome.metrics.get("episode/r_mean")
    n = outcome.num_episodes
    over = "1 episode" if n == 1 else f"the last {n} episodes"
    score_text = ", no episode has ended yet" if score is None else f", mean return {score:.2f} over {over}"
    print(f"done: {outcome.global_step:,} steps{score_text}; see {outcome.run_dir}")
    return 0


def cli() -> int:
    """Entry point: runs the command with the process's arguments and returns the exit status."""
    return run_command(main, sys.argv[1:], prints_results=False)  # they are in the run's directory


if __name__ == "__main__":
    sys.exit(cli())
