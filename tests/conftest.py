"""What all tests share: how much XLA optimises, the cache of programs, and short runs whose checkpoints are loaded."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Compiling is most of what tests do. Without optimisations it takes 0.8 of the time, also in commands that tests start.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest
from jax._src import compiler  # private: no public setting has options that can change within a process

from tests.support.runs import make_run
from trxl_jax.cli import cache_directory

# As commands do: many tests compile the same programs.
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_directory()))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


# An older way to fuse operations, which JAX 0.11 has no more. Compiling takes half the time with it.
_QUICK = {"xla_cpu_use_fusion_emitters": "False"} if jax.__version_info__ < (0, 11) else {}
_get_compile_options = compiler.get_compile_options


SLOW_CASES = Path(__file__).with_name("slow_cases.txt")


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the cases of `slow_cases.txt`."""
    slow = set(SLOW_CASES.read_text().splitlines())
    for item in items:
        if item.nodeid in slow:
            item.add_marker("slow")


@pytest.fixture(scope="module", autouse=True)
def compiler_effort(request: pytest.FixtureRequest, monkeypatch_module: pytest.MonkeyPatch) -> Iterator[None]:
    """How XLA compiles the programs of a module: with little effort, unless a marker asks for more."""
    as_users = request.node.get_closest_marker("compiled_as_for_users") is not None
    optimised = as_users or request.node.get_closest_marker("optimised") is not None
    jax.config.update("jax_disable_most_optimizations", not optimised)
    if not as_users:
        monkeypatch_module.setattr(compiler, "get_compile_options", _quick_compile_options)
    yield
    jax.clear_caches()  # a process of tests would grow to several gigabytes


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def _quick_compile_options(*args: Any, env_options_overrides: dict[str, str] | None = None, **kwargs: Any) -> Any:
    options = _QUICK | (env_options_overrides or {})
    return _get_compile_options(*args, env_options_overrides=options, **kwargs)


@pytest.fixture(scope="session")
def proof_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("proof") / "run", env_id="ProofofMemory-v0")


@pytest.fixture(scope="session")
def device_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("device") / "run", env_id="gymnax/ProofofMemory-v0")


@pytest.fixture(scope="session")
def mortar_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("mortar") / "run", env_id="MortarMayhem-Grid-v0")
