"""Every benchmark starts, its help says what it does, and it suggests names for mistyped ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import environment
from tests.support.paths import ROOT

BENCHMARKS = sorted(path for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text())

MISTYPED = {
    "environments": ("RepeatFirstEasy", "popgym-RepeatFirstEasy-v0"),
    "popgym_returns": ("RepeatFirstEsy-v0", "RepeatFirstEasy-v0"),
    "cores": ("lstmm", "lstm"),
    "core_returns": ("grru", "gru"),
    "floors": ("mortar-mayhm", "mortar-mayhem"),
    "presets": ("proof-of-memry", "proof-of-memory"),
    "sizes": ("CountRecallEsy", "CountRecallEasy"),
}


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(path), *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_help(path: Path) -> None:
    ran = run(path, "--help")
    assert ran.returncode == 0, ran.stderr
    assert "--" in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTYPED)
def test_a_mistyped_name_is_one_line_that_suggests_the_right_one(name: str) -> None:
    given, meant = MISTYPED[name]
    ran = run(ROOT / "benchmarks" / f"{name}.py", given)
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert f"{given}; did you mean" in ran.stderr
    assert meant in ran.stderr
    assert len(ran.stderr) < 300


@pytest.mark.slow
def test_attention_times_every_variant() -> None:
    ran = run(ROOT / "benchmarks" / "attention.py", "--presets", "proof-of-memory", "--repeats", "1")
    assert ran.returncode == 0, ran.stderr
    assert "GFLOP/s" in ran.stdout
