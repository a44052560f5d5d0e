"""The command: runs, resumption, signals, and what bad input gets."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import probes  # noqa: F401 - registers its environments
from tests.support.command import (
    DEVICE,
    HOST,
    TINY,
    WALL_CLOCK,
    assert_all_ended,
    command,
    environment,
    error_line,
    rows,
    run,
    start,
    wait_for_rows,
)
from tests.support.paths import ROOT
from tests.support.probes import Failing
from tests.support.time_limits import time_limit
from trxl_jax import PRESETS, make_env
from trxl_jax.config import Config, load_config
from trxl_jax.envs.host.episode import EpisodeRules
from trxl_jax.errors import ConfigError, EnvironmentFailure
from trxl_jax.runs import checkpoint
from trxl_jax.runs.rows import RowFile
from trxl_jax.runs.tracking import group_of
from trxl_jax.runs.trainer import train
from trxl_jax.signals import stop_signals


def test_a_run_writes_what_it_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    assert run(*HOST, "--total_timesteps", 330, "--save_every", 3, "--keep", 2, "--run_dir", run_dir) == 0
    printed = capsys.readouterr().out
    opening, _, progress = printed.partition("compiling")
    for fact in ("ProofofMemory-v0: 2 environments on the host", " parameters on cpu", str(run_dir),
                 "320 steps in 10 updates of 32 (--total_timesteps 330 is rounded down to whole updates)"):  # fmt: skip
        assert fact in opening
    assert "320 / 320 steps" in progress
    first = next(row for row in map(json.loads, (run_dir / "metrics.jsonl").open()) if "episode/t_mean" in row)
    assert first["episode/t_mean"] == pytest.approx(first["episode/l_mean"] * 2 / first["charts/SPS"])  # not compiling
    episodes = checkpoint.restore_run(run_dir / "checkpoints" / "10")["episodes"]
    assert 20 < len(episodes) < 100
    mean = np.mean([episode["r"] for episode in episodes])
    assert f"done: 320 steps, mean return {mean:.2f} over the last {len(episodes)} episodes; see {run_dir}" in printed
    written = rows(run_dir)
    assert [row["iteration"] for row in written] == list(range(1, 11))
    assert [row["global_step"] for row in written] == list(range(32, 321, 32))
    published = {f"episode/{name}_mean" for name in ("r", "l", "advantage", "value")}
    published |= {f"charts/{name}" for name in ("learning_rate", "entropy_coefficient")}
    published |= {f"losses/{name}" for name in ("value_loss", "policy_loss", "entropy", "reconstruction_loss", "loss",
                  "old_approx_kl", "approx_kl", "clipfrac", "explained_variance", "grad_norm")}  # fmt: skip
    assert published <= set(written[-1])
    assert set(json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])) >= WALL_CLOCK
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["10", "9"]
    assert Config.from_json((run_dir / "config.json").read_text()).trxl_num_positions == 16
    assert not list(run_dir.rglob("*.pkl"))


@pytest.mark.slow
def test_tensorboard_holds_the_same_numbers(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    run_dir = tmp_path / "run"
    assert run(*DEVICE, "--total_timesteps", 96, "--run_dir", run_dir) == 0
    data = next(run_dir.glob("events.out.tfevents.*")).read_bytes()
    found: dict[tuple[int, str], float] = {}
    while data:  # length u64, its checksum u32, the event, its checksum u32
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
        data = data[16 + size :]
    for row in rows(run_dir):
        for name, value in row.items():
            if "/" in name:
                assert found[row["global_step"], name] == pytest.approx(value, rel=1e-6)


def test_a_finished_run_has_nothing_to_do_and_says_its_return(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert run(*DEVICE, "--total_timesteps", 96, "--run_dir", run_dir) == 0
    before = rows(run_dir)
    *_, done = capsys.readouterr().out.splitlines()
    assert "mean return" in done
    assert run("--resume", run_dir) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == done
    assert "compil" not in printed
    assert rows(run_dir) == before


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_ends_the_update_in_hand_and_saves(number: signal.Signals, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(*HOST, "--total_timesteps", 10**7, "--save_every", 0, "--run_dir", run_dir)
    wait_for_rows(run_dir, 2)
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=time_limit(60))
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert err == ""
    assert f"continue with: python {ROOT / 'train.py'} --resume {run_dir}" in out
    assert checkpoint.latest(run_dir / "checkpoints").name == str(rows(run_dir)[-1]["iteration"])  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_window_is_cut_to_the_tasks_episodes_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert run(*DEVICE, "--trxl_memory_length", 500, "--total_timesteps", 32, "--run_dir", run_dir) == 0
    assert "--trxl_memory_length 500 is cut to 16" in capsys.readouterr().out
    assert Config.from_json((run_dir / "config.json").read_text()).trxl_memory_length == 16


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["mortar-mayhem-gird"], ["preset", "mortar-mayhem-grid"]),
        (["--seed", "3", "mortar-mayhem-gird"], ["preset", "mortar-mayhem-grid"]),
        (["--keep_best"], ["--keep_best", "--eval_every"]),
        (["--env_id", "MortarMayhemm-v0"], ["--env_id", "MortarMayhem-v0"]),
        (["--env_id", "gymnax/CartPole"], ["gymnax/CartPole-v1"]),
        (["--env_id", "Wordy-v0"], ["--env_id", "Text", "wrapper"]),
        (["--num_steps", "100"], ["--num_steps 100", "--num_minibatches 8", "96 or 104"]),
        (["--trxl_num_heads", "5"], ["--trxl_dim 384", "--trxl_num_heads 5"]),
        (["--num_envs", "0"], ["--num_envs 0", "at least 1"]),
        (["--num_envs", "many"], ["--num_envs", "many"]),
        (["--gamma", "1.5"], ["--gamma 1.5"]),
        (["--total_timesteps", "100"], ["--total_timesteps 100", "16384"]),
        (["--seed", "99999999999999"], ["--seed", "2^32"]),
        (["--env_id", "tests.support.odd_spaces:Worded-v0"], ["words: Text", "wrapper", "module:id"]),
        (["--env_id", "ProofofMemory-v0", "--wrapper", "upside_down"], ["--wrapper upside_down", "module:name"]),
        (["--env_id", "ProofofMemory-v0", "--minigrid_view", "pixels"], ["--minigrid_view", "no task of MiniGrid"]),
        (["--env_id", "ProofofMemory-v0", "--action_mask_key", "valid"], ["valid", "change --action_mask_key"]),
        (["--env_id", "Pendulum-v1", "--action_mask_key", "valid"], ["--action_mask_key valid", "no discrete actions"]),
        (["--env_id", "gymnax/Breakout-MinAtar", "--reconstruction_coef", "0.1"], ["only uint8", "set it to 0"]),
        (["--env_id", "Zork"], ["unknown environment 'Zork'", "others", "module:id first imports a module"]),
        (["--env_id", "no_such_module:Zork-v0"], ["no module no_such_module", "module:id first imports a module"]),
        (["--env_id", "tests.support.probes:Zork-v0"], ["unknown environment", "tests.support.probes does not"]),
        (
            ["--env_id", "CartPole-v1", "--env_kwargs", '{"size": 3}'],
            ["--env_kwargs {'size': 3}", "unexpected keyword"],
        ),
        ([*DEVICE, "--env_kwargs", '{"size": 3}'], ["--env_kwargs", "on the device", "--env_options"]),
        (["--env_kwargs", "[3]"], ["--env_kwargs", "JSON object"]),
        ([*DEVICE, "--env_options", '{"max_steps_in_episode": "x"}'], ["max_steps_in_episode", "number"]),
        ([*DEVICE, "--env_options", '{"replace": 1}'], ["replace"]),
        (["--norm_adv", "--num_envs", "1", "--num_steps", "16", "--num_minibatches", "16"], ["--norm_adv"]),
        (["--run_dir", "x" * 300], ["--run_dir"]),
        (["--no_such_flag", "3"], ["--no_such_flag"]),
        (["--trxl_positional_encoding", "spiral"], ["rotary"]),
        (["--env_options", "{"], ["--env_options", "JSON"]),
        (["--env_options", '{"command_cuont": [3]}'], ["--env_options", "command_cuont"]),
        (["proof-of-memory", "--reconstruction_coef", "0.1"], ["--reconstruction_coef", "pixels"]),
        (["mortar-mayhem-grid", "--normalize_observations"], ["--normalize_observations", "MortarMayhem-Grid-v0"]),
        (["--resume", "nowhere"], ["nowhere", "training run"]),
        (["proof-of-memory", "--resume", "somewhere"], ["proof-of-memory", "--resume"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith(("-", "m", "p")) else "",
)
def test_bad_flags_get_one_line(flags: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*flags) == 2
    line = error_line(capsys)
    for word in words:
        assert word in line


def test_the_help_shows_every_flag_in_a_group(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        run("mystery-path", "--help")
    lines = capsys.readouterr().out.splitlines()
    groups, group = {"": ""}, ""
    for line in (line.strip(" │╭─╮") for line in lines):
        if re.fullmatch(r"[a-z ]+ (options|arguments)", line):
            group = line
        groups[group] = f"{groups.get(group, '')} {line}"
    assert list(groups) == [
        "", "positional arguments", "run options", "evaluation and tracking options", "environment options",
        "training options", "agent options",
    ]  # fmt: skip
    assert all(name in groups["positional arguments"] for name in PRESETS)
    assert "--keep_best" in groups["evaluation and tracking options"]
    assert re.search(r"--env_id STR +a Gymnasium id .*\(default: MysteryPath-v0\)", groups["environment options"])
    shown = " ".join(groups.values())
    hidden = {"seed_bits"}  # nobody chooses it: runs of version 0.1.0 have another value
    assert all((f"--{field.name}" in shown) != (field.name in hidden) for field in dataclasses.fields(Config))


def test_a_preset_may_stand_anywhere() -> None:
    for flags in (["mystery-path", "--num_envs", "8"], ["--num_envs", "8", "mystery-path"]):
        assert command.parse(flags).config == PRESETS["mystery-path"].replace(num_envs=8)


@pytest.mark.parametrize(
    ("run_name", "group"),
    [
        ("proof-of-memory__3", "proof-of-memory"),
        ("ProofofMemory-v0__ppo_trxl__3__1764000000", "ProofofMemory-v0__ppo_trxl"),
        ("mine", "mine"),
        ("sweep__13", "sweep__13"),
    ],
)
def test_tracked_runs_are_grouped_over_seeds(run_name: str, group: str) -> None:
    assert group_of(run_name, seed=3) == group


def test_track_without_wandb_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run(*DEVICE, "--track", "--run_dir", tmp_path / "run") == 2
    assert "pip install" in error_line(capsys)


def test_a_file_or_another_run_where_the_run_directory_should_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert run(*DEVICE, "--run_dir", file) == 2
    assert "--run_dir" in error_line(capsys)
    assert file.read_text() == "mine"
    assert run(*DEVICE, "--run_dir", file / "below") == 2
    assert "file" in error_line(capsys)
    run_dir = tmp_path / "run"
    assert run(*DEVICE, "--total_timesteps", 32, "--run_dir", run_dir) == 0
    before = (run_dir / "metrics.jsonl").read_text()
    capsys.readouterr()
    assert run(*DEVICE, "--total_timesteps", 32, "--run_dir", run_dir) == 2
    assert f"--resume {run_dir}" in error_line(capsys)
    assert (run_dir / "metrics.jsonl").read_text() == before


@pytest.fixture
def finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run of two updates."""
    assert run(*DEVICE, "--total_timesteps", 64, "--save_every", 1, "--run_dir", tmp_path / "run") == 0
    capsys.readouterr()
    return tmp_path / "run"


