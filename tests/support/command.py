"""Runs of `train.py` as a user starts them, in this process and in one of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from trxl_jax.cli import run_command
from trxl_jax.commands import train as command

TINY = ["--num_envs", "2", "--num_steps", "16", "--num_minibatches", "2", "--update_epochs", "1",
        "--trxl_num_layers", "1", "--trxl_num_heads", "1", "--trxl_dim", "8", "--trxl_memory_length", "4"]  # fmt: skip
DEVICE = ["--env_id", "gymnax/ProofofMemory-v0", *TINY]
HOST = ["--env_id", "ProofofMemory-v0", *TINY]
WALL_CLOCK = {"charts/SPS", "episode/t_mean"}


def run(*flags: Any) -> int:
    """The exit status."""
    return run_command(command.main, [str(flag) for flag in flags])


def rows(run_dir: Path) -> list[dict[str, float]]:
    """Of `metrics.jsonl`, without what the wall clock tells."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in WALL_CLOCK} for line in lines]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error, which is all that may reach stderr."""
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def start(*flags: Any, **kwargs: Any) -> subprocess.Popen[str]:
    """In a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *map(str, flags)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, **kwargs,
    )  # fmt: skip


def wait_for_rows(run_dir: Path, count: int) -> None:
    """Until so many updates were logged."""
    path = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().count("\n") >= count:
            return
        time.sleep(0.02)
    raise TimeoutError


def session_of(pid: int) -> list[int]:
    """Processes of the session that a process began, itself among them, that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # ended meanwhile
            continue
        if int(session) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


def assert_all_ended(pid: int) -> None:
    """That nothing is left, or will be in a moment, of the session that a process began."""
    deadline = time.monotonic() + 10
    while session_of(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not session_of(pid)
