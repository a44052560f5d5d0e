"""Errors that are the user's to mend: each carries one line that names the cause and the remedy."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """A mistake in flags, files or environments. Commands print the line and exit with status 2."""


class ConfigError(UserError, ValueError):
    """A flag, preset or configuration file that can't be used."""


class EnvironmentFailure(UserError, RuntimeError):
    """A host environment went wrong; the message names the environment, its index, seed and step."""


class Divergence(UserError, ArithmeticError):
    """An update that computed what is not finite."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that can't be written or read."""


@contextmanager
def disk_errors(directory: Path, flag: str) -> Iterator[None]:
    """A `UserError` in place of the error of a directory, named by a flag, that can't be written."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some disk space" if full else f"name another {flag}"
        raise UserError(f"can't write to {directory}: {error.strerror or error}; {remedy}") from error
