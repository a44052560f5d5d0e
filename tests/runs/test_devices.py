"""One run on many devices, and by several processes: the same numbers, bit for bit, as on one."""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.support.command import DEVICE, HOST, ROOT, environment, error_line, rows, run
from tests.support.devices import SMALL, train_on
from tests.support.time_limits import time_limit
from trxl_jax.config import Config, load_config
from trxl_jax.envs.groups import make_layout
from trxl_jax.errors import ConfigError, LostProcess
from trxl_jax.runs import checkpoint
from trxl_jax.runs.processes import lost_processes

POM: dict[str, Any] = {"env_id": "gymnax/ProofofMemory-v0"}
KINDS: dict[str, dict[str, Any]] = {
    "transformer": POM | {"target_kl": 0.01},
    "transformer_on_two": POM,
    "groups_share_devices": POM | {"env_groups": 8, "norm_adv": True, "log_staleness": 2},
    "on_host": {"env_id": "ProofofMemory-v0"},
    "gru": POM | {"core": "gru", "segment_length": 4, "normalize_observations": True, "normalize_rewards": True},
    "refreshed": POM | {"core": "gtrxl", "trxl_positional_encoding": "rotary", "refresh_memory": True},
    "pictures": {"env_id": "jax/MysteryPath-Grid-v0", "num_steps": 8, "total_timesteps": 192},
    "pictures_on_host": {"env_id": "MysteryPath-Grid-v0", "num_steps": 8, "total_timesteps": 128,
                         "reconstruction_coef": 0.1},
}  # fmt: skip
EVERYDAY = ("transformer_on_two",)


@pytest.mark.parametrize(
    "kind", [kind if kind in EVERYDAY else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_same_bits_on_any_number_of_devices(kind: str, tmp_path: Path) -> None:
    config = SMALL | KINDS[kind]
    counts = [1, 2] if kind in EVERYDAY else [count for count in (1, 2, 4, 8) if config["env_groups"] % count == 0]
    train_on(tmp_path, config, *counts)
    alone = rows(tmp_path / "1")
    assert len(alone) == config["total_timesteps"] // (config["num_envs"] * config["num_steps"])
    params = params_of(tmp_path / "1")
    for count in counts[1:]:
        assert rows(tmp_path / str(count)) == alone
        jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path / str(count)), params)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transformer", "on_host"])
def test_checkpoint_goes_on_with_another_number_of_devices(kind: str, tmp_path: Path) -> None:
    config = SMALL | KINDS[kind]
    train_on(tmp_path, config, 1, "4:256")
    (tmp_path / "4").rename(tmp_path / "2")
    train_on(tmp_path, config, 2)
    assert rows(tmp_path / "2") == rows(tmp_path / "1")
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path / "2"), params_of(tmp_path / "1"))


@pytest.mark.slow
@pytest.mark.parametrize("flags", [DEVICE, HOST], ids=["device", "host"])
def test_two_processes(flags: list[str], tmp_path: Path) -> None:
    flags = [*flags, "--num_envs", "4", "--env_groups", "2", "--total_timesteps", "256"]
    assert finish(start_processes([*flags, "--run_dir", str(tmp_path / "two")])) == [0, 0]
    # In a process of its own too: tests compile with less effort.
    command = [sys.executable, str(ROOT / "train.py"), *flags, "--run_dir", str(tmp_path / "one")]
    subprocess.run(command, env=as_users(), check=True, capture_output=True)
    assert rows(tmp_path / "two") == rows(tmp_path / "one")
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path / "two"), params_of(tmp_path / "one"))
    # One process goes on where two ended, and two where one ended.
    further = ["--total_timesteps", "384"]
    shutil.copytree(tmp_path / "two", tmp_path / "copy")
    subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--resume", str(tmp_path / "copy"), *further],
        env=as_users(), check=True, capture_output=True,
    )  # fmt: skip
    assert finish(start_processes(["--resume", str(tmp_path / "one"), *further])) == [0, 0]
    assert rows(tmp_path / "copy") == rows(tmp_path / "one")
    assert len(rows(tmp_path / "one")) == 6


FAILING = """
import sys
import gymnasium

class Failing(gymnasium.Wrapper):
    \"\"\"Fails in step 50, in one process only.\"\"\"

    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 50 and sys.argv[sys.argv.index("--process") + 1] == "FAILS":
            raise ValueError("the simulator is gone")
        return super().step(action)
"""


