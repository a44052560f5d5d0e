"""The presets compile for a TPU, ahead of time, and fit into its memory."""

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "tpu_aot.py"
HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
SMALL = ("--num_envs", 8, "--num_steps", 64)


def run(*flags: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, flags)], capture_output=True, text=True, check=False)


@pytest.mark.tpu_aot
@pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed; pip install 'jax[tpu]' brings it")
def test_a_preset_compiles_for_a_tpu_and_fits() -> None:
    """At its full size with callbacks; the other programs smaller."""
    full = run("mortar-mayhem-grid", "--programs", "host", "--compute_dtype", "bfloat16", "--json")
    small = run("mortar-mayhem-grid", "--programs", "device", "update", "--compute_dtype", "float32", "--json", *SMALL)
    assert full.returncode == small.returncode == 0, full.stderr + small.stderr
    host, device, update = (json.loads(line) for line in (full.stdout + small.stdout).splitlines())
    assert (host["program"], device["program"], update["program"]) == ("host", "device", "update")
    assert (host["compute_dtype"], update["compute_dtype"]) == ("bfloat16", "float32")
    # The encoder's 16.2 MFLOP forward and twice that backward, but for the first layer's input; the transformer's rest.
    assert 45e6 < host["flops_per_sample"] < 80e6
    assert 45e6 < update["flops_per_sample"] < 80e6
    assert device["flops_per_sample"] < 20e6
    # What a rollout holds is there, and not several times: 512 x 32 frames.
    assert 512 * 32 * 84 * 84 * 3 < host["temporary_bytes"] < 2e9
    for row in (host, device, update):
        assert 0 < row["minibatch_main_bytes_per_sample"] < row["bytes_per_sample"]
        assert row["total_bytes"] == sum(row[f"{name}_bytes"] for name in ("argument", "output", "temporary"))
        assert row["fits"]


@pytest.mark.tpu_aot
@pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed; pip install 'jax[tpu]' brings it")
def test_a_minibatch_moves_few_bytes() -> None:
    """At the preset's size; docs/performance.md has the numbers."""
    process = run("mortar-mayhem-grid", "--programs", "update", "--json")
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    main: dict[str, float] = {}
    both: dict[str, float] = {}
    for row in rows:
        main[row["compute_dtype"]] = row["minibatch_main_bytes_per_sample"]
        both[row["compute_dtype"]] = row["minibatch_main_bytes_per_sample"] + row["minibatch_fast_bytes_per_sample"]
    assert main["float32"] < 1.0e6
    assert main["bfloat16"] < 0.8e6
    assert both["float32"] < 2.1e6
    assert both["bfloat16"] < 1.8e6


@pytest.mark.slow
@pytest.mark.skipif(HAS_LIBTPU, reason="libtpu is installed")
def test_without_the_compiler_one_line_names_the_remedy() -> None:
    process = run("proof-of-memory", "--programs", "update")
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1
    assert "pip install" in process.stderr
    assert "jax[tpu]" in process.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["mortar-mayhem-gird"], "mortar-mayhem-grid"),
        (["--programs", "rollout"], "--programs"),
        (["--compute_dtype"], "--compute_dtype"),
        (["--compute_dtype", "float16"], "float16"),
        (["--no_such_flag", "3"], "--no_such_flag"),
    ],
)
def test_bad_flags_get_one_line(flags: list[str], named: str) -> None:
    process = run(*flags)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    assert named in process.stderr
