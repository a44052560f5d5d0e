"""The measurements for a machine with an accelerator run here at tiny sizes, so that they will run there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import run_in_parts
from tests.support.command import environment
from tests.support.paths import ROOT
from tests.support.time_limits import time_limit
from trxl_jax.errors import UserError


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import accelerator

    return accelerator


def test_results_are_written_as_they_come(accelerator: Any, tmp_path: Path) -> None:
    report = accelerator.Report(tmp_path)
    report.add("speed", {"N": 32, "steps/s": 12345.6})
    report.add("speed", {"N": 64, "error": "out of memory | a\nline"})
    assert json.loads((tmp_path / "accelerator.json").read_text())["speed"][0]["N"] == 32
    assert (tmp_path / "accelerator.md").read_text().splitlines()[2:] == [
        "| N | steps/s | error |",
        "|---|---|---|",
        "| 32 | 12,346 |  |",
        "| 64 |  | out of memory \\| a line |",
    ]


def test_a_run_travels_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    (run / "checkpoints" / "3").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "events.out.tfevents.1").write_text("left out")
    (run / "checkpoints" / "3" / "state").write_bytes(bytes(range(256)) * 40)
    monkeypatch.setattr(run_in_parts, "_PART_BYTES", 200)
    parts = run_in_parts.pack(run, tmp_path / "checkpoint.tar.gz")
    assert len(parts) > 1
    assert max(part.stat().st_size for part in parts) <= 200
    run_in_parts.unpack(parts[::-1], tmp_path / "there")
    assert (tmp_path / "there" / "checkpoints" / "3" / "state").read_bytes() == bytes(range(256)) * 40
    assert not (tmp_path / "there" / "events.out.tfevents.1").exists()
    for some in (parts[:1], [tmp_path / "missing"]):
        with pytest.raises(UserError, match="--checkpoint: "):
            run_in_parts.unpack(some, tmp_path / "nowhere")


@pytest.mark.slow
def test_the_whole_day_at_tiny_sizes(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/accelerator.py", "--tiny", "--minutes", "8", "--share", "0.9", "--out"]
    for out, more in ((tmp_path / "first", []), (tmp_path / "second", ["--checkpoint"])):
        if more:
            more += [str(path) for path in sorted((tmp_path / "first").glob("checkpoint.tar.gz.*"))]
        subprocess.run([*command, str(out), *more], check=True, cwd=ROOT, env=environment(), timeout=time_limit(900))
        found = json.loads((out / "accelerator.json").read_text())
        wanted = ["device", "reference vectors", "a run in two parts", "presets", "speed", "training"]
        assert list(found) == wanted
        assert not [row for rows in found.values() for row in rows if "error" in row]
        [precision] = found["reference vectors"]
        assert max(precision["logits"], precision["value"]) < 1e-5
        assert found["a run in two parts"][0]["the same digits"] is True
        assert found["training"][0]["status"] == 0
        assert (out / "metrics.csv").exists()
        command[command.index("--minutes") + 1] = "4"
    assert found["training"][0]["global_step"] == 1024