@pytest.mark.slow
@pytest.mark.parametrize("fails", [0, 1])
def test_a_process_whose_environment_fails_ends_all(fails: int, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING.replace("FAILS", str(fails)))
    flags = [*HOST, "--num_envs", "4", "--env_groups", "2", "--wrapper", "failing:Failing", "--save_every", "1"]
    processes = start_processes([*flags, "--run_dir", "run", "--total_timesteps", "100000"], tmp_path)
    try:
        errors = [process.communicate(timeout=time_limit(100))[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert processes[fails].returncode == 2
    assert "the simulator is gone" in errors[fails]
    if fails == 0:  # with it goes JAX's service, which may end the other first
        assert processes[1].returncode != 0
        return
    (line,) = error_lines(errors[0])
    assert processes[0].returncode == 2
    assert line.startswith("error: another process of this run is gone (")
    assert line.endswith(f"; the newest checkpoint is {checkpoint.latest(tmp_path / 'run' / 'checkpoints')}")


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer\nmore"), True),
        (jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out"), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), False),
        (ConnectionResetError("Connection reset by peer"), False),
        (ConfigError("UNKNOWN: Gloo"), False),
    ],
)
def test_only_what_exchanges_numbers_says_that_a_process_is_gone(
    error: Exception, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with lost_processes():
            raise error

    with pytest.raises(type(error)):  # one process alone
        fail()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(LostProcess if is_lost else type(error)) as raised:
        fail()
    assert ("is gone (" in str(raised.value)) == is_lost


@pytest.mark.slow
def test_a_process_that_is_killed_ends_all(tmp_path: Path) -> None:
    flags = [*DEVICE, "--num_envs", "4", "--env_groups", "2", "--run_dir", str(tmp_path / "run")]
    processes = start_processes([*flags, "--total_timesteps", "100000000"])
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + time_limit(100)
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.1)
    processes[1].kill()
    try:
        error = processes[0].communicate(timeout=time_limit(30))[1]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert processes[0].returncode == 2
    assert len(error_lines(error)) == 1
    assert "another process of this run is gone" in error


@pytest.mark.slow
def test_leader_refuses_for_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    processes = start_processes([*DEVICE, "--num_envs", "4", "--run_dir", str(tmp_path / "file")])
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert all("is a file; name a directory" in error for error in errors), errors
    assert "process 0: " in errors[1]


@pytest.mark.parametrize(
    ("changes", "count", "expected"),
    [
        ({}, 2, "--devices 2: there is 1 (cpu); set XLA_FLAGS"),
        ({}, 0, "--devices 0: there is 1"),
        ({"env_groups": 3}, None, "--num_envs 8: must be a multiple of --env_groups 3"),
        ({"env_groups": 8, "num_steps": 16, "segment_length": 16, "num_minibatches": 4}, None, "--num_minibatches 4"),
    ],
)
def test_layouts_that_cannot_be(changes: dict[str, Any], count: int | None, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make_layout(Config(**SMALL | changes), count)
    assert str(raised.value).startswith(expected)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--processes", "2"], "--processes 2: --coordinator is missing"),
        (["--processes", "2", "--coordinator", "localhost:1"], "--processes 2: --process is missing"),
        (["--process", "0"], "--processes: give the number"),
        (["--process", "2", "--processes", "2", "--coordinator", "localhost:1"], "--process 2: must be at least 0"),
        (["--env_groups", "2", "--num_seeds", "2"], "--env_groups 2: --num_seeds 2 has one group"),
        (["--env_groups", "2", "--debug"], "--env_groups 2: --debug has one group"),
    ],
)
def test_flags_that_do_not_fit(flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*DEVICE, *flags) == 2
    assert expected in error_line(capsys)


def test_a_run_goes_on_with_its_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*DEVICE, "--run_dir", tmp_path / "run", "--resume", "auto"]
    assert run(*flags, "--env_groups", "2", "--total_timesteps", "32") == 0
    assert run(*flags, "--total_timesteps", "64") == 0
    assert load_config(tmp_path / "run" / "config.json").env_groups == 2
    assert run(*flags, "--env_groups", "1", "--total_timesteps", "96") == 2
    assert "was started with 2" in error_line(capsys)


def test_runs_from_before_groups_have_one() -> None:
    saved = json.loads(Config().to_json())
    del saved["env_groups"]
    assert Config.from_json(json.dumps(saved)).env_groups == 1


def params_of(run_dir: Path) -> Any:
    newest = checkpoint.latest(run_dir / "checkpoints")
    assert newest is not None
    assert load_config(run_dir / "config.json").env_groups > 1
    return checkpoint.restore_params(newest)


def as_users() -> dict[str, str]:
    return environment(XLA_FLAGS="", JAX_DISABLE_MOST_OPTIMIZATIONS="0", JAX_PLATFORMS="cpu")


def error_lines(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if "Gloo" not in line or line.startswith("error")]


def start_processes(flags: list[str], directory: Path | None = None) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    return [
        subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *flags,
             "--coordinator", coordinator, "--process", str(i), "--processes", "2"],
            env=as_users(), cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip


def finish(processes: list[subprocess.Popen[str]]) -> list[int]:
    """Exit statuses; what the processes printed is shown if one isn't 0."""
    statuses = []
    for process in processes:
        _, err = process.communicate(timeout=600)
        print(err[-2000:])
        statuses.append(process.returncode)
    return statuses
