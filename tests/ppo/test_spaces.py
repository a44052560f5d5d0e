"""Every kind of observation is learned from, on the host and on the device: probes with a known best return."""

from pathlib import Path
from typing import Any

import gymnax
import jax
import numpy as np
import pytest
from gymnasium import spaces

from tests.support.space_probes import EVERYTHING, Repeating, Showing
from trxl_jax import Config, evaluate, load
from trxl_jax.errors import ConfigError
from trxl_jax.runs.trainer import train

SIZES: dict[str, Any] = {
    "num_envs": 16, "num_steps": 32, "num_minibatches": 4, "update_epochs": 4, "init_lr": 3e-3, "final_lr": 3e-3,
    "gamma": 0.5, "init_ent_coef": 0.0, "final_ent_coef": 0.0, "trxl_num_layers": 1, "trxl_num_heads": 2,
    "trxl_dim": 32, "trxl_memory_length": 4, "norm_adv": True, "clip_coef": 0.2, "max_grad_norm": 1.0,
}  # fmt: skip


def learned(run_dir: Path, env: Any, iterations: int = 25, **changes: Any) -> float:
    """The mean return of the last episodes; guessing earns 0.5, the best policy 1."""
    config = Config(**SIZES | changes, run_dir=str(run_dir))
    config = config.replace(total_timesteps=iterations * config.batch_size)
    return train(config, env=env).metrics.get("episode/r_mean", np.nan)


SIMPLE = {
    "discrete": spaces.Discrete(3, start=4),
    "multi-discrete": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "multi-binary": spaces.MultiBinary((2, 3)),
    "a number": spaces.Box(-1, 1, (), np.float64),
    "small picture": spaces.Box(0, 255, (5, 6, 1), np.uint8),
    "grey picture": spaces.Box(0, 255, (40, 44), np.uint8),
    "channels first": spaces.Box(0, 1, (3, 36, 40), np.float32),
    "64x64": spaces.Box(0, 255, (64, 64, 3), np.uint8),
    "128x128x1": spaces.Box(0, 255, (128, 128, 1), np.uint8),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SIMPLE)
def test_single_arrays(kind: str, tmp_path: Path) -> None:
    # On some processors the larger rate ends the convolutions' ReLUs in the first updates.
    slower = {"init_lr": 1e-3, "final_lr": 1e-3} if kind == "channels first" else {}
    assert learned(tmp_path / "run", lambda: Repeating(SIMPLE[kind]), iterations=40 if slower else 20, **slower) >= 0.9


@pytest.mark.slow
def test_everything_at_once_on_the_host(tmp_path: Path) -> None:
    assert learned(tmp_path / "run", lambda: Repeating(EVERYTHING), iterations=30) >= 0.9


def test_nested_spaces_on_the_device(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert learned(run_dir, Showing()) >= 0.9
    assert evaluate(load(run_dir), 8, env=Showing()).means["r"] >= 0.9


@pytest.mark.slow
def test_worker_processes_and_reconstruction(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    changes = {"async_envs": True, "reconstruction_coef": 0.1, "num_envs": 4}
    space = spaces.Dict({"picture": spaces.Box(0, 255, (36, 36, 1), np.uint8), "cells": spaces.Discrete(3)})
    assert learned(run_dir, lambda: Repeating(space), **changes) >= 0.9


def test_a_policy_takes_the_arrays_by_name(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    learned(run_dir, lambda: Repeating(EVERYTHING), iterations=1)
    policy = load(run_dir)
    obs = policy.agent.spec.zero_obs()
    action, memory = policy.step(obs, policy.init(), deterministic=True)
    assert action.shape == (7,)
    policy.step({**obs, "more": 1}, memory, jax.random.key(0))
    del obs["picture"]
    with pytest.raises(ValueError, match="lacks picture; it needs"):
        policy.step(obs, memory, jax.random.key(0))


def test_other_observations_than_those_of_training_are_refused(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    learned(run_dir, lambda: Repeating(EVERYTHING), iterations=1)
    with pytest.raises(ConfigError, match=r"trained on observations \(cells: picture 7x7x3.*this task has choices"):
        evaluate(load(run_dir), 1, env=lambda: Repeating(spaces.Discrete(2)))


HOST_TASKS: dict[str, dict[str, Any]] = {
    "MortarMayhemB-v0": {"reconstruction_coef": 0.1},
    "MortarMayhemB-Grid-v0": {"normalize_observations": True},
    "Blackjack-v1": {},
    "FrozenLake-v1": {"async_envs": True},
    "Taxi-v4": {"action_mask_key": "action_mask"},
    "MiniGrid-GoToDoor-5x5-v0": {"minigrid_view": "symbolic", "minigrid_mission": True},
    "Pendulum-v1": {"wrapper": "tests.support.odd_spaces:WithoutVelocity"},
}


@pytest.mark.slow
@pytest.mark.parametrize("env_id", HOST_TASKS)
def test_tasks_of_the_host(env_id: str, tmp_path: Path) -> None:
    sizes = {"num_envs": 2, "num_steps": 8, "num_minibatches": 2, "update_epochs": 1, "env_id": env_id}
    learned(tmp_path / "run", None, iterations=2, **sizes | HOST_TASKS[env_id])
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    changes = {"allow_import": True}
    assert len(evaluate(load(tmp_path / "run"), 2, num_envs=2, max_steps=20, **changes).episodes) == 2


REFUSED = {"MNISTBandit-bsuite": "can't be made"}


@pytest.mark.slow
@pytest.mark.parametrize("name", gymnax.registered_envs)
def test_every_task_of_gymnax(name: str, tmp_path: Path) -> None:
    changes = {"num_envs": 2, "num_steps": 8, "num_minibatches": 2, "update_epochs": 1, "env_id": f"gymnax/{name}"}
    if name in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[name]):
            learned(tmp_path / "run", None, iterations=2, **changes)
    else:
        learned(tmp_path / "run", None, iterations=2, **changes)
        assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
