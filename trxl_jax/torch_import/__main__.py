"""Makes a run of a file of the PyTorch original: `python -m trxl_jax.torch_import FILE RUN_DIR [--flags]`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from trxl_jax.cli import command_line, parse_flags, run_command
from trxl_jax.config import Config
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import ConfigError
from trxl_jax.runs.trainer import write_start
from trxl_jax.torch_import.checkpoint import fit_to_task, open_file

DESCRIPTION = """Turns a checkpoint of the original into a run directory, which `train --resume` fine-tunes.

{prog} FILE RUN_DIR [--flags]; flags change what the file says of its own training. The
optimiser starts fresh, and the run at update 0."""


def main(flags: Sequence[str]) -> int:
    """Writes a run directory from a file; 0 when done."""
    prog = command_line("import")
    description = DESCRIPTION.format(prog=prog)
    if len(flags) < 2 or any(flag.startswith("-") for flag in flags[:2]):
        if "--help" in flags or "-h" in flags:
            parse_flags(Config, Config(), ["--help"], prog=prog, description=description)
        raise ConfigError(f"name a file and a new directory: {prog} FILE RUN_DIR [--flags]")
    file, run_dir = open_file(Path(flags[0])), flags[1]
    for note in file.notes:
        print(note)
    default = file.config.replace(run_dir=run_dir)
    config = parse_flags(Config, default, flags[2:], prog=prog, description=description)
    if config.run_dir != run_dir:
        raise ConfigError(f"--run_dir {config.run_dir}: the run goes to {run_dir}; leave it out")
    env = make_env(config)
    try:
        checkpoint = fit_to_task(file, config, env.spec)
        write_start(checkpoint.config, env, checkpoint.params)
    finally:
        env.close()
    for note in checkpoint.notes[len(file.notes) :]:
        print(note)
    print(f"wrote {run_dir}; fine-tune it with: {command_line('train')} --resume {shlex.quote(run_dir)}")
    return 0


def cli() -> int:
    """The command, with the flags that were typed."""
    return run_command(main, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(cli())
