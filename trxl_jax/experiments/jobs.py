"""Training runs as subprocesses, some at a time; what they print goes to logs beside their directories."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from trxl_jax.errors import UserError, disk_errors
from trxl_jax.runs.signals import StopSignals, stop_signals

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_BETWEEN_LINES = 60.0
_TAIL = 2**16  # bytes, many times a row of metrics


class Job(NamedTuple):
    """A run to start when its turn comes.

    Fields:
        name: what lines call it.
        directory: the run's directory.
        total_timesteps: its steps when it is done.
        command: the process's arguments as of now, or None if there is nothing left to do. May raise a `UserError`.
    """

    name: str
    directory: Path
    total_timesteps: int
    command: Callable[[], list[str] | None]

    @property
    def log(self) -> Path:
        """Where the process's output goes."""
        return self.directory.with_name(self.directory.name + ".log")


class _Child(NamedTuple):
    job: Job
    process: subprocess.Popen[bytes]
    started: float


def default_jobs() -> int:
    """Half the number of cores: a run keeps about two of them busy."""
    return max((os.cpu_count() or 1) // 2, 1)


def run_all(jobs: Sequence[Job], at_once: int) -> int:
    """Runs jobs and tells when each starts and ends. One that fails doesn't stop the others.

    SIGINT and SIGTERM are passed on to the processes, which save and end; the other jobs aren't started.

    Args:
        jobs: what to run, in this order.
        at_once: number of processes at a time.

    Returns:
        0, or 128 plus the signal's number.

    Raises:
        UserError: some failed.
    """
    failed: list[Job] = []
    with stop_signals() as stop:
        stop.deferred = True
        children: list[_Child] = []
        try:
            _loop(deque(jobs), children, failed, at_once, stop)
        finally:
            for child in children:  # only after an exception, such as that of a second Ctrl-C
                child.process.kill()
    if stop:
        return 128 + stop.received[0]
    if failed:
        names = ", ".join(str(job.log) for job in failed)
        raise UserError(f"{len(failed)} of {len(jobs)} runs failed; see {names}")
    return 0


def _loop(waiting: deque[Job], children: list[_Child], failed: list[Job], at_once: int, stop: StopSignals) -> None:
    told, forwarded = time.monotonic(), False
    while waiting or children:
        if stop and not forwarded:
            forwarded = True
            waiting.clear()
            name = signal.Signals(stop.received[0]).name
            _say(f"{name}: waiting for {len(children)} runs to save")
            for child in children:
                child.process.send_signal(stop.received[0])
        while waiting and len(children) < at_once and not stop:
            job = waiting.popleft()
            try:
                children += _start(job)
            except UserError as error:
                failed.append(job)
                _say(f"{job.name}: failed, {error}")
        for child in [child for child in children if child.process.poll() is not None]:
            children.remove(child)
            if not _tell_end(child, stop):
                failed.append(child.job)
        if time.monotonic() - told >= _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            for child in children:
                _say(f"{child.job.name}: {_progress(child.job)}")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _start(job: Job) -> list[_Child]:
    """The process of a job; none if another one finished the run meanwhile."""
    with disk_errors(job.log, "--dir"), job.log.open("ab") as log:
        try:
            # The process inherits the lock with its output, and so keeps it even when this one is killed.
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training it, see {job.log}") from None
        command = job.command()
        if command is None:
            _say(f"{job.name}: finished already")
            return []
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            process_group=0,  # a terminal's Ctrl-C goes to its whole group, and a run that gets two doesn't save
        )
    _say(f"{job.name}: {'resumed' if '--resume' in command else 'started'}, see {job.log}")
    return [_Child(job, process, time.monotonic())]


def _tell_end(child: _Child, stop: StopSignals) -> bool:
    """One line; whether the run is as it should be."""
    job, status = child.job, child.process.returncode
    minutes = (time.monotonic() - child.started) / 60
    if status == 0:
        _say(f"{job.name}: done in {minutes:.1f} min, {_progress(job)}")
        return True
    if stop and status in (128 + stop.received[0], -stop.received[0]):
        _say(f"{job.name}: stopped at {_progress(job)}")
        return True
    how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    _say(f"{job.name}: failed, {how}: {_shortened(_last_line(job.log))}; see {job.log}")
    return False


def _progress(job: Job) -> str:
    """Steps, speed and return, as the newest row tells."""
    row: dict[str, float] = {}
    with contextlib.suppress(OSError, json.JSONDecodeError):
        row = json.loads(_last_line(job.directory / "metrics.jsonl"))
    if not row:
        return "no update yet"
    told = f"{row['global_step']:,} / {job.total_timesteps:,} steps, {row['charts/SPS']:,.0f} steps/s"
    return told + (f", return {row['episode/r_mean']:.2f}" if "episode/r_mean" in row else "")


def _last_line(path: Path) -> str:
    """The last complete line of a text file; empty if there is none."""
    with path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
        lines = file.read().rpartition(b"\n")[0].splitlines()
    return lines[-1].decode(errors="replace") if lines else ""


def _shortened(line: str) -> str:
    return line if len(line) <= 200 else line[:200] + "..."


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the reader left; the runs go on
        print(line, flush=True)
