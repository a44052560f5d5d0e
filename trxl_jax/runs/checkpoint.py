"""Orbax checkpoints of a run: arrays with typed targets, counters as JSON. `run.py` decides what is saved."""

import errno
import gc
import io
import logging
import math
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from trxl_jax.errors import CheckpointError
from trxl_jax.files import sync
from trxl_jax.runs import checksums

_STATE, _RUN = "state", "run"
_NUMBER = "(0|[1-9][0-9]{0,18})"
_PARTS = {_STATE, _RUN, "_CHECKPOINT_METADATA", "commit_success.txt", "checksums.json", "checksums.json.part"}
_CAN_NOT_RESERVE = (errno.EINVAL, errno.EOPNOTSUPP)  # errors of file systems without that call
_STRAGGLERS = 1.0  # seconds for threads of a failed call to end


def save(directory: Path, iteration: int, state: Any, run: dict[str, Any], keep: int | None) -> Path:
    """Writes `directory/<iteration>` and removes all but the newest `keep`; returns its path.

    A save that fails or is killed leaves the earlier checkpoints unchanged: Orbax writes to a temporary directory.

    Args:
        directory: the run's `checkpoints`.
        iteration: updates done.
        state: a pytree of arrays; typed PRNG keys are allowed.
        run: what else there is, JSON; NumPy arrays in it become lists.
        keep: number of checkpoints to keep; None: all.

    Raises:
        CheckpointError: it can't be written, for example because the disk is full.
    """
    path = directory / str(iteration)
    run = jax.tree.map(lambda leaf: leaf.tolist() if isinstance(leaf, np.ndarray) else leaf, run)

    def write() -> None:
        _reserve(directory, sum(leaf.nbytes for leaf in jax.tree.leaves(_with_key_data(state))))
        with _manager(directory) as manager:
            items = {_STATE: ocp.args.StandardSave(_with_key_data(state)), _RUN: ocp.args.JsonSave(run)}
            manager.save(iteration, args=ocp.args.Composite(**items), force=True)
            manager.wait_until_finished()
        checksums.write(path)
        for written in (*path.rglob("*"), path, directory, directory.parent, directory.parent.parent):
            sync(written)
        for old in _numbered(directory)[: -keep if keep else 0]:  # now that nothing can take the new one away
            shutil.rmtree(old, ignore_errors=True)

    _, problem = _attempt(write)
    if problem is not None:
        newest = latest(directory)
        kept = f"the newest complete one is {newest}" if newest else "there is none yet"
        raise CheckpointError(f"can't save checkpoint {path}: {problem}; free some disk space; {kept}")
    return path


def _reserve(directory: Path, size: int) -> None:
    """Fails at once where the disk has no room for a checkpoint: TensorStore's threads complain for long.

    Raises:
        OSError: the disk, a quota or the limit on files' sizes leaves less than `size` bytes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
        if hasattr(os, "posix_fallocate"):  # macOS lacks it
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                return
            except OSError as error:
                if error.errno not in _CAN_NOT_RESERVE:
                    raise
        file.write(bytes(size))


def latest(directory: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    return next(reversed(_numbered(directory)), None)


def _numbered(directory: Path) -> list[Path]:
    """The checkpoints in a directory, from the oldest to the newest."""
    found = list(directory.iterdir()) if directory.is_dir() else []
    numbered = [path for path in found if re.fullmatch(_NUMBER, path.name) and path.is_dir()]
    return sorted(numbered, key=lambda path: int(path.name))


def is_own(path: Path) -> bool:
    """Whether it looks like a checkpoint of this project, also one whose saving or removal was killed."""
    if path.is_symlink() or not path.is_dir():
        return False
    if re.fullmatch(_NUMBER, path.name):
        return {part.name for part in path.iterdir()} <= _PARTS
    return re.fullmatch(rf"{_NUMBER}\.orbax-checkpoint-tmp.*", path.name) is not None


def restore(path: Path, target: Any) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint.

    Args:
        path: one checkpoint, as `latest` names it.
        target: a pytree like the saved one; its shapes, dtypes and devices are what is returned.

    Returns:
        The state, and the JSON saved with it.

    Raises:
        CheckpointError: it is incomplete, damaged, not ours, or of another shape.
    """
    if not (path / _STATE).is_dir() or not (path / _RUN).is_dir():
        raise CheckpointError(f"{path} is not a complete checkpoint of trxl_jax; remove it to use an earlier one")
    checksums.verify(path)
    abstract = jax.tree.map(_like, _with_key_data(target))

    def read() -> tuple[Any, dict[str, Any]]:
        with _manager(path.parent) as manager:
            items = {_STATE: ocp.args.StandardRestore(abstract), _RUN: ocp.args.JsonRestore()}
            restored = manager.restore(int(path.name), args=ocp.args.Composite(**items))
            return _with_keys(restored[_STATE], target), restored[_RUN]

    restored, problem = _attempt(read)
    if problem is not None:
        raise CheckpointError(
            f"can't read checkpoint {path}: {problem}; if it is damaged, remove it to use an earlier one"
        )
    return restored


def check(path: Path) -> None:
    """Reads a checkpoint once into the host's memory, to see whether it can be read.

    Raises:
        CheckpointError: it can't.
    """
    _read(path, _as_numpy)


def params_shapes(path: Path) -> Any:
    """Shapes and dtypes of the parameters in a checkpoint, a tree of `jax.ShapeDtypeStruct`.

    Args:
        path: one checkpoint of a run, as `latest` names it.

    Raises:
        CheckpointError: it is incomplete, damaged or not ours.
    """

    def shapes(_: Any, __: Path, stored: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), stored[0]["params"])

    return _read(path, shapes)


