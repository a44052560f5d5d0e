"""The file `metrics.jsonl`: one JSON object an update."""

import json
from pathlib import Path

from trxl_jax.files import write_text_atomically

Row = dict[str, float]
_END = b"}\n"


class MetricRows:
    """Appends rows to the file, and metrics to the newest row.

    Args:
        path: the file; made if it doesn't exist.
        iteration: updates already done; rows of later ones, written by an interrupted session, are dropped.

    Fields:
        newest: the row of the newest update; empty if there is none.

    Raises:
        OSError: the file can't be written.
    """

    def __init__(self, path: Path, iteration: int = 0) -> None:
        self.newest = _drop_rows_after(path, iteration) if path.is_file() else {}
        # Unbuffered, so that a row is one write: a process that is killed leaves it whole or not at all.
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
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


def _drop_rows_after(path: Path, iteration: int) -> Row:
    """Removes the rows after an iteration; returns that iteration's row."""
    kept: list[str] = []
    newest: Row = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the last line, if a process was killed while writing it
            break
        if row["iteration"] <= iteration:
            kept.append(line + "\n")
        if row["iteration"] == iteration:
            newest = row
    write_text_atomically(path, "".join(kept))
    return newest
