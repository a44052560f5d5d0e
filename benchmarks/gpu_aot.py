"""Compiles training ahead of time for one NVIDIA H100, without having one, and counts its kernels.

    pip install --no-deps jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 nvidia-cuda-nvcc-cu12
    python benchmarks/gpu_aot.py [PRESET ...] [--programs rollout update train_step]
                                 [--compute_dtype float32 bfloat16] [--num_envs N ...] [--json FILE] [--hlo DIR]
                                 [--tree] [--flags of train.py]

The compiler needs no driver and no GPU: three wheels, 400 MB. Without arguments: mortar-mayhem-grid with `--backend
device`, its whole `train_step`. Nothing is run, so the only times are those of compilation; and kernels are not tuned
on the chip, so that it may run other algorithms of the same libraries.

`compiled_programs.py` says what a kernel is. Columns:

- rollout step, minibatch: kernels of one round of the loop, rounds of loops inside it included. A loop whose number of
  rounds the compiler doesn't know counts one round, and the number gets a "+".
- GAE: kernels of advantages and returns, all rounds.
- launches: kernels of one iteration, every round of every loop.
- temporaries: the most memory that the program needs besides its arguments and results.

`--tree` prints every loop with the kinds of its kernels; `--hlo DIR` writes the optimised programs.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu"}  # read when JAX starts
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from compiled_programs import Block, read_program

from trxl_jax import init_states, make_agent, make_env
from trxl_jax.cli import run_command
from trxl_jax.commands.train import parse
from trxl_jax.config import Config
from trxl_jax.errors import UserError
from trxl_jax.ppo.train_step import chain, make_collect_and_learn

PROGRAMS = ("rollout", "update", "train_step")
DTYPES = ("float32", "bfloat16")
_WHEELS = f"jax-cuda12-plugin=={jax.__version__} jax-cuda12-pjrt=={jax.__version__} nvidia-cuda-nvcc-cu12"

# An H100 SXM as XLA describes it.
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84978434048
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def on_h100() -> SingleDeviceSharding:
    """Sharding on an H100 that isn't there.

    Raises:
        UserError: the compiler is not installed.
    """
    remedy = f"install the compiler for NVIDIA GPUs (400 MB, no driver needed): pip install --no-deps {_WHEELS}"
    if importlib.util.find_spec("jax_plugins") is None or importlib.util.find_spec("jax_cuda12_plugin") is None:
        raise UserError(f"JAX's CUDA plugin is missing; {remedy}")
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", topology_name="h100", topology="1x1x1", target_config=_H100
        )
    except Exception as error:  # whatever a plugin of another version raises
        raise UserError(f"{str(error).partition(chr(10))[0]}; {remedy}") from None
    return SingleDeviceSharding(topology.devices[0])


def compile_program(config: Config, program: str, place: SingleDeviceSharding) -> tuple[Any, float]:
    """The compiled program and the seconds that it took."""
    env = make_env(config)
    agent = make_agent(config, env.spec, platform="gpu")
    key = jax.eval_shape(jax.random.key, 0)
    states = jax.eval_shape(lambda key: init_states(config, env, agent, key), key)
    collect, learn = make_collect_and_learn(config, env, agent)
    programs: dict[str, Any] = {"rollout": collect, "update": learn, "train_step": chain(collect, learn)}
    arguments = (*states, key)
    if program == "update":
        arguments = (states[0], jax.eval_shape(collect, *states, key)[1], key)
    env.close()
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments)
    started = time.perf_counter()
    compiled = jax.jit(programs[program]).lower(*placed).compile()
    return compiled, time.perf_counter() - started


def describe(config: Config, compiled: Any, seconds: float, program: Block) -> dict[str, Any]:
    """The numbers of a compiled program by name; None for parts that it doesn't have."""
    memory = compiled.memory_analysis()
    step, epochs = program.largest(config.num_steps), program.largest(config.update_epochs)
    minibatch = epochs and epochs.largest(config.num_minibatches)
    parts = {"rollout_step": step, "minibatch": minibatch}
    counts = {f"{name}_kernels": part and part.kernels for name, part in parts.items()}
    return {
        "compile_seconds": round(seconds, 1),
        **counts,
        "gae_kernels": program.gae_kernels or None,
        "launches": program.kernels,
        "exact": {name: part is None or part.is_exact for name, part in (parts | {"launches": program}).items()},
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Prints a table."""
    table = Table(title="one H100, compiled ahead of time")
    for column in ("preset", "program", "products", "N"):
        table.add_column(column)
    for column in ("rollout\nstep", "mini-\nbatch", "GAE", "launches", "temporaries\nMB", "compiling"):
        table.add_column(column, justify="right")

    def number(row: dict[str, Any], name: str) -> str:
        value, exact = row.get(f"{name}_kernels", row.get(name)), row["exact"].get(name, True)
        return "-" if value is None else f"{value:,}" + ("" if exact else "+")

    for row in rows:
        table.add_row(
            row["preset"],
            row["program"],
            row["compute_dtype"],
            f"{row['num_envs']:,}",
            *(number(row, name) for name in ("rollout_step", "minibatch", "gae", "launches")),
            f"{row['temporary_bytes'] / 1e6:,.0f}",
            f"{row['compile_seconds']:.0f} s",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def print_tree(program: Block) -> None:
    """Prints each loop and branch with its kernels."""
    for depth, block in program.walk():
        rounds = "?" if block.rounds is None else block.rounds
        kinds = ", ".join(f"{n} {kind}" for kind, n in block.kinds.most_common())
        print(f"{'  ' * depth}x {rounds}: {block.kernels} kernels; its own: {kinds}")


def parse_options(flags: Sequence[str]) -> tuple[list[str], argparse.Namespace, list[str]]:
    """Splits the command line into presets, this command's own options, and flags of train.py.

    Raises:
        UserError: an option without its values, or an unknown program.
    """
    own = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=argparse.SUPPRESS,
        allow_abbrev=False,
        exit_on_error=False,
    )
    own.add_argument("--programs", nargs="+", default=["train_step"], choices=PROGRAMS)
    own.add_argument("--compute_dtype", nargs="+", default=["float32"], choices=DTYPES)
    own.add_argument("--num_envs", nargs="+", default=[], help="numbers of environments, one after the other")
    own.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    own.add_argument("--hlo", type=Path, metavar="DIR", help="write the optimised programs there")
    own.add_argument("--tree", action="store_true", help="print every loop with the kinds of its kernels")
    presets = list(takewhile(lambda flag: not flag.startswith("-"), flags))
    try:
        options, rest = own.parse_known_args(flags[len(presets) :])
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None
    if not presets:
        presets, rest = ["mortar-mayhem-grid"], ["--backend", "device", *rest]
    return presets, options, rest


def configurations(presets: list[str], options: argparse.Namespace, rest: list[str]) -> list[tuple[str, Config]]:
    """Every configuration that the command line asks for, with its preset.

    Raises:
        UserError: an unknown preset, flag or value.
    """
    sizes = [["--num_envs", number] for number in options.num_envs] or [[]]
    return [
        (name, parse([name, *rest, "--compute_dtype", dtype, *size]).config)
        for name in presets
        for dtype in options.compute_dtype
        for size in sizes
    ]


def main(flags: Sequence[str]) -> int:
    """Compiles, prints a table, and writes JSON."""
    presets, options, rest = parse_options(flags)
    wanted = configurations(presets, options, rest)
    place = on_h100()
    jax.config.update("jax_enable_compilation_cache", False)  # else the time to read the cache would be measured
    rows: list[dict[str, Any]] = []
    for preset, config in wanted:
        for name in options.programs:
            compiled, seconds = compile_program(config, name, place)
            text = compiled.as_text()
            program = read_program(text)
            row = {"preset": preset, "env_id": config.env_id, "program": name, "compute_dtype": config.compute_dtype,
                   "num_envs": config.num_envs, **describe(config, compiled, seconds, program)}  # fmt: skip
            rows.append(row)
            if options.hlo is not None:
                options.hlo.mkdir(parents=True, exist_ok=True)
                (options.hlo / f"{preset}_{name}_{config.compute_dtype}_{config.num_envs}.txt").write_text(text)
            if options.tree:
                print_tree(program)
            if options.json is not None:
                options.json.write_text(json.dumps(rows, indent=2) + "\n")
    show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
