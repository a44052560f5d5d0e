"""Published tasks run: their presets at a reduced size, two updates, real environments."""

import json
from pathlib import Path

import pytest

from trxl_jax import PRESETS
from trxl_jax.runs.trainer import train


# One of each agent (see test_resume for MiniGrid); the others differ in the environment alone, which has its own tests.
@pytest.mark.parametrize(
    ("name", "core"),
    [("mystery-path-grid", "trxl"), ("endless-searing-spotlights", "trxl"), ("searing-spotlights", "gru")],
)
@pytest.mark.slow
def test_two_updates(name: str, core: str, tmp_path: Path) -> None:
    config = PRESETS[name].replace(
        core=core,
        segment_length=1 if core == "trxl" else 4,
        num_envs=2,
        num_steps=8,
        num_minibatches=2,
        update_epochs=1,
        total_timesteps=32,
        trxl_dim=16,
        trxl_num_heads=2,
        trxl_num_layers=1,
        run_dir=str(tmp_path / "run"),
    )
    train(config)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert rows[-1]["losses/entropy"] > 0
    assert (rows[-1]["losses/reconstruction_loss"] > 0) == (config.reconstruction_coef > 0)
    # The ratio of the first minibatch is 1, so that one of two may be clipped at the most.
    assert rows[0]["losses/clipfrac"] <= 0.5
