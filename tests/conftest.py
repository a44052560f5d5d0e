"""Short runs of `train`, made once a session, whose checkpoints tests load."""

import os
from pathlib import Path

import jax
import pytest

from tests.support.runs import make_run
from trxl_jax.cli import cache_directory

# As commands do: many tests compile the same programs, which is most of the time that they take.
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_directory()))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="session")
def proof_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("proof") / "run", env_id="ProofofMemory-v0")


@pytest.fixture(scope="session")
def device_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("device") / "run", env_id="gymnax/ProofofMemory-v0")


@pytest.fixture(scope="session")
def mortar_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("mortar") / "run", env_id="MortarMayhem-Grid-v0")
