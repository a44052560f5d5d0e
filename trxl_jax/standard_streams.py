"""Standard output and error that may be closed, full, or unable to show a character."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class LastingStream:
    """A text stream that goes silent at the first error instead of raising it.

    Fields:
        failure: the error; None so far.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals that show ASCII only

    def write(self, text: str) -> int:
        """Writes a text, or nothing after an error; returns its length."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        self.failure = error
        # What is still buffered must go somewhere, or Python complains when the process ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)


@contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Makes `sys.stdout`, which is returned, and `sys.stderr` lasting; closed ones lead nowhere."""
    for descriptor in range(3):  # otherwise the next file that is opened becomes standard output
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    kept = sys.stdout, sys.stderr
    stdout, stderr = (LastingStream(stream or open(os.devnull, "w")) for stream in kept)  # noqa: SIM115
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield stdout
    finally:
        stdout.flush()
        stderr.flush()
        sys.stdout, sys.stderr = kept


def is_lost(stream: LastingStream) -> bool:
    """Whether output was lost otherwise than by a reader that went away (`| head`)."""
    return stream.failure is not None and stream.failure.errno != errno.EPIPE
