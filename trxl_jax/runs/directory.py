"""A run's directory: made for one run, and used by one process at a time."""

import errno
import fcntl
import itertools
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from trxl_jax.config import AUTO, Config
from trxl_jax.errors import ConfigError, UserError, disk_errors
from trxl_jax.runs import checkpoint

LOCK = "lock"
"""The file in a run's directory that its process has locked."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # errors of file systems without locks


class OwnedDirectory(NamedTuple):
    """A directory that no other process trains in.

    Fields:
        path: the directory, which exists.
        resumed: whether the run in it is to be continued.
        checkpoints: the directory of the run's checkpoints.
    """

    path: Path
    resumed: bool
    checkpoints: Path


@contextmanager
def own_directory(config: Config, resume: Path | str | None) -> Iterator[OwnedDirectory]:
    """Makes the directory of a new run, or takes that of an old one, and locks it until the block ends.

    The lock ends with the process however it ends. A new directory in which nothing was written is removed.

    Args:
        config: `run_dir` is the directory; None: a name that no other run has.
        resume: the directory of a run to continue, `AUTO`, or None for a new run. A new run may use a directory whose
            run has no checkpoint, and starts over.

    Raises:
        UserError: another process trains there, there is a run already, or it can't be written.
    """
    resume = None if resume is None else str(resume)
    if resume == AUTO and config.run_dir is None:
        raise ConfigError(f"--resume {AUTO} needs --run_dir: the directory in which the run is started or continued")
    named = config.run_dir if resume in (None, AUTO) else resume
    with disk_errors(Path(named or "runs"), "--run_dir"):
        path, is_new = (_make_unnamed(config), True) if named is None else _make_named(Path(named))
    try:
        with _lock(path):
            has_run = checkpoint.latest(path / "checkpoints") is not None
            if has_run and resume is None:
                raise ConfigError(f"--run_dir {path}: holds a run already; go on with --resume {path}, or name another")
            # Absolute, because an environment may change the working directory.
            path, resumed = path.absolute(), has_run if resume == AUTO else resume is not None
            yield OwnedDirectory(path, resumed, path / "checkpoints")
    finally:
        if is_new:
            _remove_if_empty(path)


def _make_unnamed(config: Config) -> Path:
    name = f"{config.env_id}__{config.exp_name}__{config.seed}__{int(time.time())}".replace("/", "_")
    for count in itertools.count(1):
        path = Path("runs") / (name if count == 1 else f"{name}_{count}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)  # only one of several processes succeeds
            return path
    raise AssertionError  # not reached


def _make_named(path: Path) -> tuple[Path, bool]:
    """The directory, made if necessary; returns whether it was."""
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise ConfigError(f"--run_dir {path}: {part} is a file; name a directory")
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    return path, is_new


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with disk_errors(path, "--run_dir"):
        file = _open_locked(path)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    with file:
        try:
            yield
        finally:
            with suppress(OSError):
                (path / LOCK).unlink()


def _open_locked(path: Path) -> TextIO:
    """The directory's lock file, locked."""
    while True:
        file = (path / LOCK).open("a+", errors="replace")
        try:
            # This kind of lock, unlike flock's, isn't inherited by processes that an environment forks.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return file
            file.seek(0)
            owner = file.read(200).strip() or "another process"
            raise UserError(f"{path} is being trained by {owner}; wait for it, or name another directory") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), (path / LOCK).stat()):
                return file
        file.close()  # its owner ended and removed it after we had opened it


def _remove_if_empty(path: Path) -> None:
    with suppress(OSError):
        path.rmdir()
