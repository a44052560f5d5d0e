"""Shared by all commands: parsing flags with tyro, reporting errors in one line, setting up JAX's compilation cache."""

import io
import logging
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TypeVar

import tyro

from trxl_jax.errors import UserError, printable
from trxl_jax.signals import exit_at_once
from trxl_jax.standard_streams import is_lost, lasting_streams
from trxl_jax.values import parse_whole_number

USAGE_ERROR = 2
_MODULES = {
    "train": "trxl_jax.commands.train",
    "enjoy": "trxl_jax.commands.enjoy",
    "experiments": "trxl_jax.experiments",
    "plot": "trxl_jax.plot",
    "import": "trxl_jax.torch_import",
    "publish": "trxl_jax.publish",
}
_SCRIPTS = ("train.py", "enjoy.py")
_BOX = "─│╭╮╰╯"

Arguments = TypeVar("Arguments")
_LONGEST_MESSAGE = 500  # characters; it repeats the values that were typed
_registry = tyro.constructors.ConstructorRegistry()


@_registry.primitive_rule
def _whole_number_flag(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
    """Makes integer flags take 1e6 as well."""
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda args: parse_whole_number(args[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def parse_flags(
    kind: type[Arguments], default: Arguments, flags: Sequence[str], *, prog: str, description: str
) -> Arguments:
    """Parses flags into a dataclass; `-` and `_` in flag names are equivalent.

    Args:
        kind: the dataclass.
        default: values of fields whose flag isn't given.
        flags: the command line.
        prog: name of the program, for the help text.
        description: description of the program, for the help text.

    Raises:
        UserError: a flag or value can't be parsed; the message is one line.
        SystemExit: after `--help`.
    """
    stderr = io.StringIO()
    try:
        with redirect_stderr(stderr):
            return tyro.cli(
                kind,
                default=default,
                args=flags,
                prog=prog,
                description=description,
                use_underscores=True,
                registry=_registry,
            )
    except SystemExit as error:
        if error.code in (None, 0):
            raise
        raise UserError(_one_line(stderr.getvalue())) from None


def command_line(name: str) -> str:
    """What to type to start one of the commands, in the form in which this process was started.

    Args:
        name: train, enjoy, experiments, plot or import.

    Returns:
        `trxl-<name>` in a process that a console script started, `python train.py` or `python enjoy.py` in one that a
        script of the repository started, and else `python -m <module>`, which works wherever the package is installed.
    """
    typed = Path(sys.argv[0])
    if typed.stem.startswith("trxl-"):
        return f"trxl-{name}"
    script = f"{name}.py"
    is_module = getattr(sys.modules["__main__"], "__spec__", None) is not None
    if typed.name in _SCRIPTS and script in _SCRIPTS and not is_module:
        return shlex.join(["python", str(typed.with_name(script))])
    return f"python -m {_MODULES[name]}"


def run_command(command: Callable[[Sequence[str]], int], flags: Sequence[str], *, prints_results: bool = True) -> int:
    """Runs a command and returns its exit status; a `UserError` becomes one line and status 2.

    Args:
        command: takes the flags and returns the exit status.
        flags: the command line.
        prints_results: whether what the command prints is its result, so that it has failed if that couldn't be
            written. A reader that has seen enough (`| head`) is no failure.
    """
    with exit_at_once(), lasting_streams() as stdout:
        status = _run(command, flags)
        stdout.flush()
        if status == 0 and prints_results and is_lost(stdout):
            return report(f"can't write to standard output: {stdout.failure}")
        return status


def _run(command: Callable[[Sequence[str]], int], flags: Sequence[str]) -> int:
    # A cache that can't be written, for example on a full disk, only costs time.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)
    try:
        import jax  # imported here because it takes seconds, during which Ctrl-C must be handled

        if not os.environ.get("JAX_COMPILATION_CACHE_DIR") and (cache := cache_directory()) is not None:
            jax.config.update("jax_compilation_cache_dir", str(cache))
        return command(flags)
    except UserError as error:
        return report(str(error))
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def report(error: str) -> int:
    """Prints an error in one line and returns the exit status for it."""
    print(printable(f"error: {error}"), file=sys.stderr)
    return USAGE_ERROR


def cache_directory() -> Path | None:
    """Default directory of JAX's persistent compilation cache, used unless JAX_COMPILATION_CACHE_DIR is set.

    None for a user without a home directory: others could write to any directory that everybody knows.
    """
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return caches.absolute() / "trxl_jax"


def _one_line(box: str) -> str:
    """Tyro's error message as one line, without its box, its hint about the help text, and most of a long value."""
    lines = [line.strip(_BOX + " ") for line in box.splitlines()[1:]]
    text = " ".join(line for line in lines if line and "full helptext" not in line)
    text = re.sub(r"^Error parsing (--\w+): ", r"\1: ", text.split(" Argument helptext:")[0])
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."
