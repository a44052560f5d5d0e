"""A run that was stopped, killed or restored is the run that never stopped."""

import os
import random
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.support import probes  # noqa: F401 - registers its environments
from tests.support.command import DEVICE, HOST, TINY, error_line, rows, run, start, wait_for_rows
from tests.support.probes import Dying, Forgetful
from tests.support.time_limits import time_limit
from trxl_jax.config import Config
from trxl_jax.envs.host.environment import HostEnvironment
from trxl_jax.envs.registry import make_env
from trxl_jax.runs.run import num_cores

MORTAR = ["--env_id", "MortarMayhem-Grid-v0", *TINY, "--env_options", '{"command_count": [1]}']
MINIGRID = ["--env_id", "MiniGrid-MemoryS9-v0", *TINY]
LSTM = [*DEVICE, "--core", "lstm", "--core_layers", "2", "--segment_length", "8", "--previous_action",
        "--previous_reward"]  # fmt: skip
PENDULUM = ["--env_id", "Pendulum-v1", *TINY, "--previous_action"]
NORMALISED = ["--normalize_observations", "--normalize_rewards", "--bootstrap_truncated"]
GTRXL = [*HOST, "--core", "gtrxl", "--trxl_positional_encoding", "rotary", "--trxl_heads", "full"]


def play(env: HostEnvironment, env_state: Any, seed: int, steps: int) -> list[Any]:
    """Random actions; the environments' state is a counter only, so that any will do."""
    rng = np.random.default_rng(seed)
    step = jax.jit(env.step)
    played = []
    for _ in range(steps):
        nvec = np.broadcast_to(env.spec.action.nvec, (env.num_envs, len(env.spec.action.nvec)))
        env_state, outcome = step(env_state, rng.integers(nvec, dtype=np.int32))
        played.append(jax.device_get(outcome))
    return played


TASKS = [
    "ProofofMemory-v0", "MiniGrid-MemoryS9-v0", "MortarMayhem-Grid-v0", "MortarMayhem-v0", "Endless-MortarMayhem-v0",
    "MysteryPath-Grid-v0", "MysteryPath-v0", "Endless-MysteryPath-v0",
    "SearingSpotlights-v0", "Endless-SearingSpotlights-v0",
]  # fmt: skip
ASYNC = ["ProofofMemory-v0", "Endless-MortarMayhem-v0"]


