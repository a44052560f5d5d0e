"""What all tests share: how much XLA optimises, the cache of programs, and short runs whose checkpoints are loaded."""

import os
from pathlib import Path

# Compiling is most of what tests do. Without optimisations it takes 0.6 of the time, also in commands that tests start.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest

from tests.support.runs import make_run
from trxl_jax.cli import cache_directory

# As commands do: many tests compile the same programs.
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_directory()))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="module", autouse=True)
def compiler_effort(request: pytest.FixtureRequest) -> None:
    """Modules marked `optimised` compile as users do: they train for long, or compare digits with the original."""
    optimised = request.node.get_closest_marker("optimised") is not None
    jax.config.update("jax_disable_most_optimizations", not optimised)


@pytest.fixture(scope="session")
def proof_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("proof") / "run", env_id="ProofofMemory-v0")


@pytest.fixture(scope="session")
def device_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("device") / "run", env_id="gymnax/ProofofMemory-v0")


@pytest.fixture(scope="session")
def mortar_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("mortar") / "run", env_id="MortarMayhem-Grid-v0")
