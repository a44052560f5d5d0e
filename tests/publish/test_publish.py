"""A published folder holds an agent that plays as the run's does, and a card that says how well."""

import dataclasses
import json
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from tests.support.command import error_line
from tests.support.runs import untrained
from trxl_jax import evaluate, load
from trxl_jax.cli import run_command
from trxl_jax.commands import enjoy, train
from trxl_jax.config import Config
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import ConfigError, UserError
from trxl_jax.hub import download, upload
from trxl_jax.play.policy import Policy
from trxl_jax.publish import __main__ as publish
from trxl_jax.publish import folder as own
from trxl_jax.publish.card import Results, text
from trxl_jax.runs import checkpoint


def command(*flags: object) -> int:
    return run_command(publish.main, [str(flag) for flag in flags])


@pytest.fixture(scope="module")
def policy() -> Policy:
    config = Config(env_id="gymnax/ProofofMemory-v0", num_envs=2, core="none")
    return untrained(config, make_env(config).spec)


@pytest.fixture(scope="module")
def published(device_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("seaborn")
    folder = tmp_path_factory.mktemp("published") / "agent"
    assert command(device_run, "--out", folder, "--episodes", 6, "--seed", 3) == 0
    return folder


@pytest.mark.slow
def test_the_folder_holds_the_agent(published: Path, device_run: Path) -> None:
    ours, theirs = load(published), load(device_run)
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    assert ours.agent == theirs.agent
    assert ours.config == theirs.config.replace(run_dir=None)
    found = json.loads((published / "evaluation.json").read_text())
    played = [episode["r"] for episode in evaluate(theirs, 6, seed=3).episodes]
    assert [episode["r"] for episode in found["episodes"]] == played
    assert found["mean_return"] == pytest.approx(np.mean(played))


@pytest.mark.slow
def test_the_folder_is_what_a_reader_wants_to_see(published: Path) -> None:
    card = (published / "README.md").read_text()
    mean = json.loads((published / "evaluation.json").read_text())["mean_return"]
    assert f"| mean return, 95% interval | {mean:.3f} ± " in card
    assert "![Learning curve" in card
    for name in ("curve.png", "metrics.csv", "config.json", "spec.json"):
        assert (published / name).stat().st_size > 0
    assert "episode.gif" not in card  # the task draws no pictures
    assert str(published) in card


@pytest.mark.slow
def test_an_episode_is_filmed_where_there_are_pictures(mortar_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("seaborn")
    folder = tmp_path / "agent"
    assert command(mortar_run, "--out", folder, "--episodes", 2) == 0
    assert "![An episode](episode.gif)" in (folder / "README.md").read_text()
    assert [path.name for path in folder.glob("*.gif")] == ["episode.gif"]
    with Image.open(folder / "episode.gif") as film:
        assert getattr(film, "n_frames", 1) > 10


@pytest.mark.slow
def test_a_local_folder_may_stand_for_the_hub(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert download(str(published)) == published
    for flags in (["--hub", "--repo", str(published)], [str(published)]):
        assert run_command(enjoy.main, [*flags, "--episodes", "2", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["episodes"]) == 2


@pytest.mark.slow
def test_a_published_agent_is_not_trained_on(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(train.main, ["--resume", str(published), "--total_timesteps", "1e6"]) == 2
    assert "is a published agent without its training; play it with enjoy.py" in error_line(capsys)


def test_a_card_has_the_header_that_the_hub_reads() -> None:
    config = Config(env_id="jax/MysteryPath-Grid-v0", core="gru", seed=3)
    results = Results(np.array([0.0, 1.0, 1.0, 2.0]), {"r": 1.0, "success": 0.75}, 1, deterministic=True)
    card = text(config, 2048, results, "user/agent", None, None)
    _, header, body = card.split("---\n", 2)
    fields = {name: json.loads(value) for name, _, value in (line.partition(": ") for line in header.splitlines())}
    [metric] = fields["model-index"][0]["results"][0]["metrics"]
    # Sample standard deviation 0.8165, divided by 2, times 1.96.
    assert metric == {"type": "mean_reward", "value": "1.000 +/- 0.800", "name": "mean_reward"}
    assert "PPO with gru" in body
    assert "for 2,048 environment steps, seed 3" in body
    assert "| mean success | 0.75 |" in body
    assert "most probable actions" in body
    assert "curve" not in body
    assert '"core": "gru"' in body


def test_one_episode_has_no_interval() -> None:
    card = text(Config(), 1, Results(np.array([0.5]), {}, 1, deterministic=False), "a/b", None, None)
    assert "| mean return, 95% interval | 0.500 |" in card


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["directory of a run"]),
        (["nowhere"], ["nowhere", "is no run"]),
        (["nowhere", "--repo", "name"], ["--repo name", "USER/NAME"]),
        (["nowhere", "--episodes", "0"], ["--episodes 0"]),
        (["nowhere", "--seed", "-1"], ["--seed -1"]),
        (["nowhere", "--seed", str(2**31)], ["--seed 2147483648"]),
        ([__file__], ["directory of a run"]),
    ],
)
def test_bad_flags_get_one_line(flags: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*flags) == 2
    line = error_line(capsys)
    for word in words:
        assert word in line


def test_uploading_needs_the_library_and_keeps_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install huggingface-hub; .* is complete"):
        upload(tmp_path, "user/agent")


class _Hub:
    """Stands for `HfApi`: remembers what it was asked for, or has no network."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure, self.asked = failure, {}

    def create_repo(self, repo: str, **_: Any) -> str:
        return f"https://hub/{repo}"

    def upload_folder(self, **asked: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self.asked = asked


class _NoNetworkError(Exception):
    """As httpx raises: neither an OSError nor a ValueError."""


def test_an_upload_removes_files_of_an_earlier_publication(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = _Hub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda: hub))
    assert upload(tmp_path, "user/agent", delete=("episode.gif", "checkpoints/*")) == "https://hub/user/agent"
    assert hub.asked["delete_patterns"] == ["episode.gif", "checkpoints/*"]


def test_an_upload_without_network_gets_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub, folder = _Hub(_NoNetworkError("no\nroute")), tmp_path / "my agent"
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda: hub))
    with pytest.raises(UserError, match=r"can't upload \(no route\); .* is complete") as raised:
        upload(folder, "user/agent", private=True, delete=("episode.gif", "checkpoints/*"))
    typed = shlex.split(str(raised.value).split("type `")[1].rstrip("`"))
    deleted = ["--delete", "episode.gif", "--delete", "checkpoints/*"]
    assert typed == ["hf", "upload", "user/agent", str(folder), "--private", *deleted]


def test_a_download_whose_connection_is_lost_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(repo: str) -> Path:
        raise _NoNetworkError("connection\nlost")

    names = ("EntryNotFoundError", "LocalEntryNotFoundError", "RepositoryNotFoundError")
    errors = SimpleNamespace(**{name: type(name, (Exception,), {}) for name in names})
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=None, snapshot_download=lost))
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    with pytest.raises(UserError, match="can't download user/agent: connection lost"):
        download("user/agent")


def test_a_new_publication_replaces_an_earlier_one(policy: Policy, tmp_path: Path) -> None:
    own.write_agent(tmp_path, policy, 9)
    for name in ("episode.gif", "curve.png", "notes.txt"):
        (tmp_path / name).touch()
    own.write_agent(tmp_path, policy, 5)
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"checkpoints", "config.json", "spec.json", "notes.txt"}
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]


def test_a_publication_replaces_no_run(policy: Policy, tmp_path: Path) -> None:
    kept = checkpoint.save(tmp_path / "checkpoints", 7, ({"params": policy.params},), {}, keep=None)
    with pytest.raises(ConfigError, match=r"--out .*: it holds a run"):
        own.write_agent(tmp_path, policy, 9)
    assert checkpoint.latest(kept.parent) == kept
    assert not (tmp_path / "config.json").exists()
    shutil.rmtree(kept.parent)
    (tmp_path / "config.json").touch()  # of a run that has saved nothing yet
    with pytest.raises(ConfigError, match=r"--out .*: it holds a run"):
        own.write_agent(tmp_path, policy, 9)


@pytest.mark.parametrize("trained", [1, 2**31 + 1])
def test_the_evaluation_plays_no_episodes_of_the_run(trained: int) -> None:
    assert publish._evaluation_seed(None, trained) == 2
    assert publish._evaluation_seed(None, 7) == 1
    assert publish._evaluation_seed(1, 7) == 1
    with pytest.raises(ConfigError, match=r"--seed 1: .* give another"):
        publish._evaluation_seed(1, trained)


def test_something_in_a_run_that_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(Config().to_json())
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    assert command(tmp_path / "checkpoints" / "last") == 2
    assert "last: it is no checkpoint; give the directory of a run" in error_line(capsys)


@pytest.mark.parametrize("lines", [None, "", "damaged\n"])
def test_a_run_without_metrics_has_no_curve(lines: str | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(Config().to_json())
    if lines is not None:
        (tmp_path / "metrics.jsonl").write_text(lines)
    assert own.write_curve(tmp_path, tmp_path) is None


@pytest.fixture
def played(policy: Policy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A run at `tmp_path / "run"` whose evaluation is made up; holds the seed of the evaluation."""
    called: dict[str, Any] = {}

    def evaluated(policy: Policy, episodes: int, seed: int, *, deterministic: bool, **_: Any) -> Any:
        called.update(seed=seed)
        return Results(np.arange(episodes) * 1.0, {}, seed, deterministic), []

    own.write_agent(tmp_path / "run", policy, 4)
    monkeypatch.setattr(own, "evaluated", evaluated)
    return called


def test_one_episode_is_reported_without_an_interval(
    played: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "my agent"
    assert command(run, "--out", out, "--episodes", 1, "--video", "none") == 0
    assert f"mean return 0; wrote {out}" in capsys.readouterr().out
    assert played == {"seed": 2}  # the run's is 1


def test_commands_name_paths_with_spaces(
    played: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "my agent"
    assert command(run, "--out", out, "--video", "none") == 0
    shown = capsys.readouterr().out
    assert f"enjoy '{out}'; upload it: " in shown
    assert f"publish {run} --out '{out}' --video none --repo USER/NAME" in shown
    assert f"--repo '{out}' --render" in (out / "README.md").read_text()


@pytest.mark.usefixtures("played")
def test_the_command_to_play_it_allows_a_module(
    policy: Policy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_agent(
        tmp_path / "run", dataclasses.replace(policy, config=policy.config.replace(env_id="mine:Task-v0")), 4
    )
    assert command(tmp_path / "run", "--out", tmp_path / "agent", "--video", "none", "--allow_import") == 0
    assert f"enjoy {tmp_path / 'agent'} --allow_import; upload it: " in capsys.readouterr().out


def test_a_publication_is_uploaded_in_place_of_an_earlier_one(
    played: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = _Hub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda: hub))
    out = tmp_path / "agent"
    assert command(tmp_path / "run", "--out", out, "--video", "none", "--repo", "user/agent") == 0
    assert hub.asked["folder_path"] == out
    assert {"checkpoints/*", "episode.gif", "episode.mp4", "curve.png"} < set(hub.asked["delete_patterns"])


def test_a_card_says_where_a_module_is_imported() -> None:
    results = Results(np.array([0.5]), {}, 1, deterministic=False)
    card = text(Config(env_id="mine:Task-v0"), 1, results, "a/b", None, None)
    assert "--repo a/b --render video html --allow_import  #" in card
    assert 'load(download("a/b"), allow_import=True)' in card
    assert "evaluate(policy, episodes=20, allow_import=True)" in card
    assert "allow_import" not in text(Config(), 1, results, "a/b", None, None)