@pytest.mark.slow
def test_resuming_under_another_configuration_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flag, value in (("--gamma", 0.9), ("--trxl_dim", 16), ("--env_id", "gymnax/CartPole-v1"), ("--seed", 5),
                        ("--compute_dtype", "bfloat16")):  # fmt: skip
        assert run("--resume", finished, flag, value, "--total_timesteps", 128) == 2
        assert f"{flag} {value}" in error_line(capsys)
    assert len(rows(finished)) == 2


@pytest.mark.slow
def test_a_truncated_checkpoint_is_refused_and_the_one_before_it_serves(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = finished / "checkpoints" / "2"
    for file in (newest / "state").rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)
    assert run("--resume", finished, "--total_timesteps", 128) == 2
    assert str(newest) in error_line(capsys)
    subprocess.run(["rm", "-r", str(newest)], check=True)
    assert run("--resume", finished, "--total_timesteps", 128) == 0
    assert [row["iteration"] for row in rows(finished)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_foreign_checkpoint_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "checkpoints" / "7").mkdir()
    (finished / "checkpoints" / "7" / "weights.bin").write_text("something else")
    assert run("--resume", finished, "--total_timesteps", 640) == 2
    assert "not a complete checkpoint" in error_line(capsys)
    for text in (b'{"some": "thing"}', b"\xff\xfe\x00", b'{"num_envs": 2.5}', b'{"env_id": 5}', b"[]"):
        (finished / "config.json").write_bytes(text)
        assert run("--resume", finished) == 2
        assert "config.json" in error_line(capsys)


