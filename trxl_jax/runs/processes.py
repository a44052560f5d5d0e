"""Several processes that train one run: how they start, and how they tell each other what only one of them knows.

All run the same loop. The first one, the leader, has the run's directory, prints, evaluates and films; the others write
what they would log into a directory of their own that is thrown away.
"""

import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from trxl_jax.cli import report
from trxl_jax.config import Config
from trxl_jax.errors import ConfigError, LostProcess, UserError
from trxl_jax.runs.directory import OwnedDirectory, own_directory

_NO_ANSWER = (
    r"^(UNKNOWN|INTERNAL|ABORTED|UNAVAILABLE|DEADLINE_EXCEEDED): .*(Gloo|NCCL|[Cc]onnection|[Bb]arrier|[Cc]oordination)"
)
"""How messages begin of XLA's exchanges on CPUs and GPUs, and of JAX's distributed service."""

_LEADER_WAITS = 2  # seconds


class Processes(NamedTuple):
    """What the command line says of processes.

    Fields:
        coordinator: HOST:PORT of the leader; None: what Slurm or a TPU pod sets.
        process: number of this process.
        processes: how many there are, or "auto"; None: a single one, which starts nothing.
    """

    coordinator: str | None = None
    process: int | None = None
    processes: int | str | None = None


def start(processes: Processes) -> None:
    """Joins the other processes; call it before anything else uses JAX.

    Raises:
        ConfigError: flags that don't fit together, or the coordinator doesn't answer.
    """
    coordinator, process, count = processes
    if count is None:
        if coordinator is not None or process is not None:
            raise ConfigError(
                "--processes: give the number of processes; with --processes auto Slurm or a TPU pod says"
            )
        return
    if isinstance(count, int):
        if coordinator is None or process is None:
            missing = "coordinator" if coordinator is None else "process"
            raise ConfigError(f"--processes {count}: --{missing} is missing; or write --processes auto under Slurm")
        if not 0 <= process < count:
            raise ConfigError(f"--process {process}: must be at least 0 and less than --processes {count}")
    try:
        jax.distributed.initialize(coordinator, count if isinstance(count, int) else None, process)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"--processes: the processes could not find each other: {reason}") from None


@contextmanager
def lost_processes() -> Iterator[None]:
    """Turns the errors of whatever exchanges numbers with a process that is gone into `LostProcess`."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if jax.process_count() == 1 or isinstance(error, UserError) or not re.match(_NO_ANSWER, str(error)):
            raise
        reason = str(error).splitlines()[0][:200]
        raise LostProcess(
            f"another process of this run is gone ({reason}); see what it printed, and resume the run with all of them"
        ) from error


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Ends one process of several at once when it fails, with status 2, or 1 and a traceback for a fault of ours.

    JAX's own way out waits for all processes, which wait for this one's numbers: it ends after five minutes with a
    stack trace. Those that are left see at once that it is gone. The leader waits, because with it goes the service
    that would end the others before they have said why they end.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        status = 1
        if isinstance(error, UserError):
            status = report(str(error))
        else:
            traceback.print_exc()
        if is_leader():
            time.sleep(_LEADER_WAITS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def is_leader() -> bool:
    """Whether this process is the first, or the only one."""
    return jax.process_index() == 0


def tell(value: Any = None) -> Any:
    """What the leader passes, JSON; all processes must call it."""
    if jax.process_count() == 1:
        return value
    return gather(value)[0]


def gather(value: Any) -> list[Any]:
    """What each process passes, JSON, in their order; all processes must call it."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(data)))).reshape(-1)
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(data)] = data
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


@contextmanager
def shared_directory(config: Config, resume: Path | str | None) -> Iterator[OwnedDirectory]:
    """As `own_directory` for the leader; for others a directory that is thrown away, and the leader's checkpoints.

    Raises:
        UserError: as `own_directory` of the leader does.
    """
    if is_leader():
        with ExitStack() as stack:
            try:
                owned = stack.enter_context(own_directory(config, resume))
            except UserError as error:
                tell({"error": str(error)})
                raise
            tell({"resumed": owned.resumed, "checkpoints": str(owned.checkpoints)})
            yield owned
        return
    told = tell()
    if "error" in told:
        raise UserError(f"process 0: {told['error']}")
    with tempfile.TemporaryDirectory(prefix="trxl_jax_") as path:
        yield OwnedDirectory(Path(path), told["resumed"], Path(told["checkpoints"]))
