"""Runs that version 0.1.0 wrote still load, play and resume with the same numbers (`tests/golden/runs`).

`continued.jsonl` is what version 0.1.0 itself logged when it resumed them. On the machine that wrote it the numbers
were equal to the last bit; on others products may round differently.
"""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import trxl_jax
from tests.support.command import HOST, rows, run
from tests.support.paths import GOLDEN
from trxl_jax.config import load_config
from trxl_jax.envs.observations import numbers


@pytest.mark.parametrize("kind", ["device", "host"])
def test_an_old_run_resumes_with_the_same_numbers(kind: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(GOLDEN / "runs" / kind, run_dir)
    assert run("--resume", run_dir, "--total_timesteps", 128) == 0
    continued = rows(run_dir)
    (run_dir / "continued.jsonl").replace(run_dir / "metrics.jsonl")
    expected = rows(run_dir)
    assert len(continued) == len(expected) == 4
    for ours, theirs in zip(continued, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_an_old_run_is_continued_by_the_flags_that_started_it(tmp_path: Path) -> None:
    """Its episodes' seeds have other bits, for which there is no flag."""
    run_dir = tmp_path / "run"
    shutil.copytree(GOLDEN / "runs" / "host", run_dir)
    flags = [
        *HOST,
        "--trxl_num_heads",
        2,
        "--trxl_positional_encoding",
        "learned",
        "--total_timesteps",
        64,
        "--run_dir",
        run_dir,
    ]
    assert run(*flags, "--resume", "auto") == 0
    config = load_config(run_dir / "config.json")
    assert (config.seed_bits, config.trxl_num_positions, config.max_episode_steps) == (32, 16, None)


@pytest.mark.parametrize("kind", ["device", "host"])
def test_an_old_run_plays_without_its_environment(kind: str) -> None:
    policy = trxl_jax.load(GOLDEN / "runs" / kind)
    assert policy.agent.spec.action.nvec == (2,)
    assert policy.agent.spec.obs == numbers(3)
    action, memory = policy.step(np.zeros(3, np.float32), policy.init(), jax.random.key(0))
    assert action in (0, 1)
    assert memory.episode_step == 1