@pytest.mark.slow
def test_checkpoint_of_another_shape_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((finished / "config.json").read_text()) | {"trxl_dim": 16}
    (finished / "config.json").write_text(json.dumps(config))
    assert run("--resume", finished, "--total_timesteps", 128) == 2
    assert "can't read checkpoint" in error_line(capsys)


@pytest.mark.slow
def test_an_environment_that_raises_leaves_the_state_before_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    config = Config(num_envs=2, num_steps=8, num_minibatches=2, total_timesteps=10_000, trxl_dim=8, trxl_num_heads=1,
                    trxl_num_layers=1, trxl_memory_length=4, run_dir=str(run_dir))  # fmt: skip
    with pytest.raises(EnvironmentFailure) as raised:
        train(config, env=lambda: Failing(length=30))
    message = str(raised.value)
    assert "step 4" in message
    assert "simulator crashed" in message
    assert "\n" not in message
    # 30 steps and 4 more are in the fifth update of 8 steps.
    assert str(run_dir / "checkpoints" / "4") in message
    assert checkpoint.latest(run_dir / "checkpoints").name == "4"  # type: ignore[union-attr]
    assert "Traceback" not in capfd.readouterr().err


def test_a_failing_environment_ends_the_command_in_one_line(tmp_path: Path) -> None:
    flags = [
        "--env_id",
        "tests.support.probes:Failing-v0",
        *TINY,
        "--total_timesteps",
        10**6,
        "--run_dir",
        tmp_path / "run",
    ]
    process = start(*flags)
    _, err = process.communicate(timeout=time_limit(120))
    assert process.returncode == 2
    assert err.startswith("error: environment Failing-v0 failed")
    assert err.count("\n") == 1, err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "word", "flags"),
    [
        ("FailingReset", "no such level", []),
        ("NotANumber", "reward nan is no finite float32", []),
        ("Failing", "simulator crashed", ["--async_envs"]),
        ("Dying", "died (index {index}, seed {seed}, step 4): its process ended with status 3", ["--async_envs"]),
        ("Hanging", "hangs (index {index}, seed {seed}, step 4)", ["--env_timeout", "1"]),
        ("Hanging", "hangs (index {index}, seed {seed}, step 4)", ["--env_timeout", "15", "--async_envs"]),
    ],
)
def test_other_failures_of_environments_end_in_one_line_too(
    env_id: str, word: str, flags: list[str], tmp_path: Path
) -> None:
    flags = ["--env_id", f"tests.support.probes:{env_id}-v0", *TINY, *flags, "--run_dir", str(tmp_path / "run")]
    process = start(*flags, start_new_session=True)
    _, err = process.communicate(timeout=time_limit(120))
    assert process.returncode == 2
    assert err.count("\n") == 1, err
    # Both environments fail in the same step; which is met first is a matter of time.
    assert any(word.format(index=i, seed=EpisodeRules().episode_seed(i, 0)) in err for i in range(2)), err
    assert_all_ended(process.pid)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_workers_too_and_the_run_saves(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    flags = [*HOST, "--async_envs", "--total_timesteps", 10**7, "--run_dir", run_dir]
    process = start(*flags, start_new_session=True)
    wait_for_rows(run_dir, 2)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=time_limit(60))
    assert process.returncode == 130
    assert err == ""
    assert checkpoint.latest(run_dir / "checkpoints") is not None


