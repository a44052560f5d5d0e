"""Weights & Biases: which run a directory belongs to, what is sent twice, and what is refused.

The last tests run the real package, without a network, where it is installed.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from trxl_jax.config import Config
from trxl_jax.errors import ConfigError
from trxl_jax.runs.logger import Logger
from trxl_jax.runs.tracking import WandbRun

TRACKED = Config(track=True)


class Server:
    """A module `wandb` that remembers the runs it was sent, and says of resumed ones how far they are."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.module: Any = ModuleType("wandb")
        self.module.errors = SimpleNamespace(Error=type("Error", (Exception,), {}))
        self.module.init = self._init

    def _init(self, *, id: str, **_: Any) -> SimpleNamespace:
        rows = self.rows.setdefault(id, [])
        start = rows[-1]["_step"] + 1 if rows else 0
        return SimpleNamespace(
            starting_step=start,
            define_metric=lambda *_, **__: None,
            log=lambda row, step: rows.append({"_step": step, **row}),
            finish=lambda: None,
        )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setitem(sys.modules, "wandb", server.module)
    return server


def test_each_directory_has_a_run_of_its_own_which_a_resumed_run_continues(server: Server, tmp_path: Path) -> None:
    directories = [tmp_path / parent / "same" for parent in "ab"]
    for iteration in range(3):
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
            logger = Logger(directory, TRACKED, iteration)
            logger.write(iteration + 1, iteration + 1, {"charts/SPS": 1.0})
            logger.close()
    assert len(server.rows) == 2
    assert [[row["global_step"] for row in rows] for rows in server.rows.values()] == [[1, 2, 3]] * 2


def test_rows_that_a_resumed_run_repeats_are_sent_once(server: Server, tmp_path: Path) -> None:
    for first, last in ((1, 5), (3, 8)):  # killed after row 5; the newest checkpoint is of row 2
        logger = Logger(tmp_path, TRACKED, first - 1)
        for i in range(first, last + 1):
            logger.write(32 * i, i, {"charts/SPS": 1.0})
    (rows,) = server.rows.values()
    assert [row["global_step"] for row in rows] == [32 * i for i in range(1, 9)]
    assert [json.loads(line)["iteration"] for line in (tmp_path / "metrics.jsonl").open()] == list(range(1, 9))


@pytest.mark.parametrize("kept", ["", "a/b", "\x1b", "../..", "x" * 10**5])
def test_an_id_that_is_none_is_replaced(kept: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "wandb_id.txt").write_text(kept)
    WandbRun(tmp_path, TRACKED)
    (run_id,) = server.rows
    assert (tmp_path / "wandb_id.txt").read_text() == run_id + "\n"
    assert len(run_id) == 16


def test_runs_of_version_0_1_go_on_where_they_were(server: Server, tmp_path: Path) -> None:
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    WandbRun(tmp_path / "run", TRACKED)
    assert list(server.rows) == ["run"]


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    wandb.teardown()  # it keeps its settings


@pytest.mark.usefixtures("real")
def test_without_a_login_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--track: .*wandb login.*WANDB_MODE=offline") as refusal:
        WandbRun(tmp_path, TRACKED)
    assert "\n" not in str(refusal.value)


@pytest.mark.usefixtures("real")
def test_names_with_odd_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run_dir = tmp_path / ("module:id__a?b#c,;'%__1__" + "x" * 200)
    run_dir.mkdir()
    for _ in range(2):
        run = WandbRun(run_dir, TRACKED)
        run.log({"global_step": 3, "x": 1.0})
        run.finish()
    run_id = (run_dir / "wandb_id.txt").read_text().strip()
    found = [path.name for path in (run_dir / "wandb").iterdir() if path.name.startswith("offline-run")]
    assert found
    assert all(name.endswith(run_id) for name in found)
    with pytest.raises(ConfigError, match=r"^--track: Invalid project name 'a/b'"):
        WandbRun(tmp_path, TRACKED.replace(wandb_project_name="a/b"))
