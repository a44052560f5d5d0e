"""The file of metrics holds whole rows only, one an update."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from trxl_jax.runs.metric_rows import MetricRows


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_evaluation_is_part_of_its_updates_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricRows(path)
    file.append({"iteration": 1, "loss": 0.5})
    file.append({"iteration": 2, "loss": 0.25})
    file.extend({"eval/r_mean": 1.0})
    file.append({"iteration": 3, "loss": 0.125})
    file.close()
    assert rows(path) == [
        {"iteration": 1, "loss": 0.5},
        {"iteration": 2, "loss": 0.25, "eval/r_mean": 1.0},
        {"iteration": 3, "loss": 0.125},
    ]
    resumed = MetricRows(path, 2)
    assert resumed.newest == {"iteration": 2, "loss": 0.25, "eval/r_mean": 1.0}
    resumed.extend({"eval/l_mean": 7.0})
    resumed.append({"iteration": 3, "loss": 1.0})
    resumed.close()
    assert rows(path)[1:] == [
        {"iteration": 2, "loss": 0.25, "eval/r_mean": 1.0, "eval/l_mean": 7.0},
        {"iteration": 3, "loss": 1.0},
    ]


def test_a_disk_without_room_for_an_evaluation_keeps_the_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricRows(path)
    file.append({"iteration": 1, "loss": 0.5})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            file.extend({"eval/r_mean": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.append({"iteration": 2})
    assert rows(path) == [{"iteration": 1, "loss": 0.5}, {"iteration": 2}]