@pytest.mark.slow
def test_workers_that_hang_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    flags = ["--env_id", "tests.support.hostile:LockHolding-v0", *TINY, "--async_envs", "--run_dir", tmp_path / "run"]
    process = start(*flags, start_new_session=True)
    assert process.stderr is not None
    assert [process.stderr.readline() for _ in range(2)] == ["held\n"] * 2
    process.kill()
    process.wait()
    assert_all_ended(process.pid)


def test_ctrl_c_while_starting_is_one_line_at_most(tmp_path: Path) -> None:
    process = start(*HOST, "--run_dir", tmp_path / "run")
    while not (tmp_path / "run").exists():  # made when the parts are
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=time_limit(120))
    assert process.returncode == 130
    assert err.count("\n") <= 1, err


def test_an_interrupt_that_is_swallowed_while_starting_still_ends_the_run() -> None:
    with stop_signals() as stop, contextlib.suppress(KeyboardInterrupt):  # as a library may
        signal.raise_signal(signal.SIGINT)
    assert stop
    assert stop.received == [signal.SIGINT]
    with stop_signals() as stop:
        stop.deferred = True
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == [signal.SIGTERM]


@pytest.mark.parametrize("flags", [DEVICE, HOST], ids=["device", "host"])
@pytest.mark.slow
def test_training_that_diverges_stops_and_keeps_the_updates_inputs(flags: list[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(*flags, "--init_lr", "1e30", "--total_timesteps", 10**5, "--save_every", 0, "--run_dir", run_dir)
    _, err = process.communicate(timeout=time_limit(120))
    assert process.returncode == 2
    assert err.count("\n") == 1, err
    assert "diverged" in err
    newest = checkpoint.latest(run_dir / "checkpoints")
    (post_mortem,) = (run_dir / "post_mortem").iterdir()
    assert str(newest) in err
    assert str(post_mortem) in err
    assert int(post_mortem.stem) == int(newest.name) + 1
    collected = np.load(post_mortem)
    assert collected["transitions.reward"].shape == (16, 2)
    assert np.isin(collected["transitions.reward"], np.float32([0, -0.1, 1.6, -1.6])).all()


@pytest.mark.slow
def test_debugging_changes_nothing_and_finds_nothing(tmp_path: Path) -> None:
    assert run(*DEVICE, "--total_timesteps", 64, "--debug", "--run_dir", tmp_path / "debug") == 0
    assert run(*DEVICE, "--total_timesteps", 64, "--run_dir", tmp_path / "plain") == 0
    for ours, theirs in zip(rows(tmp_path / "debug"), rows(tmp_path / "plain"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    pixels = ["--env_id", "MortarMayhem-Grid-v0", *TINY, "--norm_adv", "--reconstruction_coef", "0.1"]
    assert run(*pixels, "--total_timesteps", 32, "--debug", "--run_dir", tmp_path / "pixels") == 0


@pytest.mark.slow
def test_debugging_tells_where_a_nan_comes_from(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    flags = [*DEVICE, "--init_lr", "1e30", "--total_timesteps", 10**5, "--save_every", 0, "--debug"]
    process = start(*flags, "--run_dir", run_dir)
    _, err = process.communicate(timeout=time_limit(240))
    assert process.returncode == 1
    assert "Traceback" in err
    assert "invalid value (nan)" in err or "not finite" in err, err[-2000:]
    assert checkpoint.latest(run_dir / "checkpoints") is not None


@pytest.mark.slow
def test_a_closed_stdout_does_not_end_a_run(tmp_path: Path) -> None:
    process = start(*DEVICE, "--total_timesteps", 640, "--run_dir", tmp_path / "run")
    process.stdout.close()
    process.wait(timeout=time_limit(120))
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "20"


@pytest.mark.slow
def test_a_run_without_a_checkpoint_can_be_started_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    assert run(*DEVICE, "--total_timesteps", 64, "--run_dir", run_dir) == 0
    subprocess.run(["rm", "-r", str(run_dir / "checkpoints")], check=True)
    capsys.readouterr()
    assert run("--resume", run_dir, "--total_timesteps", 96) == 0
    assert "starts from the beginning" in capsys.readouterr().out
    assert [row["iteration"] for row in rows(run_dir)] == [1, 2, 3]
    subprocess.run(["rm", "-r", str(run_dir / "checkpoints")], check=True)
    assert run(*DEVICE, "--total_timesteps", 64, "--run_dir", run_dir) == 0
    assert [row["iteration"] for row in rows(run_dir)] == [1, 2]


def test_an_environment_object_may_be_passed(tmp_path: Path) -> None:
    config = command.parse([*DEVICE, "--total_timesteps", "64", "--run_dir", str(tmp_path / "run")]).config
    outcome = train(config, env=make_env(config))
    assert outcome.global_step == 64
    assert load_config(tmp_path / "run" / "config.json").env_id == "custom/DeviceEnvironment"


def test_a_full_disk_for_metrics_saves_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RowFile, "_write", full)
    assert run(*DEVICE, "--total_timesteps", 10**6, "--run_dir", tmp_path / "run") == 2
    line = error_line(capsys)
    assert "No space left on device" in line
    assert str(tmp_path / "run" / "checkpoints" / "1") in line
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") == tmp_path / "run" / "checkpoints" / "1"


@pytest.mark.slow
def test_a_full_disk_for_checkpoints_keeps_the_one_before(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert run(*DEVICE, "--total_timesteps", 32, "--run_dir", run_dir) == 0

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    process = start("--resume", run_dir, "--total_timesteps", 96, preexec_fn=limit)
    _, err = process.communicate(timeout=time_limit(120))
    assert process.returncode == 2
    assert err.count("\n") == 1, err
    assert "checkpoint" in err
    assert checkpoint.latest(run_dir / "checkpoints") == run_dir / "checkpoints" / "1"
    assert run("--resume", run_dir, "--total_timesteps", 96) == 0


@pytest.mark.slow
def test_a_full_disk_leaves_the_configuration_whole(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert run(*DEVICE, "--total_timesteps", 32, "--run_dir", run_dir) == 0
    env = environment(XDG_CACHE_HOME=str(tmp_path / "cold"))
    process = subprocess.run(
        ["bash", "-c", f"ulimit -f 1; exec {sys.executable} {ROOT}/train.py --resume {run_dir} --total_timesteps 96"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1, process.stderr
    assert run("--resume", run_dir, "--total_timesteps", 96) == 0


def test_presets_are_the_published_configurations() -> None:
    changed = {
        "mortar-mayhem-grid": {"norm_adv": True, "trxl_memory_length": 119, "total_timesteps": 100_000_000},
        "mortar-mayhem": {"reconstruction_coef": 0.1, "trxl_memory_length": 275},
        "mystery-path-grid": {"trxl_memory_length": 96, "total_timesteps": 100_000_000},
        "mystery-path": {"trxl_memory_length": 256},
        "searing-spotlights": {"reconstruction_coef": 0.1, "trxl_memory_length": 256},
        "endless-searing-spotlights": {"reconstruction_coef": 0.1, "trxl_memory_length": 256,
                                       "total_timesteps": 350_000_000},
        "endless-mortar-mayhem": {"trxl_memory_length": 256, "total_timesteps": 350_000_000},
        "endless-mystery-path": {"trxl_memory_length": 256, "total_timesteps": 350_000_000},
    }  # fmt: skip
    assert set(PRESETS) == {*changed, "proof-of-memory", "minigrid-memory-s9", "minigrid-memory-s9-tuned"}
    for name, changes in changed.items():
        assert PRESETS[name] == Config(env_id=PRESETS[name].env_id, **changes)
        assert PRESETS[name].env_id.replace("-", "").lower() == name.replace("-", "") + "v0"
    for parsed in (command.parse(["mystery-path", "--num-envs", "8"]), command.parse(["mystery-path", "--num_envs=8"])):
        assert parsed.config == PRESETS["mystery-path"].replace(num_envs=8)


def test_configurations_survive_json_and_refuse_what_they_do_not_know() -> None:
    config = PRESETS["mortar-mayhem"].replace(env_options={"command_count": [3]}, target_kl=0.1)
    assert Config.from_json(config.to_json()) == config
    assert Config(trxl_positional_encoding="") == Config(trxl_positional_encoding="none")
    with pytest.raises(ConfigError, match="frobnicate"):
        Config.from_json('{"frobnicate": 1}')