def restore_params(path: Path) -> Any:
    """Reads the agent's parameters alone, onto the default device; the rest of the state isn't touched.

    Their sizes are those that the checkpoint names; see `params_shapes`.

    Args:
        path: as for `params_shapes`.

    Raises:
        CheckpointError: as for `params_shapes`.
    """

    def params(checkpointer: ocp.Checkpointer, directory: Path, stored: Any) -> Any:
        target = jax.tree.map(lambda _: ocp.PLACEHOLDER, stored)
        target[0]["params"] = stored[0]["params"]
        # By way of NumPy, so that it doesn't matter on which devices they were.
        return jax.tree.map(jnp.asarray, _as_numpy(checkpointer, directory, target)[0]["params"])

    return _read(path, params)


def _read(path: Path, call: Callable[[ocp.Checkpointer, Path, Any], Any]) -> Any:
    """What a call returns for the state of a checkpoint, given a reader, its directory and its metadata."""
    if not (path / _STATE).is_dir():
        raise CheckpointError(f"{path} is not a complete checkpoint of trxl_jax; name an earlier one")
    checksums.verify(path)

    def read() -> Any:
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        with (
            _plain(path) as plain,
            ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**_processes()), **_processes()) as checkpointer,
        ):
            stored = checkpointer.metadata(plain / _STATE).item_metadata.tree  # (train state, rollout state)
            for leaf in jax.tree.leaves(stored):
                if math.prod(leaf.storage.chunk_shape) > math.prod(leaf.shape):
                    raise ValueError(f"{leaf.name} of shape {leaf.shape} is stored in pieces of another size")
            return call(checkpointer, plain / _STATE, stored)

    result, problem = _attempt(read)
    if problem is not None:
        raise CheckpointError(f"can't read checkpoint {path}: {problem}; if it is damaged, name an earlier one")
    return result


def _as_numpy(checkpointer: ocp.Checkpointer, directory: Path, target: Any) -> Any:
    kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    return checkpointer.restore(directory, ocp.args.PyTreeRestore(target, kinds))


def restore_run(path: Path) -> dict[str, Any]:
    """Reads the JSON that was saved with a checkpoint.

    Args:
        path: one checkpoint of a run, as `latest` names it.

    Raises:
        CheckpointError: it is incomplete, damaged or not ours.
    """
    checksums.verify(path)

    def read() -> dict[str, Any]:
        with _manager(path.parent) as manager:
            restored = manager.restore(int(path.name), args=ocp.args.Composite(**{_RUN: ocp.args.JsonRestore()}))
            return dict(restored[_RUN])

    run, problem = _attempt(read)
    if problem is not None:
        raise CheckpointError(f"can't read checkpoint {path}: {problem}; if it is damaged, remove it")
    return run


def is_published(path: Path) -> bool:
    """Whether a checkpoint is that of a published agent, which has parameters only; a damaged one is none."""
    try:
        return bool(restore_run(path).get("published"))
    except CheckpointError:
        return False


def _attempt(call: Callable[[], Any]) -> tuple[Any, str | None]:
    """What a call of Orbax returns, or in a line what went wrong: it raises many kinds, which mean the same to users.

    When a call fails, Orbax's coroutines complain as they are collected and TensorStore's threads as they find the
    event loop closed; both are waited for, and what they print to stderr is dropped.
    """
    hook = sys.unraisablehook
    with redirect_stderr(io.StringIO()), warnings.catch_warnings():
        try:
            return call(), None
        except Exception as error:  # see above
            problem = _reason(error)
        warnings.simplefilter("ignore")
        sys.unraisablehook = lambda _: None
        gc.collect()
        time.sleep(_STRAGGLERS)
    sys.unraisablehook = hook
    return None, problem


@contextmanager
def _manager(directory: Path) -> Iterator[ocp.CheckpointManager]:
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs every step of a save, and every error
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False, **_alone())
    with _plain(directory) as plain, ocp.CheckpointManager(plain, options=options) as manager:
        yield manager


def _alone() -> dict[str, Any]:
    """Options for a process that trains with others: it saves and restores by itself, as `run.py` arranges."""
    if jax.process_count() == 1:
        return {}
    return {"create": False, **_processes()}


def _processes() -> dict[str, Any]:
    if jax.process_count() == 1:
        return {}
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=str(me))
    return {"multiprocessing_options": alone}


@contextmanager
def _plain(directory: Path) -> Iterator[Path]:
    """A path of a directory that Orbax understands: it takes brackets for a pattern and `gs:` for a protocol."""
    directory = directory.absolute()
    if re.fullmatch(r"[\w/. -]*", str(directory)):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="trxl_jax_") as folder:
        link = Path(folder) / "checkpoints"
        link.symlink_to(directory, target_is_directory=True)
        yield link


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."


def _like(leaf: jax.Array) -> Any:
    """What an array is to be restored to: one like it, or if other processes train too, NumPy."""
    return ocp.utils.to_shape_dtype_struct(leaf) if jax.process_count() == 1 else np.zeros(leaf.shape, leaf.dtype)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _with_key_data(tree: Any) -> Any:
    """Typed PRNG keys as plain integers, which is all that Orbax can store."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _with_keys(tree: Any, like: Any) -> Any:
    return jax.tree.map(
        lambda leaf, old: jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(old)) if _is_key(old) else leaf,
        tree,
        like,
    )
