"""A published folder holds an agent that plays as the run's does, and a card that says how well."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.support.command import error_line
from trxl_jax import evaluate, load
from trxl_jax.cli import run_command
from trxl_jax.commands import enjoy, train
from trxl_jax.config import Config
from trxl_jax.hub import download
from trxl_jax.publish import __main__ as publish
from trxl_jax.publish.card import Results, text


def command(*flags: object) -> int:
    return run_command(publish.main, [str(flag) for flag in flags])


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
    from trxl_jax.errors import UserError
    from trxl_jax.hub import upload

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install huggingface-hub; .* is complete"):
        upload(tmp_path, "user/agent")
