"""Kernels are counted as they are launched, and training keeps to its numbers of them."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compiled_programs, gpu_aot
from tests.support.command import environment
from tests.support.paths import ROOT
from trxl_jax.presets import PRESETS

SCRIPT = ROOT / "benchmarks" / "gpu_aot.py"
HAS_COMPILER = importlib.util.find_spec("jax_cuda12_plugin") is not None

# A loop of 3 rounds around one of 5, a loop whose rounds aren't known, and a branch.
PROGRAM = """HloModule jit_step, is_scheduled=true

%inner_body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %add_fusion = f32[4]{0} fusion(%x), kind=kLoop, calls=%f1, metadata={op_name="jit(step)/while/body/gae/add"}
  %gemm = (f32[4]{0}, s8[8]{0}) custom-call(%x), custom_call_target="__cublas$gemm"
  ROOT %t = (s32[], f32[4]{0}) tuple(%x, %add_fusion)
}

%outer_body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  %copy.1 = f32[4]{0} copy(%p)
  ROOT %w = (s32[], f32[4]{0}) while(%p), condition=%c, body=%inner_body, backend_config={"known_trip_count":{"n":"5"}}
}

%unknown_condition (p: (s32[], f32[4])) -> pred[] {
  %less = pred[] fusion(%p), kind=kLoop, calls=%f2
}

%unknown_body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %f = f32[4]{0} fusion(%p), kind=kCustom, calls=%f3, backend_config={"fusion_backend_config":{"kind":"__triton"}}
}

%branch (p: f32[4]) -> f32[4] {
  %g = f32[4]{0} fusion(%p), kind=kLoop, calls=%f4
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %b = f32[4]{0} bitcast(%a)
  %w1 = (s32[], f32[4]{0}) while(%b), condition=%c, body=%outer_body, backend_config={"known_trip_count":{"n":"3"}}
  %w2 = (s32[], f32[4]{0}) while(%b), condition=%unknown_condition, body=%unknown_body
  %cond = f32[4]{0} conditional(%a, %b), branch_computations={%branch, %branch}
  ROOT %last = f32[4]{0} fusion(%cond), kind=kLoop, calls=%f5, metadata={op_name="jit(step)/gae/add"}
}
"""


def test_kernels_of_a_program() -> None:
    program = compiled_programs.read_program(PROGRAM)
    outer, inner = program.largest(3), program.largest(5)
    assert inner is not None
    assert outer is not None
    assert inner.kinds == {"fusion": 1, "__cublas$gemm": 1}
    assert (inner.kernels, outer.kernels) == (2, 1 + 5 * 2)
    unknown = next(block for _, block in program.walk() if block.rounds is None)
    assert unknown.kinds == {"triton": 1, "condition read by the host": 1}
    assert unknown.kernels == 3  # and the condition's own
    assert program.kernels == 3 * 11 + 3 + 2 + 1
    assert program.gae_kernels == 3 * 5 + 1
    assert inner.is_exact
    assert not program.is_exact


def run(*flags: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, flags)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(HAS_COMPILER, reason="the compiler is installed")
def test_without_the_compiler_one_line_names_the_remedy() -> None:
    process = run("proof-of-memory", "--backend", "device")
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1
    assert "pip install --no-deps jax-cuda12-plugin==" in process.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["mortar-mayhem-gird"], "mortar-mayhem-grid"),
        (["--programs", "rollouts"], "--programs"),
        (["--compute_dtype", "float16"], "float16"),
        (["--num_envs", "many"], "--num_envs"),
        (["--no_such_flag", "3"], "--no_such_flag"),
    ],
)
def test_bad_flags_get_one_line(flags: list[str], named: str) -> None:
    process = run(*flags)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    assert named in process.stderr


def test_default_and_several_configurations() -> None:
    presets, options, rest = gpu_aot.parse_options([])
    ((name, config),) = gpu_aot.configurations(presets, options, rest)
    assert (name, config.env_id) == ("mortar-mayhem-grid", "jax/MortarMayhem-Grid-v0")
    flags = ["proof-of-memory", "--compute_dtype", "float32", "bfloat16", "--num_envs", "8", "32", "--trxl_dim", "32"]
    found = gpu_aot.configurations(*gpu_aot.parse_options(flags))
    assert [(c.compute_dtype, c.num_envs) for _, c in found] == [
        ("float32", 8), ("float32", 32), ("bfloat16", 8), ("bfloat16", 32)
    ]  # fmt: skip
    assert {c.trxl_dim for _, c in found} == {32}
    assert found[0][1].env_id == PRESETS["proof-of-memory"].env_id


@pytest.mark.gpu_aot
@pytest.mark.skipif(not HAS_COMPILER, reason="JAX's CUDA plugin is not installed; benchmarks/gpu_aot.py says how")
def test_training_keeps_to_its_numbers_of_kernels(tmp_path: Path) -> None:
    """The limits are those of docs/performance.md."""
    file = tmp_path / "counts.json"
    process = run("--json", file)
    assert process.returncode == 0, process.stderr
    (row,) = json.loads(file.read_text())
    assert all(row["exact"].values())
    assert row["rollout_step_kernels"] <= 48
    assert row["minibatch_kernels"] <= 130
    assert row["gae_kernels"] <= 30
