"""Checksums of what Orbax writes without any: its metadata, and the counters of a run."""

import hashlib
import json
from pathlib import Path

from trxl_jax.errors import CheckpointError
from trxl_jax.files import read_bytes, read_text, write_text_atomically

_NAME = "checksums.json"
_LONGEST_FILE = 2**32  # bytes


def write(checkpoint: Path) -> None:
    """Adds `checksums.json` to a checkpoint: the SHA-256 of each file by its path, except arrays, which have their own.

    Raises:
        OSError: it can't be written.
    """
    write_text_atomically(checkpoint / _NAME, json.dumps(_sums(checkpoint), indent=1) + "\n")


def verify(checkpoint: Path) -> None:
    """Checks that a checkpoint holds nothing but files, and that they are those of which checksums were written.

    Checkpoints of version 0.1.0 have no checksums.

    Raises:
        CheckpointError: a file is missing or damaged, or is none.
    """
    try:
        for path in checkpoint.rglob("*"):
            if not (path.is_file() or (path.is_dir() and not path.is_symlink())):  # reading a pipe could last for ever
                raise _Damage(f"{path.relative_to(checkpoint)} is not a file")
        if not (checkpoint / _NAME).exists():
            return
        written, found = json.loads(read_text(checkpoint / _NAME)), _sums(checkpoint)
        for name, checksum in written.items():
            if found.get(name) != checksum:
                raise _Damage(f"{name} is missing or damaged")
    except (AttributeError, OSError, RecursionError, ValueError) as error:
        reason = error if isinstance(error, _Damage) else f"its {_NAME} is damaged"
        raise CheckpointError(
            f"can't read checkpoint {checkpoint}: {reason}; remove it to use an earlier one"
        ) from None


class _Damage(ValueError):
    """What is wrong with a file."""


def _sums(checkpoint: Path) -> dict[str, str]:
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.parent.name != "d"]
    return {
        str(path.relative_to(checkpoint)): hashlib.sha256(read_bytes(path, _LONGEST_FILE)).hexdigest()
        for path in files
        if path.name != _NAME
    }
