"""Converts a PyTorch checkpoint into a run directory: `python -m trxl_jax.torch_import FILE RUN_DIR [--flags]`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from trxl_jax.cli import command_line, parse_flags, run_command
from trxl_jax.config import Config
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import ConfigError, printable
from trxl_jax.runs.trainer import write_start
from trxl_jax.torch_import.checkpoint import fit_to_task, open_file

DESCRIPTION = """Converts a checkpoint of the original PyTorch implementation into a run for `train --resume`.

{prog} FILE RUN_DIR [--flags]; flags override the settings stored in the file. The run starts
at update 0 with a new optimiser state."""


def main(flags: Sequence[str]) -> int:
    """Writes a run directory from a checkpoint; returns 0."""
    prog = command_line("import")
    description = DESCRIPTION.format(prog=prog)
    if len(flags) < 2 or any(flag.startswith("-") for flag in flags[:2]):
        if "--help" in flags or "-h" in flags:
            parse_flags(Config, Config(), ["--help"], prog=prog, description=description)
        raise ConfigError(f"give a file and a new directory: {prog} FILE RUN_DIR [--flags]")
    file, run_dir = open_file(Path(flags[0])), flags[1]
    for note in file.notes:
        print(printable(note))
    default = file.config.replace(run_dir=run_dir)
    config = parse_flags(Config, default, flags[2:], prog=prog, description=description)
    if config.run_dir != run_dir:
        raise ConfigError(f"--run_dir {config.run_dir}: the run is written to {run_dir}; leave this flag out")
    env = make_env(config)
    try:
        checkpoint = fit_to_task(file, config, env.spec)
        write_start(checkpoint.config, env, checkpoint.params)
    finally:
        env.close()
    for note in checkpoint.notes[len(file.notes) :]:
        print(printable(note))
    allow = " --allow_import" if ":" in config.env_id else ""
    print(f"wrote {run_dir}; fine-tune it with: {command_line('train')} --resume {shlex.quote(run_dir)}{allow}")
    return 0


def cli() -> int:
    """Entry point: runs the command with the process's arguments and returns the exit status."""
    return run_command(main, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(cli())
