"""The file of metrics holds whole rows only, one an update."""

import errno
import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from tests.support.probes import Counter
from tests.support.runs import make_run
from trxl_jax.files import write_text_atomically
from trxl_jax.runs import checkpoint
from trxl_jax.runs.rows import RowFile


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_evaluation_is_part_of_its_updates_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = RowFile(path)
    file.append({"global_step": 32, "iteration": 1, "loss": 0.5})
    file.append({"global_step": 64, "iteration": 2, "loss": 0.25})
    file.extend({"eval/r_mean": 1.0})
    file.append({"global_step": 96, "iteration": 3, "loss": 0.125})
    file.close()
    assert rows(path) == [
        {"global_step": 32, "iteration": 1, "loss": 0.5},
        {"global_step": 64, "iteration": 2, "loss": 0.25, "eval/r_mean": 1.0},
        {"global_step": 96, "iteration": 3, "loss": 0.125},
    ]
    resumed = RowFile(path, 2)
    assert resumed.newest == {"global_step": 64, "iteration": 2, "loss": 0.25, "eval/r_mean": 1.0}
    resumed.extend({"eval/l_mean": 7.0})
    resumed.append({"global_step": 96, "iteration": 3, "loss": 1.0})
    resumed.close()
    assert rows(path)[1:] == [
        {"global_step": 64, "iteration": 2, "loss": 0.25, "eval/r_mean": 1.0, "eval/l_mean": 7.0},
        {"global_step": 96, "iteration": 3, "loss": 1.0},
    ]


def test_a_disk_without_room_for_an_evaluation_keeps_the_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = RowFile(path)
    file.append({"global_step": 32, "iteration": 1, "loss": 0.5})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            file.extend({"eval/r_mean": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.append({"global_step": 64, "iteration": 2})
    assert rows(path) == [{"global_step": 32, "iteration": 1, "loss": 0.5}, {"global_step": 64, "iteration": 2}]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr("trxl_jax.files.sync", lambda path: synced.append((path, (tmp_path / "a").exists())))
    write_text_atomically(tmp_path / "a", "text")
    assert synced == [(tmp_path / "a.part", False), (tmp_path, True)]


def test_file_systems_without_that_call_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(errno.EINVAL, "Invalid argument")

    def refuse(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", refuse)
    write_text_atomically(tmp_path / "a", "text")
    error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        write_text_atomically(tmp_path / "a", "other")
    assert (tmp_path / "a").read_text() == "text"
    assert os.listdir(tmp_path) == ["a"]


def test_rows_are_on_the_disk_before_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    saved: list[bool] = []
    monkeypatch.setattr("trxl_jax.runs.rows.sync", synced.append)
    save = checkpoint.save

    def record(*args: Any) -> Path:
        saved.append(synced == [tmp_path / "metrics.jsonl"] * (len(saved) + 1))
        return save(*args)

    monkeypatch.setattr(checkpoint, "save", record)
    make_run(tmp_path, env=Counter, total_timesteps=64, save_every=1)
    assert saved == [True, True]
