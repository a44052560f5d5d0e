"""Short runs of `train`, made once a session, whose checkpoints tests load."""

import os
from pathlib import Path
from typing import Any

import jax
import pytest

from trxl_jax.cli import cache_directory
from trxl_jax.config import Config
from trxl_jax.runs.trainer import train

# As commands do: many tests compile the same programs, which is most of the time that they take.
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_directory()))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def make_run(run_dir: Path, env: Any = None, **changes: Any) -> Path:
    """Trains a very small agent for one update."""
    sizes: dict[str, Any] = {
        "num_envs": 2, "num_steps": 16, "num_minibatches": 2, "update_epochs": 1, "total_timesteps": 32, "trxl_dim": 16,
        "trxl_num_heads": 2, "trxl_num_layers": 2, "trxl_memory_length": 6,
    }  # fmt: skip
    train(Config(**sizes | changes, run_dir=str(run_dir)), env=env)
    return run_dir


@pytest.fixture(scope="session")
def proof_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("proof") / "run", env_id="ProofofMemory-v0")


@pytest.fixture(scope="session")
def device_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("device") / "run", env_id="gymnax/ProofofMemory-v0")


@pytest.fixture(scope="session")
def mortar_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("mortar") / "run", env_id="MortarMayhem-Grid-v0")
