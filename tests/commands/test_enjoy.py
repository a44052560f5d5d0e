"""The command that plays episodes and shows them; its videos and pages are read again."""

import enum
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import gymnasium
import numpy as np
import pytest
from PIL import Image

import trxl_jax
from tests.support.command import environment, error_line
from tests.support.paths import ROOT
from tests.support.probes import Counter, Cued
from tests.support.runs import make_run, untrained
from trxl_jax.cli import run_command
from trxl_jax.commands import enjoy as command
from trxl_jax.config import Config
from trxl_jax.play import show
from trxl_jax.play.episode import make_record, play_episode
from trxl_jax.play.episode_page.tasks import branches
from trxl_jax.play.frame_layout import frame, with_caption
from trxl_jax.play.show import film_episode, show_episode
from trxl_jax.play.single_env import make_single_env
from trxl_jax.play.video import video_file
from trxl_jax.play.window import DisplayWindow, WindowClosed

RECORD = re.compile(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', re.DOTALL)
CAPTION = 42  # height of two lines


def enjoy(*flags: Any) -> int:
    return run_command(command.main, [str(flag) for flag in flags])


def decode(path: Path) -> list[np.ndarray]:
    if path.suffix == ".gif":
        with Image.open(path) as gif:
            return [np.asarray(gif.convert("RGB")) for i in range(gif.n_frames) if gif.seek(i) is None]
    with av.open(path) as video:
        return [picture.to_ndarray(format="rgb24") for picture in video.decode(video=0)]


@pytest.mark.parametrize("run", ["proof_run", "device_run"])
def test_results_as_lines_and_as_json(
    run: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = request.getfixturevalue(run)
    capsys.readouterr()
    assert enjoy("--name", run_dir, "--episodes", 4, "--json") == 0
    printed = capsys.readouterr().out
    printed_json = json.loads(printed)
    assert printed.count("\n") == 1
    returns = [episode["return"] for episode in printed_json["episodes"]]
    assert len(returns) == 4
    assert printed_json["mean_return"] == pytest.approx(np.mean(returns))
    assert printed_json["std_return"] == pytest.approx(np.std(returns))
    assert printed_json["files"] == []
    own = {"success"} if run == "proof_run" else set()
    assert all(set(episode) == {"return", "length", *own} for episode in printed_json["episodes"])
    assert enjoy("--name", run_dir / "checkpoints" / "1", "--episodes", 4) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"episode {i}: return {r:.4g}" for i, r in enumerate(returns)]
    assert f"mean return {np.mean(returns):.4g}" in summary


@pytest.mark.slow
def test_nothing_else_reaches_stdout(proof_run: Path, tmp_path: Path) -> None:
    """Not the greetings of libraries either; the window's absence, a line and no more."""
    env = {name: value for name, value in os.environ.items() if "DISPLAY" not in name and not name.startswith("SDL")}
    env |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}

    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, str(ROOT / "enjoy.py"), "--name", str(proof_run), "--episodes", "1", *flags]
        return subprocess.run(line, env=env, capture_output=True, text=True, check=False)

    process = run("--json", "--render", "video", "--out", str(tmp_path / "out"))
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["files"] == [str(tmp_path / "out" / "seed_1_episode_0.mp4")]
    process = run("--render", "human")
    assert process.returncode == 2
    assert process.stdout == ""
    assert "no display" in process.stderr
    assert process.stderr.count("\n") == 1


def test_what_is_shown_does_not_change_what_is_played(
    proof_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    played = []
    for extra in ([], ["--render", "video", "--out", tmp_path], ["--seed", 8], ["--deterministic"]):
        assert enjoy("--name", proof_run, "--episodes", 4, "--json", *extra) == 0
        played.append(json.loads(capsys.readouterr().out)["episodes"])
    plain, shown, *others = played
    assert plain == shown
    assert plain not in others
    for i, episode in enumerate(shown):
        frames = decode(tmp_path / f"seed_1_episode_{i}.mp4")
        assert len(frames) == episode["length"] + 1  # and the end
        assert all(picture.shape == (80 + CAPTION, 440, 3) and picture.std() > 10 for picture in frames)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"seed_1_episode_{i}.mp4" for i in range(4)]


