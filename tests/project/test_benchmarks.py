"""Every benchmark starts: it imports what exists, and its help says what it does."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import environment
from tests.support.paths import ROOT

BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_help(path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(path), "--help"], env=environment(), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "--" in ran.stdout
