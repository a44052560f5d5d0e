"""Errors that the user can fix. Each message is one line that names the cause and the remedy."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path


class UserError(Exception):
    """An invalid flag, file or environment. Commands print the message and exit with status 2."""


class ConfigError(UserError, ValueError):
    """A flag, preset or configuration file that can't be used."""


class EnvironmentFailure(UserError, RuntimeError):
    """A host environment failed; the message names the environment, its index, seed and step."""


class Divergence(UserError, ArithmeticError):
    """An update produced numbers that are not finite."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that can't be written or read."""


@cache
def warn_once(text: str) -> None:
    """Prints a warning, one line on stderr, unless this process has printed it already."""
    with suppress(OSError, ValueError):  # nobody reads it
        print(f"warning: {text}", file=sys.stderr, flush=True)


@contextmanager
def disk_errors(directory: Path, flag: str) -> Iterator[None]:
    """Turns an `OSError` in writing to a directory into a `UserError`.

    Args:
        directory: where files are written.
        flag: the command-line flag that named it.

    Raises:
        UserError: the directory can't be written.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some disk space" if full else f"name another {flag}"
        raise UserError(f"can't write to {directory}: {error.strerror or error}; {remedy}") from error