@pytest.mark.slow
def test_a_video_has_the_ground_truth_beside_what_the_agent_sees(mortar_run: Path, tmp_path: Path) -> None:
    options = ["--env_options", '{"command_count": [2]}']
    flags = ["--name", mortar_run, "--episodes", 1, "--render", "video", "--out", tmp_path]
    assert enjoy(*flags, *options) == 0
    for picture in decode(tmp_path / "seed_1_episode_0.mp4"):
        assert picture.shape == (336 + CAPTION, 680, 3)
        # The target's green circle is only in the first.
        sides = picture[:336, :336], picture[:336, 344:]
        green = [((side[..., 1] > 150) & (side[..., 0] < 100)).sum() for side in sides]
        assert green[0] > 200
        assert green[1] == 0


@pytest.mark.slow
def test_pictures_and_observations_are_of_the_same_moment(mortar_run: Path) -> None:
    """Commands are drawn white in both; drawing twice a step, or turning wrongly, would part them."""
    policy = trxl_jax.load(mortar_run)
    task = make_single_env(policy.config.for_evaluation(1, 1), pictures=True)
    for episode in range(2):
        commands = 0
        for k, moment in enumerate(play_episode(policy, task, episode)):
            assert moment.picture is not None
            seen = task.pictures_of(moment.observation)[0]
            white = (moment.picture[2::4, 2::4] == 255).all(axis=-1)
            np.testing.assert_array_equal(white, (seen == 255).all(axis=-1))
            commands += bool(white.any() and k < 40)
            if k == 0:  # where the agent stands, too; its last episode's place is forgotten
                same = (moment.picture[2::4, 2::4] == seen).all(axis=-1)
                assert same.mean() > 0.98
        assert commands == 30


@pytest.mark.parametrize("env_id", ["MysteryPath-v0", "SearingSpotlights-v0", "Endless-MortarMayhem-v0"])
def test_memory_gym_is_shown_upright(env_id: str) -> None:
    """As its own picture of what the agent sees."""
    config = Config(env_id=env_id)
    task = make_single_env(config)
    task.reset(0)
    env = gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    env.reset(seed=int(np.random.SeedSequence((config.seed, 0, 0)).generate_state(1)[0]))
    np.testing.assert_array_equal(task.pictures_of(task.obs)[0], env.render())
    assert (task.obs != env.render()).any()


def test_minigrid_is_shown_whole_beside_the_agents_view(tmp_path: Path) -> None:
    task = make_single_env(Config(env_id="MiniGrid-MemoryS9-v0"), pictures=True)
    task.reset(0)
    shown = frame(task.picture, task.pictures_of(task.obs))
    assert shown is not None
    assert task.picture is not None
    assert task.picture.shape == (252, 252, 3)  # nine cells
    np.testing.assert_array_equal(shown[:, :252], task.picture)
    np.testing.assert_array_equal(shown[1::3, 261::3], task.obs)


