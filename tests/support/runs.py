"""Short runs of `train`, whose checkpoints tests load, and agents that were not trained."""

from pathlib import Path
from typing import Any

import jax

from trxl_jax import make_agent
from trxl_jax.config import Config
from trxl_jax.envs.base import EnvSpec
from trxl_jax.play.policy import Policy
from trxl_jax.runs.trainer import train


def make_run(run_dir: Path, env: Any = None, **changes: Any) -> Path:
    """Trains a very small agent for one update."""
    sizes: dict[str, Any] = {
        "num_envs": 2, "num_steps": 16, "num_minibatches": 2, "update_epochs": 1, "total_timesteps": 32, "trxl_dim": 16,
        "trxl_num_heads": 2, "trxl_num_layers": 2, "trxl_memory_length": 6,
    }  # fmt: skip
    train(Config(**sizes | changes, run_dir=str(run_dir)), env=env)
    return run_dir


def untrained(config: Config, spec: EnvSpec) -> Policy:
    """A policy with random parameters for a task."""
    agent = make_agent(config, spec)
    return Policy(params=jax.jit(agent.init_params)(jax.random.key(0)), agent=agent, config=config)
