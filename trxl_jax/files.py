"""Files that are written whole or not at all, and read only if they are what they should be."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CAN_NOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # errors of file systems without that call


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path next to `path` to write to, which is renamed to `path` afterwards: a crash or a full disk loses nothing.

    Nor does a loss of power: the content is on the disk before the name is. After an exception neither a new nor a
    partial file is left.
    """
    partial = path.with_name(path.name + ".part")
    partial.unlink(missing_ok=True)  # a link there would be followed
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until the disk has the content of a file, or the names in a directory.

    Raises:
        OSError: the disk failed or is full.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a directory may be open to writers only
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CAN_NOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def write_text_atomically(path: Path, text: str) -> None:
    """Replaces the content of a text file in one step.

    Raises:
        OSError: it can't be written; the old file is still there.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        OSError: it can't be read, is longer, or is no regular file: reading a pipe could wait for ever.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if found.st_size > most:
        raise OSError(errno.EFBIG, f"longer than {most:,} bytes", str(path))
    return path.read_bytes()


def read_text(path: Path, most: int = 2**24) -> str:
    """The content of a text file.

    Raises:
        OSError: as for `read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "not text (UTF-8)", str(path)) from None
