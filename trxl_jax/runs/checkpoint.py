"""Orbax checkpoints of a run: arrays with typed targets, counters as JSON. `trainer.py` decides what is saved."""

import errno
import gc
import io
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from trxl_jax.errors import CheckpointError

_STATE, _RUN = "state", "run"
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
        with _manager(directory, keep) as manager:
            items = {_STATE: ocp.args.StandardSave(_with_key_data(state)), _RUN: ocp.args.JsonSave(run)}
            manager.save(iteration, args=ocp.args.Composite(**items), force=True)
            manager.wait_until_finished()

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
    steps = [int(path.name) for path in directory.glob("*") if path.name.isdigit()] if directory.is_dir() else []
    return directory / str(max(steps)) if steps else None


def restore(path: Path, target: Any) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint.

    Args:
        path: one checkpoint, as `latest` names it.
        target: a pytree like the saved one; its shapes, dtypes and devices are what is returned.

    Returns:
        The state, and the JSON saved with it.

    Raises:
        CheckpointError: it is incomplete, not ours, or of another shape.
    """
    if not (path / _STATE).is_dir() or not (path / _RUN).is_dir():
        raise CheckpointError(f"{path} is not a complete checkpoint of trxl_jax; remove it to use an earlier one")
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _with_key_data(target))

    def read() -> tuple[Any, dict[str, Any]]:
        with _manager(path.parent, None) as manager:
            items = {_STATE: ocp.args.StandardRestore(abstract), _RUN: ocp.args.JsonRestore()}
            restored = manager.restore(int(path.name), args=ocp.args.Composite(**items))
            return _with_keys(restored[_STATE], target), restored[_RUN]

    restored, problem = _attempt(read)
    if problem is not None:
        raise CheckpointError(
            f"can't read checkpoint {path}: {problem}; if it is damaged, remove it to use an earlier one"
        )
    return restored


def restore_params(path: Path) -> Any:
    """Reads the agent's parameters alone, onto the default device; the rest of the state isn't touched.

    Args:
        path: one checkpoint of a run, as `latest` names it.

    Raises:
        CheckpointError: it is incomplete, damaged or not ours.
    """
    if not (path / _STATE).is_dir():
        raise CheckpointError(f"{path} is not a complete checkpoint of trxl_jax; name an earlier one")
    directory = (path / _STATE).absolute()

    def read() -> Any:
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            stored = checkpointer.metadata(directory).item_metadata.tree  # (train state, rollout state)
            target = jax.tree.map(lambda _: ocp.PLACEHOLDER, stored)
            target[0]["params"] = stored[0]["params"]
            # By way of NumPy, so that it doesn't matter on which devices they were.
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
            restored = checkpointer.restore(directory, ocp.args.PyTreeRestore(target, kinds))
            return jax.tree.map(jnp.asarray, restored[0]["params"])

    params, problem = _attempt(read)
    if problem is not None:
        raise CheckpointError(f"can't read checkpoint {path}: {problem}; if it is damaged, name an earlier one")
    return params


def restore_run(path: Path) -> dict[str, Any]:
    """Reads the JSON that was saved with a checkpoint.

    Args:
        path: one checkpoint of a run, as `latest` names it.

    Raises:
        CheckpointError: it is incomplete, damaged or not ours.
    """

    def read() -> dict[str, Any]:
        with _manager(path.parent, None) as manager:
            restored = manager.restore(int(path.name), args=ocp.args.Composite(**{_RUN: ocp.args.JsonRestore()}))
            return dict(restored[_RUN])

    run, problem = _attempt(read)
    if problem is not None:
        raise CheckpointError(f"can't read checkpoint {path}: {problem}; if it is damaged, remove it")
    return run


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


def _manager(directory: Path, keep: int | None) -> ocp.CheckpointManager:
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs every step of a save, and every error
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
    return ocp.CheckpointManager(directory.absolute(), options=options)


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."


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
