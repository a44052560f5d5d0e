"""One process trains in a run's directory at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trxl_jax.config import Config
from trxl_jax.errors import ConfigError, UserError
from trxl_jax.runs.directory import own_directory

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write("process 123 on otherhost\\n")
file.flush()
print(flush=True)
time.sleep(600)
"""


def hold(run_dir: Path) -> subprocess.Popen[bytes]:
    """Another process that has locked the directory."""
    run_dir.mkdir()
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run_dir / "lock")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize("resumed", [False, True])
def test_a_second_process_is_refused_until_the_first_is_dead(resumed: bool, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = hold(run_dir)
    config, resume = Config(run_dir=str(run_dir)), run_dir if resumed else None
    with pytest.raises(UserError, match=r"is being trained by process 123 on otherhost"), own_directory(config, resume):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with own_directory(config, resume) as directory:
        assert directory[:2] == (run_dir, resumed)
        assert (run_dir / "lock").read_text().startswith(f"process {os.getpid()} on ")
    assert list(run_dir.iterdir()) == []


def test_runs_that_start_in_the_same_second_have_a_directory_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.time", lambda: 5.0)
    with own_directory(Config(), None) as first, own_directory(Config(), None) as second:
        assert {first.path.name, second.path.name} == {
            "MortarMayhem-Grid-v0__ppo_trxl__1__5",
            "MortarMayhem-Grid-v0__ppo_trxl__1__5_2",
        }
        (first.path / "config.json").touch()
    assert list(Path("runs").absolute().iterdir()) == [first.path]  # nothing was written into the other


def test_auto_continues_what_there_is(tmp_path: Path) -> None:
    config = Config(run_dir=str(tmp_path / "run"))
    with own_directory(config, "auto") as directory:
        assert directory[:2] == (tmp_path / "run", False)
        (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    with own_directory(config, "auto") as directory:
        assert directory.resumed
    with pytest.raises(ConfigError, match="--resume auto needs --run_dir"), own_directory(Config(), "auto"):
        pass
    with pytest.raises(ConfigError, match="holds a run already"), own_directory(config, None):
        pass
