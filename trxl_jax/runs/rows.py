"""Reads `metrics.jsonl`: a row of numbers an update, one JSON object a line."""

import json
from pathlib import Path
from typing import NamedTuple

from trxl_jax.errors import ConfigError
from trxl_jax.files import read_bytes

_LONGEST_FILE = 2**33  # bytes

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
