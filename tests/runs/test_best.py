"""The best checkpoint: which evaluation it is of, and that it stays."""

from pathlib import Path

import jax
import numpy as np
import pytest

import trxl_jax
from tests.support.command import DEVICE, rows, run
from trxl_jax.commands import enjoy
from trxl_jax.loading import find
from trxl_jax.runs import checkpoint
from trxl_jax.runs.best import METRIC, BestCheckpoint
from trxl_jax.runs.former_run import forget_former_run

PARAMS = {"params": {"w": np.zeros(3, np.float32)}}


def offer(best: BestCheckpoint, value: float, iteration: int) -> None:
    best.offer({METRIC: value}, jax.tree.map(lambda leaf: leaf + iteration, PARAMS), iteration)


def kept(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_better_evaluation_replaces_the_one_before_and_an_equal_one_does_not(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path / "best")
    best.offer({"episode/r_mean": 9.0}, PARAMS, 1)  # no evaluation
    offer(best, float("nan"), 2)
    assert not (tmp_path / "best").exists()
    for iteration, value, expected in ((3, -2.0, "3"), (4, -3.0, "3"), (5, 0.5, "5"), (6, 0.5, "5")):
        offer(best, value, iteration)
        assert kept(tmp_path / "best") == [expected]
    params = checkpoint.restore_params(tmp_path / "best" / "5")
    np.testing.assert_array_equal(params["params"]["w"], np.full(3, 5, np.float32))


def test_a_resumed_run_knows_the_best_value_and_a_new_one_forgets_it(tmp_path: Path) -> None:
    offer(BestCheckpoint(tmp_path / "best"), 0.5, 40)
    (tmp_path / "best" / "30.orbax-checkpoint-tmp").mkdir()  # of a save that was killed
    best = BestCheckpoint(tmp_path / "best")
    offer(best, 0.25, 20)  # from a checkpoint before it
    assert "40" in kept(tmp_path / "best")
    offer(best, 0.75, 30)
    assert kept(tmp_path / "best") == ["30"]
    forget_former_run(tmp_path)
    offer(BestCheckpoint(tmp_path / "best"), -1.0, 1)
    assert kept(tmp_path / "best") == ["1"]


def test_what_a_user_keeps_beside_the_best_agent_stays(tmp_path: Path) -> None:
    (tmp_path / "best" / "mine").mkdir(parents=True)
    best = BestCheckpoint(tmp_path / "best")
    offer(best, 0.5, 1)
    offer(best, 0.75, 2)
    assert kept(tmp_path / "best") == ["2", "mine"]


@pytest.mark.slow
def test_a_run_keeps_its_best_agent_through_a_resumption(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    flags = ["--eval_every", 1, "--eval_episodes", 3, "--keep_best", "--keep", 1, "--save_every", 1]
    assert run(*DEVICE, *flags, "--init_lr", 0.05, "--total_timesteps", 128, "--run_dir", run_dir) == 0
    assert run("--resume", run_dir, "--total_timesteps", 256) == 0
    returns = [row[METRIC] for row in rows(run_dir)]
    assert len(set(returns)) > 1
    best = int(np.argmax(returns)) + 1
    assert kept(run_dir / "best") == [str(best)]
    assert kept(run_dir / "checkpoints") == ["8"]
    played = trxl_jax.evaluate(trxl_jax.load(run_dir / "best"), 3, num_envs=2)
    assert played.means["r"] == pytest.approx(max(returns))
    for path in (run_dir / "best", run_dir / "best" / str(best)):
        assert find(path) == run_dir / "best" / str(best)
    assert find(run_dir) == run_dir / "checkpoints" / "8"
    assert enjoy.main([str(run_dir), "--best", "--episodes", "1"]) == 0
    assert "1 episodes" in capsys.readouterr().out