@pytest.mark.parametrize(
    ("env_id", "asynchronous"), [(name, False) for name in TASKS] + [(name, True) for name in ASYNC]
)
def test_environments_are_put_back_where_they_were(env_id: str, asynchronous: bool) -> None:
    config = Config(env_id=env_id, num_envs=2, async_envs=asynchronous)
    env = make_env(config)
    env_state, _ = jax.jit(env.reset)(jax.random.key(0))
    before = play(env, env_state, 0, 150)
    snapshot = env.snapshot()
    going_on = play(env, env_state, 1, 60)
    env.close()
    restored = make_env(config)
    obs = restored.restore(snapshot)
    np.testing.assert_array_equal(obs, before[-1].obs)
    jax.tree.map(np.testing.assert_array_equal, restored.snapshot(), snapshot)
    for ours, theirs in zip(play(restored, env_state, 1, 60), going_on, strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    restored.close()


@pytest.mark.parametrize(
    "flags",
    [
        DEVICE,
        pytest.param(HOST, marks=pytest.mark.slow),
        pytest.param([*HOST, "--async_envs"], marks=pytest.mark.slow),
        pytest.param(MORTAR, marks=pytest.mark.slow),
        pytest.param(MINIGRID, marks=pytest.mark.slow),
        pytest.param(LSTM, marks=pytest.mark.slow),
        pytest.param(GTRXL, marks=pytest.mark.slow),
        pytest.param(PENDULUM, marks=pytest.mark.slow),
        pytest.param(["--env_id", "gymnax/Pendulum-v1", *PENDULUM[2:]], marks=pytest.mark.slow),
        [*DEVICE, *NORMALISED],
        pytest.param([*HOST, *NORMALISED, "--async_envs"], marks=pytest.mark.slow),
    ],
    ids=[
        "device",
        "host",
        "host async",
        "memory gym",
        "minigrid",
        "lstm",
        "gtrxl",
        "pendulum",
        "device pendulum",
        "normalised on the device",
        "normalised on the host",
    ],
)
def test_a_resumed_run_repeats_every_digit(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert run(*flags, "--total_timesteps", 256, "--save_every", 5, "--run_dir", whole) == 0
    shutil.copytree(whole, parted)
    shutil.rmtree(parted / "checkpoints" / "8")  # so that rows have to be dropped
    assert "warning" not in capsys.readouterr().out
    assert run("--resume", parted) == 0
    printed = capsys.readouterr().out
    assert "at step 160" in printed
    assert "warning" not in printed
    assert rows(parted) == rows(whole)


@pytest.mark.slow
def test_another_core_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    assert run(*DEVICE, "--total_timesteps", 32, "--core", "gru", "--run_dir", run_dir) == 0
    assert "--trxl_memory_length" not in capsys.readouterr().out  # it has none that could be cut
    assert run("--resume", run_dir, "--core", "lstm") == 2
    line = error_line(capsys)
    assert "--core" in line
    assert "gru" in line


@pytest.mark.slow
def test_staleness_and_a_refreshed_memory_resume_exactly(tmp_path: Path) -> None:
    """Staleness is in every second row; measuring it less often after a resume changes nothing else."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    flags = [*DEVICE, "--refresh_memory", "--update_epochs", 2, "--log_staleness", 2]
    assert run(*flags, "--total_timesteps", 256, "--save_every", 3, "--run_dir", whole) == 0
    shutil.copytree(whole, parted)
    shutil.rmtree(parted / "checkpoints" / "8")
    assert run("--resume", parted, "--log_staleness", 8) == 0

    def without_staleness(run_dir: Path) -> list[dict[str, float]]:
        return [{k: v for k, v in row.items() if not k.startswith("staleness/")} for row in rows(run_dir)]

    logged = [[row["iteration"] for row in rows(path) if row.get("staleness/kl", 0) > 0] for path in (whole, parted)]
    assert logged == [[2, 4, 6, 8], [2, 4, 6, 8]]
    assert without_staleness(parted) == without_staleness(whole)
    assert rows(parted)[-1] == rows(whole)[-1]


@pytest.mark.slow
def test_another_number_of_cores_is_a_warning(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With other numbers of threads, sums are split differently and round differently."""
    assert run(*DEVICE, "--total_timesteps", 32, "--run_dir", tmp_path / "run") == 0
    assert run("--resume", tmp_path / "run") == 0
    assert "warning" not in capsys.readouterr().out
    monkeypatch.setattr("trxl_jax.runs.run.num_cores", lambda: 1000)
    assert run("--resume", tmp_path / "run") == 0
    assert f"warning: the run had {num_cores()} cores and now has 1000" in capsys.readouterr().out


@pytest.mark.slow
def test_environments_that_do_not_replay_start_fresh_episodes_with_a_warning(tmp_path: Path, capsys: Any) -> None:
    flags = ["--env_id", "tests.support.probes:Forgetful-v0", *TINY]
    assert run(*flags, "--total_timesteps", 64, "--run_dir", tmp_path / "run") == 0
    capsys.readouterr()
    assert run("--resume", tmp_path / "run", "--allow_import", "--total_timesteps", 96) == 0
    assert capsys.readouterr().out.count("warning") == 1
    assert [row["iteration"] for row in rows(tmp_path / "run")] == [1, 2, 3]


def test_an_episode_that_ends_earlier_when_replayed_is_given_up() -> None:
    env = HostEnvironment(lambda: Forgetful(length=9), 2)
    jax.jit(env.reset)(jax.random.key(0))
    play(env, 0, 0, 5)
    snapshot = env.snapshot()
    shorter = HostEnvironment(lambda: Forgetful(length=4), 2)
    assert shorter.restore(snapshot) is None
    assert shorter.snapshot() == {"episodes": [1, 1], "actions": []}


def test_workers_that_die_in_a_replay_give_fresh_episodes() -> None:
    env = HostEnvironment(partial(Forgetful, 50), 2, asynchronous=True)
    jax.jit(env.reset)(jax.random.key(0))
    play(env, 0, 0, 6)
    snapshot = env.snapshot()
    env.close()
    dying = HostEnvironment(Dying, 2, asynchronous=True)
    assert dying.restore(snapshot) is None
    dying.close()


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_with_the_same_numbers(tmp_path: Path) -> None:
    kills = int(os.environ.get("TRXL_KILLS", "2"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = [*HOST, "--total_timesteps", 32 * 25 * (kills + 1), "--save_every", 1]
    assert run(*flags, "--run_dir", whole) == 0
    rng = random.Random(kills)
    for _ in range(kills):
        # Most of such a run's time goes into saving.
        written = len(rows(killed)) if (killed / "metrics.jsonl").exists() else 0
        process = start(*(["--resume", killed] if written else [*flags, "--run_dir", killed]))
        if rng.random() < 0.9:
            wait_for_rows(killed, written + 1)
        time.sleep(rng.uniform(0, 2))
        process.kill()
        process.communicate()
    process = start("--resume", killed)
    _, err = process.communicate(timeout=time_limit(300))
    assert process.returncode == 0, err
    assert rows(killed) == rows(whole)
    names = sorted(int(path.name) for path in (killed / "checkpoints").iterdir())
    assert names == sorted(int(path.name) for path in (whole / "checkpoints").iterdir())
