"""What a run that starts over leaves of the one whose directory it takes: all that isn't of a run."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.command import DEVICE, error_line, run
from trxl_jax.errors import ConfigError
from trxl_jax.runs import checkpoint
from trxl_jax.runs.former_run import forget_former_run

OURS = ("videos/step_64.mp4", "wandb_id.txt")
USERS = ("videos/step_64.gif", "videos/my_step_64.mp4", "notes.txt", "wandb/latest")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The directory of a run that was killed before its first checkpoint, and in which its user kept things."""
    run_dir = tmp_path / "run"
    for name in (*OURS, *USERS):
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_text("old")
    add_best(run_dir / "best")
    return run_dir


def add_best(directory: Path) -> None:
    checkpoint.save(directory, 7, ({"params": {"w": np.zeros(3)}},), {"eval/r_mean": 1.0}, keep=None)
    (directory / "8.orbax-checkpoint-tmp-1").mkdir()


def assert_users_files_are_there(run_dir: Path) -> None:
    assert [(run_dir / name).read_text() for name in USERS] == ["old"] * len(USERS)


def test_a_run_that_starts_over_takes_nothing_for_its_own(run_dir: Path) -> None:
    forget_former_run(run_dir)
    assert not (run_dir / "best").exists()
    assert not (run_dir / "videos" / "step_64.mp4").exists()
    new = (run_dir / "wandb_id.txt").read_text().strip()
    assert len(new) == 16
    (run_dir / "wandb_id.txt").unlink()  # version 0.1.0 had none, and took the directory's name
    forget_former_run(run_dir)
    assert len((run_dir / "wandb_id.txt").read_text().strip()) == 16
    assert_users_files_are_there(run_dir)


def test_a_directory_that_was_not_tracked_gets_no_id(tmp_path: Path) -> None:
    forget_former_run(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["notes.txt", "7/notes.txt"])
def test_a_best_agent_beside_a_users_file_is_refused(name: str, run_dir: Path) -> None:
    (run_dir / "best" / name).write_text("mine")
    with pytest.raises(ConfigError, match=r"^--run_dir .*/run: .*best agent, .*; move .*/best away"):
        forget_former_run(run_dir)
    assert (run_dir / "best" / name).read_text() == "mine"
    assert (run_dir / "best" / "7").exists()
    assert (run_dir / "videos" / "step_64.mp4").exists()


def test_what_lies_behind_links_stays(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "videos").rename(tmp_path / "videos")
    (run_dir / "videos").symlink_to(tmp_path / "videos")
    forget_former_run(run_dir)
    assert (tmp_path / "videos" / "step_64.mp4").exists()
    add_best(tmp_path / "best")
    (run_dir / "best").symlink_to(tmp_path / "best")
    with pytest.raises(ConfigError, match=r"best isn't of a run"):
        forget_former_run(run_dir)
    assert (tmp_path / "best" / "7").exists()


def test_the_command_starts_over_and_resuming_keeps_what_is_there(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "best" / "notes.txt").write_text("mine")
    flags = [*DEVICE, "--total_timesteps", "32", "--run_dir", run_dir]
    assert run(*flags) == 2
    assert "notes.txt" in error_line(capsys)
    (run_dir / "best" / "notes.txt").unlink()
    assert run(*flags, "--resume", "auto") == 0
    assert not (run_dir / "best").exists()
    assert not (run_dir / "videos" / "step_64.mp4").exists()
    assert_users_files_are_there(run_dir)
    add_best(run_dir / "best")
    (run_dir / "videos" / "step_64.mp4").write_text("new")
    kept = (run_dir / "wandb_id.txt").read_text()
    assert run(*flags, "--resume", "auto") == 0
    assert (run_dir / "best" / "7").exists()
    assert (run_dir / "videos" / "step_64.mp4").exists()
    assert (run_dir / "wandb_id.txt").read_text() == kept
