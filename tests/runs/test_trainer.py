"""What a run adds to its iterations: keys, the clock, and means over the last 100 episodes."""

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.support.device_probes import Wandering
from tests.support.probes import Counter
from trxl_jax import Config, init_states, make_agent, train
from trxl_jax.ppo.train_step import compile_train_step

SIZES: dict[str, Any] = {
    "num_envs": 2, "num_steps": 16, "num_minibatches": 2, "update_epochs": 1, "total_timesteps": 64, "trxl_dim": 8,
    "trxl_num_heads": 1, "trxl_num_layers": 1, "trxl_memory_length": 4,
}  # fmt: skip


def rows(config: Config, env: Any, run_dir: Path) -> list[dict[str, float]]:
    """Trains, and reads what was logged after each update."""
    train(config.replace(run_dir=str(run_dir)), env=env)
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_clock_and_means_of_the_last_100_episodes_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves a quarter of a second in each step of each of the two environments."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Numbered(Counter):
        """Episodes of two steps that count themselves."""

        episode = 0

        def __init__(self) -> None:
            super().__init__(length=2)

        def reset(self, **kwargs: Any) -> tuple:
            self.episode += 1
            return super().reset(**kwargs)

        def step(self, action: Any) -> tuple:
            now[0] += 0.25
            obs, reward, terminated, truncated, _ = super().step(action)
            return obs, reward, terminated, truncated, {"number": self.episode}

    logged = rows(Config(**SIZES | {"num_steps": 32, "total_timesteps": 5 * 64}), Numbered, tmp_path / "run")
    assert [row["charts/SPS"] for row in logged] == pytest.approx([4] * 5)
    for update, row in enumerate(logged, start=1):
        newest = 16 * update  # in either environment
        counted = min(newest, 50)
        assert row["episode/number_mean"] == pytest.approx(newest - (counted - 1) / 2)
        assert row["episode/t_mean"] == pytest.approx(1.0)  # two steps, in each of which both move the clock


def test_a_run_on_the_device_is_its_iterations(tmp_path: Path) -> None:
    """Step by step with keys derived from the seed; some 90 episodes end in an update."""
    config = Config(**SIZES | {"num_envs": 16, "num_steps": 32, "total_timesteps": 3 * 512, "seed": 5})
    env = Wandering(config.num_envs)
    logged = rows(config, env, tmp_path / "run")
    agent = make_agent(config, env.spec)
    init_key, key = jax.random.split(jax.random.key(5))
    states = init_states(config, env, agent, init_key)
    train_step = compile_train_step(config, env, agent, states, key)  # as the run does: it is in the cache
    ended: list[tuple[float, float, float]] = []
    assert len(logged) == 3
    for row in logged:
        *states, output = train_step(*states, key)
        for name, value in output.metrics.items():
            assert row[name] == pytest.approx(float(value), rel=1e-5, abs=1e-7), name
        done = np.asarray(output.episode.done)
        returns = np.asarray(output.episode.episode_return)[done]
        lengths = np.asarray(output.episode.episode_length)[done]
        seconds_a_step = config.num_envs / row["charts/SPS"]
        ended += [(r, length, length * seconds_a_step) for r, length in zip(returns, lengths, strict=True)]
        means = np.mean(ended[-100:], axis=0)
        for name, mean in zip(("r", "l", "t"), means, strict=True):
            assert row[f"episode/{name}_mean"] == pytest.approx(mean, rel=1e-5), name
    assert len(ended) > 200
