"""Runs training runs as subprocesses, several at a time; their output goes to log files next to the run directories."""

import fcntl
import math
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from trxl_jax.errors import ConfigError, UserError, disk_errors, printable
from trxl_jax.runs.rows import parse_row
from trxl_jax.signals import StopSignals, interrupts_raise, stop_signals

_POLL_SECONDS = 0.2
_PROGRESS_SECONDS = 60.0
_TAIL_BYTES = 2**16  # bytes read from the end of a file; many times a row of metrics


class Job(NamedTuple):
    """A training run waiting to be started, or several that train side by side.

    Fields:
        name: name used in printed messages, and of the log file.
        directory: the run directory; that of the first of several.
        total_timesteps: number of steps of the finished run.
        command: returns the process's command line, or None if the run is finished; called when the job starts. May
            raise a `UserError`.
    """

    name: str
    directory: Path
    total_timesteps: int
    command: Callable[[], list[str] | None]

    @property
    def log(self) -> Path:
        """Log file of the process's output."""
        return self.directory.with_name(f"{self.name}.log")


class _Child(NamedTuple):
    job: Job
    process: subprocess.Popen[bytes]
    started: float
    place: int


def default_jobs() -> int:
    """Half the number of CPU cores that this process may use, since a run uses about two."""
    return max(len(_cores()) // 2, 1)


def _cores() -> list[int]:
    """The CPU cores that this process may use: `taskset` and schedulers give it fewer than the machine has."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def core_sets(at_once: int, cores_per_run: int) -> list[set[int]]:
    """The cores of each of the runs at the same time.

    Raises:
        ConfigError: there are too few, or the system can't bind processes to cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError("--cores_per_run: this system can't bind processes to cores; leave it out")
    cores = _cores()
    if at_once * cores_per_run > len(cores):
        wanted = f"{at_once} runs at the same time need {at_once * cores_per_run} cores, and there are {len(cores)}"
        raise ConfigError(f"--cores_per_run {cores_per_run}: {wanted}; lower it or --jobs")
    return [set(cores[i * cores_per_run : (i + 1) * cores_per_run]) for i in range(at_once)]


def run_all(jobs: Sequence[Job], at_once: int, cores: Sequence[set[int]] = ()) -> int:
    """Runs jobs in order and prints when each starts and ends. A failed job doesn't stop the others.

    SIGINT and SIGTERM are forwarded to the processes, which save a checkpoint and exit; waiting jobs aren't started.

    Args:
        jobs: jobs to run, in this order.
        at_once: maximum number of processes at a time.
        cores: the cores of each of them, as `core_sets` gives them; empty: any.

    Returns:
        0, or 128 plus the signal number.

    Raises:
        UserError: at least one job failed.
    """
    failed: list[Job] = []
    with interrupts_raise(), stop_signals() as stop:
        stop.deferred = True
        children: list[_Child] = []
        try:
            _loop(deque(jobs), children, failed, at_once, cores, stop)
        finally:
            for child in children:  # left only after an exception, such as a second Ctrl-C
                child.process.kill()
    if stop:
        return 128 + stop.received[0]
    if failed:
        names = ", ".join(str(job.log) for job in failed)
        raise UserError(f"{len(failed)} of {len(jobs)} runs failed; see {names}")
    return 0


def _loop(
    waiting: deque[Job],
    children: list[_Child],
    failed: list[Job],
    at_once: int,
    cores: Sequence[set[int]],
    stop: StopSignals,
) -> None:
    last_report, forwarded = time.monotonic(), False
    while waiting or children:
        if stop and not forwarded:
            forwarded = True
            waiting.clear()
            name = signal.Signals(stop.received[0]).name
            _print(f"{name}: waiting for {len(children)} runs to save")
            for child in children:
                child.process.send_signal(stop.received[0])
        while waiting and len(children) < at_once and not stop:
            job = waiting.popleft()
            place = min(set(range(at_once)) - {child.place for child in children})
            try:
                children += _start(job, place, cores)
            except UserError as error:
                failed.append(job)
                _print(f"{job.name}: failed, {error}")
        for child in [child for child in children if child.process.poll() is not None]:
            children.remove(child)
            if not _report_end(child, stop):
                failed.append(child.job)
        if time.monotonic() - last_report >= _PROGRESS_SECONDS:
            last_report = time.monotonic()
            for child in children:
                _print(f"{child.job.name}: {_progress(child.job)}")
        time.sleep(_POLL_SECONDS)


def _start(job: Job, place: int, cores: Sequence[set[int]]) -> list[_Child]:
    """Starts a job's process; returns an empty list if another process has finished the run meanwhile."""
    with disk_errors(job.log, "--dir"), job.log.open("ab") as log:
        try:
            # The subprocess inherits the lock with its stdout, so the lock holds even if this process is killed.
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training this run, see {job.log}") from None
        command = job.command()
        if command is None:
            _print(f"{job.name}: finished already")
            return []
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            process_group=0,  # or a terminal's Ctrl-C would reach it twice, and a second one stops it without saving
        )
    if cores:  # long before JAX counts them
        os.sched_setaffinity(process.pid, cores[place])
    _print(f"{job.name}: started, see {job.log}")
    return [_Child(job, process, time.monotonic(), place)]


def _report_end(child: _Child, stop: StopSignals) -> bool:
    """Prints how a process ended; returns whether it ended as expected."""
    job, status = child.job, child.process.returncode
    minutes = (time.monotonic() - child.started) / 60
    if status == 0 and job.command() is None:
        _print(f"{job.name}: done in {minutes:.1f} min, {_progress(job)}")
        return True
    if stop and status in (128 + stop.received[0], -stop.received[0]):
        _print(f"{job.name}: stopped at {_progress(job)}")
        return True
    how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    _print(f"{job.name}: failed, {how}: {_shortened(_last_line(job.log).decode(errors='replace'))}; see {job.log}")
    return False


def _progress(job: Job) -> str:
    """Steps, speed and return from the newest row of metrics."""
    row = parse_row(_last_line(job.directory / "metrics.jsonl"))
    if row is None:
        return "no update yet"
    text = f"{row['global_step']:,} / {job.total_timesteps:,} steps, {row.get('charts/SPS', math.nan):,.0f} steps/s"
    return text + (f", return {row['episode/r_mean']:.2f}" if "episode/r_mean" in row else "")


def _last_line(path: Path) -> bytes:
    """The last complete line of a text file; empty if there is none."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
        lines = file.read().rpartition(b"\n")[0].splitlines()
    return lines[-1] if lines else b""


def _shortened(line: str) -> str:
    return line if len(line) <= 200 else line[:200] + "..."


def _print(line: str) -> None:
    print(printable(line), flush=True)