def test_gifs(proof_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--name", proof_run, "--episodes", 1, "--render", "video", "--video_format", "gif", "--out", tmp_path]
    assert enjoy(*flags, "--json") == 0
    length = json.loads(capsys.readouterr().out)["episodes"][0]["length"]
    frames = decode(tmp_path / "seed_1_episode_0.gif")
    assert 1 < len(frames) <= length + 1  # equal ones are one that lasts longer
    assert frames[0].shape == (80 + CAPTION, 440, 3)
    assert frames[0].std() > 10


@pytest.mark.parametrize("fps", [4, 24, 30, 50, 60, 120])
def test_gifs_last_as_long_as_their_frames_at_every_rate(fps: int, tmp_path: Path) -> None:
    shades = range(0, 200, 2)
    with video_file(tmp_path / "a.gif", fps) as video:
        for shade in shades:
            video.show(np.full((8, 8, 3), shade, np.uint8))
    delays = []
    with Image.open(tmp_path / "a.gif") as gif:
        for i in range(gif.n_frames):
            gif.seek(i)
            delays.append(gif.info["duration"])
        assert np.asarray(gif.convert("RGB"))[0, 0, 0] == shades[-1]
    assert sum(delays) / 1000 == pytest.approx(len(shades) / fps, abs=0.02)
    assert min(delays) >= 20  # browsers take less for a tenth of a second
    assert max(delays) - min(delays) <= 10
    assert len(delays) == len(shades) or fps > 50


def test_captions_show_step_action_reward_and_return(proof_run: Path) -> None:
    policy = trxl_jax.load(proof_run)
    task = make_single_env(policy.config, pictures=True)
    frames: list[np.ndarray] = []

    class Sink:
        def show(self, frame: np.ndarray) -> None:
            frames.append(frame)

    steps = list(play_episode(policy, task, 0))
    result = show_episode(policy, task, 0, window=Sink())
    taken = [("left", "right")[int(step.action[0])] for step in steps]
    returns = np.cumsum([step.reward for step in steps])
    captions = [
        (f"step {k}, action {taken[k]}", f"reward {step.reward:.4g}, return {returns[k]:.4g}")
        for k, step in enumerate(steps)
    ]
    captions.append((f"end after {result['l']:.0f} steps", f"return {result['r']:.4g}"))
    assert len(frames) == len(captions)
    for picture, caption in zip(frames, captions, strict=True):
        np.testing.assert_array_equal(picture, with_caption(picture[:-CAPTION], caption))
        assert 50 < (picture[-CAPTION:] > 128).sum() < 0.2 * picture[-CAPTION:].size
    assert with_caption(np.zeros((30, 20, 3), np.uint8), ("a", "b")).shape == (30 + CAPTION, 240, 3)


def test_the_environments_names_of_actions_are_shown() -> None:
    class Atari(Counter):
        def get_action_meanings(self) -> list[str]:
            return ["NOOP", "FIRE"]

    class Few(Counter):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.actions: Any = enum.IntEnum("Actions", ["pick_up", "drop", "done"])

    def three() -> Few:
        return Few(action_space=gymnasium.spaces.Discrete(3))

    for make, names in (
        (Atari, ("noop", "fire")),
        (three, ("pick up", "drop", "done")),
        (Few, ("0", "1")),  # as if a wrapper had left one out
        (Counter, ("0", "1")),
    ):
        task = make_single_env(Config(), make)
        assert branches("Some-v0", task.spec.action.nvec, task.action_names) == (("action", names),)
    assert branches("Some-v0", (2, 2)) == (("branch 0", ("0", "1")), ("branch 1", ("0", "1")))


def test_captions_show_choices_and_the_first_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    class Drawn(Cued):
        render_mode = "rgb_array"

        def render(self) -> np.ndarray:
            return np.zeros((50, 50, 3), np.uint8)

    class Sink:
        def show(self, frame: np.ndarray) -> None:
            pass

    def keep(frame: np.ndarray, caption: Sequence[str]) -> np.ndarray:
        lines.append(caption[0])
        return frame

    monkeypatch.setattr(show, "with_caption", keep)
    space = gymnasium.spaces.Tuple([gymnasium.spaces.Box(-0.1, 0.1, (5,)), gymnasium.spaces.Discrete(2, start=1)])
    task = make_single_env(Config(), lambda: Drawn(space))
    policy = untrained(Config(trxl_dim=16, trxl_num_heads=2), task.spec)
    steps = list(play_episode(policy, task, 0))
    show_episode(policy, task, 0, window=Sink())
    assert len(steps) == len(lines) - 1 == 8
    for line, step in zip(lines, steps, strict=False):
        choice, numbers = line.split(", action ")[1].split(", ", 1)
        assert choice == str(int(step.action[5]))
        assert numbers == ", ".join(f"{x:.2f}" for x in step.action[:4].clip(-0.1, 0.1)) + ", ..."
    assert any(abs(step.action[:5]).max() > 0.1 for step in steps)


@pytest.mark.slow
def test_episodes_of_other_seeds_agents_and_modes_are_kept(
    proof_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/run", "b/run"):
        shutil.copytree(proof_run, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    written: list[str] = []
    for flags in (["a/run"], ["b/run"], ["a/run", "--seed", 2], ["a/run", "--deterministic"], [tmp_path / "b" / "run"]):
        assert enjoy(*flags, "--episodes", 2, "--max_steps", 2, "--render", "html", "--json") == 0
        written += json.loads(capsys.readouterr().out)["files"]
    assert written[-2:] == written[2:4]  # the same agent by its absolute path
    assert len(set(written)) == 8
    assert written[0] == "episodes/a/run/checkpoints/1/seed_1_episode_0.html"
    assert enjoy("--name", "../x/run", "--best") == 2
    first, second = (json.loads(RECORD.search(Path(file).read_text())[1]) for file in written[:2])
    assert (first["previous"], first["following"]) == (None, "seed_1_episode_1.html")
    assert (second["previous"], second["following"]) == ("seed_1_episode_0.html", None)


def test_a_video_of_a_long_episode_stops_and_an_abandoned_one_leaves_nothing(mortar_run: Path, tmp_path: Path) -> None:
    policy = trxl_jax.load(mortar_run)
    task = make_single_env(policy.config, pictures=True)
    assert film_episode(policy, task, 0, tmp_path / "short.mp4", 5, lambda: False)
    assert len(decode(tmp_path / "short.mp4")) == 6
    assert not film_episode(policy, task, 0, tmp_path / "none.mp4", 5, lambda: True)
    assert [path.name for path in tmp_path.iterdir()] == ["short.mp4"]


def test_a_window_shows_every_step_until_it_is_closed(proof_run: Path) -> None:
    policy = trxl_jax.load(proof_run)
    task = make_single_env(policy.config, pictures=True)
    window = DisplayWindow(1000, driver="dummy")
    result = show_episode(policy, task, 0, window=window)
    assert result["l"] > 2
    window.close()

    window = DisplayWindow(1000, driver="dummy")
    window._process.kill()
    window._process.wait()  # as when a person closes it
    with pytest.raises(WindowClosed):
        show_episode(policy, task, 0, window=window)
    window.close()


def test_the_record_of_an_episode(mortar_run: Path) -> None:
    policy = trxl_jax.load(mortar_run)
    task = make_single_env(policy.config.for_evaluation(1, 1), pictures=True)
    moments = list(play_episode(policy, task, 3, attention=True))
    record = make_record(task, 3, moments)
    k = record.num_steps
    assert record.results["l"] == k
    assert record.results["r"] == pytest.approx(record.rewards.sum(), abs=1e-5)
    assert (record.env_id, record.seed, record.episode) == ("MortarMayhem-Grid-v0", 1, 3)
    assert record.observations.shape == (k, 84, 84, 3)
    assert record.pictures is not None
    assert record.pictures.shape == (k, 336, 336, 3)
    assert record.actions.shape == (k, 1)
    assert record.probabilities.shape == (k, 4)
    assert record.attention.shape == (k, 2, 2, 5)
    np.testing.assert_allclose(record.probabilities.sum(axis=1), 1, atol=1e-5)
    entropy = -(record.probabilities * np.log(record.probabilities)).sum(axis=1)
    np.testing.assert_allclose(record.entropies, entropy, atol=1e-5)
    np.testing.assert_allclose(record.attention.sum(axis=-1)[1:], 1, atol=1e-5)
    assert not record.attention[0].any()
    assert not record.attention[2][..., 2:].any()  # the third step has two before it

    memory = policy.init()
    values = []
    for observation in record.observations:
        output, memory = policy.decide(observation, memory)
        values.append(output.value)
    np.testing.assert_allclose(record.values, values, atol=1e-5)


@pytest.mark.parametrize("core", ["lstm", pytest.param("lru", marks=pytest.mark.slow)])
def test_the_record_of_an_episode_without_attention(core: str) -> None:
    config = Config(env_id="ProofofMemory-v0", core=core, core_layers=2, trxl_dim=8)
    task = make_single_env(config)
    policy = untrained(config, task.spec)
    record = make_record(task, 0, list(play_episode(policy, task, 0, attention=True)))
    assert record.attention is None
    memory, norms = policy.init(), []
    for observation in record.observations:
        _, memory = policy.decide(observation, memory)
        arrays = [np.ravel(array) for layer in memory.core.now for array in layer]
        assert sum(map(len, arrays)) == 2 * 2 * 8
        norms.append(np.linalg.norm(np.concatenate(arrays)))
    assert record.state_norm is not None
    assert record.state_norm.dtype == np.float32
    np.testing.assert_allclose(record.state_norm, norms, rtol=1e-5)
    assert np.ptp(norms) > 0


@pytest.mark.slow
@pytest.mark.parametrize("core", ["gru", "none"])
def test_agents_without_attention_are_evaluated_shown_and_filmed(
    core: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = make_run(tmp_path / "run", env_id="ProofofMemory-v0", core=core)
    policy = trxl_jax.load(run_dir)
    assert len(trxl_jax.evaluate(policy, 3, num_envs=2).episodes) == 3
    capsys.readouterr()
    assert enjoy(run_dir, "--episodes", 1, "--render", "html", "video", "--out", tmp_path / "out", "--json") == 0
    length = json.loads(capsys.readouterr().out)["episodes"][0]["length"]
    assert len(decode(tmp_path / "out" / "seed_1_episode_0.mp4")) == length + 1
    record = json.loads(RECORD.search((tmp_path / "out" / "seed_1_episode_0.html").read_text())[1])
    assert record["steps"] == length
    assert "attention" not in record
    assert ("state_norms" in record) == (core == "gru")
    task = make_single_env(policy.config, pictures=True)
    assert film_episode(policy, task, 0, tmp_path / "film.mp4", 3, lambda: False)


def test_a_long_episode_can_be_cut(mortar_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--name", mortar_run, "--episodes", 2, "--max_steps", 45, "--json", "--render", "html", "--out", tmp_path]
    assert enjoy(*flags, "--env_options", '{"command_count": [1]}') == 0
    first, _ = json.loads(capsys.readouterr().out)["episodes"]
    assert "cut" not in first  # one command: over before
    assert first["success"] in (0, 1)
    assert enjoy(*flags) == 0
    first, _ = json.loads(capsys.readouterr().out)["episodes"]
    assert first == {"return": 0, "length": 45, "cut": 1}
    assert '"steps":45' in (tmp_path / "seed_1_episode_0.html").read_text()


@pytest.mark.slow
def test_pages_of_tasks_with_pictures_and_with_vectors(
    mortar_run: Path, device_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_dir in (mortar_run, device_run):
        out = tmp_path / run_dir.parent.name
        capsys.readouterr()
        assert enjoy("--name", run_dir, "--episodes", 1, "--json", "--render", "html", "--out", out) == 0
        printed_json = json.loads(capsys.readouterr().out)
        assert printed_json["files"] == [str(out / "seed_1_episode_0.html")]
        page = (out / "seed_1_episode_0.html").read_text()
        record = json.loads(RECORD.search(page)[1])
        assert record["steps"] == printed_json["episodes"][0]["length"]
        assert record["command"].startswith("python -m trxl_jax.commands.enjoy --name")
        assert (record["pictures"] is None) == (run_dir == device_run)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["RUN"]),
        (["RUN", "--name", "RUN"], ["RUN"]),
        (["RUN", "--best"], ["run/best", "--keep_best"]),
        (["--hub", "RUN", "--best"], ["--best"]),
        (["--name", "nowhere"], ["nowhere", "training run"]),
        (["--name", "RUN", "--episodes", "0"], ["--episodes 0"]),
        (["--name", "RUN", "--seed", "-1"], ["--seed -1"]),
        (["--name", "RUN", "--max_steps", "0"], ["--max_steps 0"]),
        (["--name", "RUN", "--render", "film"], ["--render", "film"]),
        (["--name", "RUN", "--env_options", '{"cells": 3}'], ["--env_options", "cells"]),
        (["--name", "RUN", "--render", "video", "--out", "/dev/null/x"], ["--out", "/dev/null/x"]),
    ],
    ids=" ".join,
)
def test_bad_flags_get_one_line(
    flags: list[str], words: list[str], proof_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enjoy(*[str(proof_run) if flag == "RUN" else flag for flag in flags]) == 2
    line = error_line(capsys)
    for word in words:
        assert word in line


def test_a_task_without_pictures_is_told_so(device_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enjoy("--name", device_run, "--render", "video") == 2
    assert "draws no pictures" in error_line(capsys)


@pytest.mark.slow
def test_a_task_that_was_an_object_needs_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run(tmp_path / "run", env=Counter)
    capsys.readouterr()
    assert enjoy("--name", run_dir) == 2
    assert "custom/Counter" in error_line(capsys)


def test_the_hub_without_its_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert enjoy("--hub", "--name", "some.nn") == 2
    assert "pip install huggingface-hub" in error_line(capsys)


def test_the_hub_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("huggingface_hub")
    env = environment(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    line = [sys.executable, str(ROOT / "enjoy.py"), "--hub", "--name", "some.nn"]
    process = subprocess.run(line, env=env, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "can't reach the hub" in process.stderr
    assert process.stderr.count("\n") == 1, process.stderr
