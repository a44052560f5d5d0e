"""The file `metrics.jsonl`: a row of numbers an update, one JSON object a line."""

import json
from pathlib import Path
from typing import NamedTuple

from trxl_jax.errors import ConfigError
from trxl_jax.files import read_bytes, sync, write_text_atomically

_LONGEST_FILE = 2**33  # bytes

_END = b"}\n"

Row = dict[str, float]


class Rows(NamedTuple):
    """The rows of a file.

    Fields:
        rows: in the file's order.
        lines: their text, without line ends.
        num_damaged: lines that are no rows. The end of a file that a process was killed while writing isn't counted.
    """

    rows: list[Row]
    lines: list[str]
    num_damaged: int


def read_rows(path: Path) -> Rows:
    """Reads the rows that are whole; a missing file has none.

    Raises:
        ConfigError: it is no file, or can't be read.
    """
    try:
        data = read_bytes(path, _LONGEST_FILE)
    except FileNotFoundError:
        return Rows([], [], 0)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; move it away") from None
    lines = data.split(b"\n")[:-1]
    found = [(row, line.decode()) for line in lines if (row := parse_row(line)) is not None]
    return Rows([row for row, _ in found], [line for _, line in found], len(lines) - len(found))


def parse_row(line: bytes) -> Row | None:
    """A row of metrics, with a global_step and an iteration; None if it is something else."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):  # not UTF-8, not JSON, an integer of thousands of digits
        return None
    if not isinstance(row, dict) or not {"global_step", "iteration"} <= set(row):
        return None
    return row if all(type(value) in (int, float) for value in row.values()) else None


class RowFile:
    """Appends rows to the file, and metrics to the newest row.

    Args:
        path: the file; made if it doesn't exist.
        iteration: updates already done; rows of later ones, written by an interrupted session, are dropped.

    Fields:
        newest: the row of the newest update; empty if there is none.
        num_damaged: lines that were no rows, and were dropped.

    Raises:
        ConfigError: it is no file.
        OSError: it can't be written.
    """

    def __init__(self, path: Path, iteration: int = 0) -> None:
        rows, lines, self.num_damaged = read_rows(path)
        kept = [line + "\n" for row, line in zip(rows, lines, strict=True) if row["iteration"] <= iteration]
        write_text_atomically(path, "".join(kept))
        self.newest = next((row for row in reversed(rows) if row["iteration"] == iteration), {})
        # Unbuffered, so that a row is one write: a process that is killed leaves it whole or not at all.
        self._file = path.open("r+b", buffering=0)
        self._path = path
        self._end = self._file.seek(0, 2)

    def append(self, row: Row) -> None:
        """Adds a row.

        Raises:
            OSError: it can't be written, for example because the disk is full; the rows before it are still there.
        """
        self._write(self._end, json.dumps(row).encode() + b"\n")
        self.newest = row

    def extend(self, metrics: Row) -> None:
        """Adds metrics to the newest row, if there is one.

        Raises:
            OSError: they can't be written; the row is as it was.
        """
        if not self.newest or not metrics:
            return
        start = self._end - len(_END)
        try:
            self._write(start, b", " + json.dumps(metrics)[1:].encode() + b"\n")
        except OSError:
            self._write(start, _END)
            raise
        self.newest = self.newest | metrics

    def sync(self) -> None:
        """Waits until the disk has the rows.

        Raises:
            OSError: it failed or is full.
        """
        sync(self._path)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, start: int, data: bytes) -> None:
        """Replaces what follows `start`."""
        end = start + len(data)
        self._file.seek(start)
        while data:  # the kernel writes a part of it where a disk or a limit leaves room for no more
            data = data[self._file.write(data) or 0 :]
        self._end = end
