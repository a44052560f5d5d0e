"""Trains PPO with Transformer-XL: `python train.py [PRESET] [--flags]`."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from trxl_jax.cli import command_line, parse_flags, run_command
from trxl_jax.config import AUTO, Config, load_config
from trxl_jax.envs.registry import on_backend
from trxl_jax.errors import ConfigError
from trxl_jax.presets import PRESETS, preset


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Command-line flags of `train.py`."""

    config: tyro.conf.OmitArgPrefixes[Config]
    backend: Literal["host", "device"] | None = None
    """where to run a task that exists for both (Memory Gym, Proof of Memory); None: as env_id says"""
    resume: Path | None = None
    """directory of a run to continue; other flags may only extend it or change how it is saved and tracked; `auto`:
    continue the run in run_dir with the same flags if there is one, and else start it"""


DESCRIPTION = f"""Trains PPO with Transformer-XL as episodic memory.

{{prog}} [PRESET] [--flags]; flags override the preset, or the defaults if no preset is given.
Presets: {", ".join(PRESETS)}."""


def parse(flags: Sequence[str]) -> Arguments:
    """Parses the flags: an optional preset, then flags that override it.

    Raises:
        UserError: an unknown preset or flag, or an invalid value.
    """
    name = flags[0] if flags and not flags[0].startswith("-") else None
    resume = _find_resume(flags)
    if name is not None and resume is not None:
        raise ConfigError(f"give either the preset {name} or --resume {resume}, which has its own configuration")
    config = Config() if name is None else preset(name)
    if resume is not None:
        config = load_config(resume / "config.json")
    flags = flags[1:] if name is not None else flags
    prog = command_line("train")
    description = DESCRIPTION.format(prog=prog)
    arguments = parse_flags(Arguments, Arguments(config), flags, prog=prog, description=description)
    if arguments.backend is not None:
        env_id = on_backend(arguments.config.env_id, arguments.backend)
        arguments = dataclasses.replace(arguments, config=arguments.config.replace(env_id=env_id))
    if resume is not None and arguments.config.run_dir != config.run_dir:
        raise ConfigError(f"--run_dir {arguments.config.run_dir}: a resumed run stays in {resume}; leave it out")
    return arguments


def _find_resume(flags: Sequence[str]) -> Path | None:
    """The run that --resume names, which is needed before the other flags are parsed: they override its settings."""
    for flag, value in zip(flags, [*flags[1:], ""], strict=True):
        name, _, inline = flag.partition("=")
        if name == "--resume" and (inline or value) not in ("", AUTO):
            return Path(inline or value)
    return None


def main(flags: Sequence[str]) -> int:
    """Trains; returns 0, or 128 plus the signal number if stopped by a signal."""
    from trxl_jax.runs.trainer import train  # imported here because JAX takes seconds to import

    arguments = parse(flags)
    outcome = train(arguments.config, resume=arguments.resume)
    if outcome.signal is not None:
        resume = f"{command_line('train')} --resume {shlex.quote(str(outcome.run_dir))}"
        print(f"stopped at step {outcome.global_step:,}; continue with: {resume}")
        return 128 + outcome.signal
    score = outcome.metrics.get("episode/r_mean")
    score_text = "" if score is None else f", mean return {score:.2f} over the last 100 episodes"
    print(f"done: {outcome.global_step:,} steps{score_text}; see {outcome.run_dir}")
    return 0


def cli() -> int:
    """Entry point: runs the command with the process's arguments and returns the exit status."""
    return run_command(main, sys.argv[1:], prints_results=False)  # they are in the run's directory


if __name__ == "__main__":
    sys.exit(cli())
