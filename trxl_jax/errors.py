"""Errors that the user can fix. Each message is one line that names the cause and the remedy."""

import errno
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

_LONGEST_LINE = 2000  # characters


class UserError(Exception):
    """An invalid flag, file or environment. Commands print the message and exit with status 2."""


class ConfigError(UserError, ValueError):
    """A flag, preset or configuration file that can't be used."""


class EnvironmentFailure(UserError, RuntimeError):
    """A host environment failed; the message names the environment, its index, seed and step."""


class Divergence(UserError, ArithmeticError):
    """An update produced numbers that are not finite."""


class LostProcess(UserError, RuntimeError):
    """Another process that trained the same run is gone."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that can't be written or read."""


@cache
def warn_once(text: str) -> None:
    """Prints a warning, one line on stderr, unless this process has printed it already."""
    with suppress(OSError, ValueError):  # nobody reads it
        print(printable(f"warning: {text}"), file=sys.stderr, flush=True)


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


def brief(value: Any) -> str:
    """A value as an error's message shows it: in one line, and not long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # the value is an object of anybody's, or an integer of thousands of digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:80]}..."


def is_text(text: str) -> bool:
    """Whether it has neither control characters (such as escape codes for terminals) nor halves of characters."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def printable(text: str) -> str:
    """One line to print, whatever files and environments put into it.

    Control characters, invisible ones and halves of characters are shown as escape sequences, which a terminal doesn't
    interpret. A very long line is cut.
    """
    text = text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}..."
    return "".join(_escaped(c) if unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
