"""Files that are either whole or not there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path next to `path` to write to, which is renamed to `path` afterwards: a crash or a full disk loses nothing.

    After an exception neither a new nor a partial file is left.
    """
    partial = path.with_name(path.name + ".part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Replaces the content of a text file in one step.

    Raises:
        OSError: it can't be written; the old file is still there.
    """
    with atomic_path(path) as partial:
        partial.write_text(text)
