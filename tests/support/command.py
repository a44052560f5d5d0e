"""Runs `train.py` as a user does, in this process or in a subprocess."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.time_limits import time_limit
from trxl_jax.cli import run_command
from trxl_jax.commands import train as command

TINY = ["--num_envs", "2", "--num_steps", "16", "--num_minibatches", "2", "--update_epochs", "1",
        "--trxl_num_layers", "1", "--trxl_num_heads", "1", "--trxl_dim", "8", "--trxl_memory_length", "4"]  # fmt: skip
DEVICE = ["--env_id", "gymnax/ProofofMemory-v0", *TINY]
HOST = ["--env_id", "ProofofMemory-v0", *TINY]
WALL_CLOCK = {"charts/SPS", "episode/t_mean"}


def run(*flags: Any) -> int:
    """Runs `train.py` in this process; returns the exit status."""
    return run_command(command.main, [str(flag) for flag in flags])


def rows(run_dir: Path) -> list[dict[str, float]]:
    """Rows of `metrics.jsonl`, without metrics that depend on the wall clock."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in WALL_CLOCK} for line in lines]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the error message and asserts that stderr contains nothing but this one line."""
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def environment(**variables: str) -> dict[str, str]:
    """Environment variables of a command that imports this checkout and compiles with as little effort as tests do."""
    return os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"} | variables


def start(*flags: Any, **kwargs: Any) -> subprocess.Popen[str]:
    """Starts `train.py` in a subprocess, where a SIGHUP has its effect even if pytest was started by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *map(str, flags)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), **kwargs,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGHUP, before)


def wait_for_rows(run_dir: Path, count: int) -> None:
    """Waits until `count` updates have been logged."""
    path = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + time_limit(120)
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().count("\n") >= count:
            return
        time.sleep(0.02)
    raise TimeoutError


def session_of(pid: int) -> list[int]:
    """Ids of running processes in the session started by process `pid`, including itself."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # the process ended meanwhile
            continue
        if int(session) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


def assert_all_ended(pid: int) -> None:
    """Asserts that all processes of the session started by process `pid` end within ten seconds."""
    deadline = time.monotonic() + time_limit(10)
    while session_of(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not session_of(pid)
