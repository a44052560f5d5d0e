"""Compiles training ahead of time for one TPU v5e chip, without having one, and prints cost and memory.

    pip install "jax[tpu]==0.10.2"
    python benchmarks/tpu_aot.py [PRESET ...] [--programs host device update] [--compute_dtype float32 bfloat16]
                                 [--json] [--flags of train.py]

Without arguments: mortar-mayhem-grid and endless-mortar-mayhem. The programs are: a whole `train_step` with the
preset's host environments behind callbacks; the same sizes with gymnax/MemoryChain-bsuite, which runs on the device;
and the update alone. Operations and bytes are those of XLA's cost analysis, per sample of a minibatch. It counts a
loop's body once: one minibatch and, in a train step, one step of the rollout. Of the bytes there is a second number:
those of a minibatch alone, in the chip's main and in its fast memory, see `moved_bytes.py`. Nothing is run, so the
only times are those of compilation.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

# Read when JAX and libtpu start. Without the last three, libtpu queries a cloud's metadata server or complains.
os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
               "TPU_ACCELERATOR_TYPE": "v5litepod-4"}  # fmt: skip

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from moved_bytes import Bytes, bytes_of_computations
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from trxl_jax import init_states, make_agent, make_env, make_train_step
from trxl_jax.cli import run_command
from trxl_jax.commands.train import parse
from trxl_jax.config import Config
from trxl_jax.errors import UserError
from trxl_jax.ppo.train_step import make_collect_and_learn

PRESETS = ("mortar-mayhem-grid", "endless-mortar-mayhem")
DEVICE_ENV = "gymnax/MemoryChain-bsuite"
HBM_BYTES = 16e9


def on_one_chip() -> SingleDeviceSharding:
    """Sharding on the first chip of a v5e host with four, the smallest topology that libtpu supports.

    Raises:
        UserError: libtpu is not installed.
    """
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    except RuntimeError as error:
        reason = str(error).partition(";")[0]
        raise UserError(f'{reason}; install its compiler: pip install "jax[tpu]=={jax.__version__}"') from None
    return SingleDeviceSharding(topology.devices[0])


def measure(config: Config, program: str, place: SingleDeviceSharding) -> dict[str, Any]:
    """Compiles one program and returns its results by name."""
    if program == "device":
        config = config.replace(env_id=DEVICE_ENV, env_options={}, reconstruction_coef=0.0)
    env = make_env(config)
    agent = make_agent(config, env.spec, platform="tpu")
    key = jax.eval_shape(jax.random.key, 0)
    states = jax.eval_shape(lambda key: init_states(config, env, agent, key), key)
    function: Callable[..., Any] = make_train_step(config, env, agent)
    arguments = (*states, key)
    if program == "update":
        collect, function = make_collect_and_learn(config, env, agent)
        arguments = (states[0], jax.eval_shape(collect, *states, key)[1], key)
    env.close()
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments)
    started = time.perf_counter()
    compiled: Any = jax.jit(function).lower(*placed).compile()
    seconds = time.perf_counter() - started
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    samples, minibatch = config.batch_size // config.num_minibatches, minibatch_bytes(compiled.as_text())
    sizes = {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
    }
    total = sum(sizes.values())
    return {
        "env_id": config.env_id,
        "program": program,
        "compute_dtype": config.compute_dtype,
        "compile_seconds": seconds,
        "flops_per_sample": cost["flops"] / samples,
        "bytes_per_sample": cost["bytes accessed"] / samples,
        "minibatch_main_bytes_per_sample": minibatch.main / samples,
        "minibatch_fast_bytes_per_sample": minibatch.fast / samples,
        **sizes,
        "total_bytes": total,
        "fits": total < HBM_BYTES,
    }


def minibatch_bytes(text: str) -> Bytes:
    """Bytes of one minibatch: of the computation that moves most and is run by a loop."""
    entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)
    assert entry, "no program of XLA"
    return max((moved for name, moved in bytes_of_computations(text).items() if name != entry[1]), key=sum)


def show(rows: list[dict[str, Any]]) -> None:
    """Prints a table."""
    table = Table(title="one TPU v5e chip, compiled ahead of time")
    table.add_column("preset")
    table.add_column("program")
    table.add_column("matrix\nproducts")
    for column in ("compile\ntime", "MFLOP\nper sample", "MB\nper sample", "minibatch:\nmain memory",
                   "minibatch:\nfast memory", "arguments\nMB", "outputs\nMB", "temporaries\nMB",
                   "sum\nMB"):  # fmt: skip
        table.add_column(column, justify="right")
    table.add_column("below\n16 GB")
    for row in rows:
        table.add_row(
            row["preset"],
            row["program"],
            row["compute_dtype"],
            f"{row['compile_seconds']:.0f} s",
            f"{row['flops_per_sample'] / 1e6:.1f}",
            f"{row['bytes_per_sample'] / 1e6:.1f}",
            *(f"{row[f'minibatch_{memory}_bytes_per_sample'] / 1e6:.2f}" for memory in ("main", "fast")),
            *(f"{row[f'{name}_bytes'] / 1e6:.0f}" for name in ("argument", "output", "temporary", "total")),
            "yes" if row["fits"] else "no",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)  # 80 columns, the default of pipes, cut numbers


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
    own.add_argument(
        "--programs", nargs="+", default=["host", "device", "update"], choices=["host", "device", "update"]
    )
    own.add_argument("--compute_dtype", nargs="+", default=["float32", "bfloat16"])
    own.add_argument("--json", action="store_true", help="print one JSON object per line")
    presets = list(takewhile(lambda flag: not flag.startswith("-"), flags))
    try:
        options, rest = own.parse_known_args(flags[len(presets) :])
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None
    return presets or list(PRESETS), options, rest


def main(flags: Sequence[str]) -> int:
    """Compiles and prints a table or JSON."""
    presets, options, rest = parse_options(flags)
    configs = {name: [parse([name, *rest, "--compute_dtype", dtype]).config for dtype in options.compute_dtype]
               for name in presets}  # fmt: skip
    place = on_one_chip()
    jax.config.update("jax_enable_compilation_cache", False)  # else the time to read the cache would be measured
    rows = []
    for name, variants in configs.items():
        for config in variants:
            for program in options.programs:
                rows.append({"preset": name} | measure(config, program, place))
                if options.json:
                    print(json.dumps(rows[-1]), flush=True)
    if not options.json:
        show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
