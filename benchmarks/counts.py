"""Regression test of compiled programs: fails if rollout or update cost more than recorded in `counts.json`.

    python benchmarks/counts.py [--update]

It compares two deterministic numbers of programs compiled for a CPU at small sizes: operations, by XLA's cost analysis,
and bytes of temporaries, by its memory analysis. A loop's body counts once, so operations measure the cost of a step or
minibatch, not their number. 10% more is tolerated; `--update` writes the current numbers to `counts.json`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from trxl_jax import init_states, make_agent, make_env
from trxl_jax.cli import run_command
from trxl_jax.config import Config
from trxl_jax.errors import UserError
from trxl_jax.ppo.train_step import make_collect_and_learn
from trxl_jax.presets import PRESETS

FILE = Path(__file__).with_name("counts.json")
TOLERANCE = 0.1

# Vectors on the device, and images on the host. The sizes are large enough to select the variants of large programs:
# attention in a loop over environments, and the encoder in blocks of chunks.
CONFIGURATIONS = {
    "proof-of-memory": PRESETS["proof-of-memory"].replace(env_id="gymnax/ProofofMemory-v0"),
    "mortar-mayhem-grid": PRESETS["mortar-mayhem-grid"].replace(
        num_envs=4, num_steps=128, num_minibatches=2, trxl_dim=128, trxl_num_layers=2, trxl_memory_length=64
    ),
    "searing-spotlights": PRESETS["searing-spotlights"].replace(  # with the reconstruction loss
        num_envs=4, num_steps=128, num_minibatches=2, trxl_dim=128, trxl_num_layers=2, trxl_memory_length=64
    ),
}

Counts = dict[str, int]
"""Numbers by "configuration, program, quantity"."""


def measure(config: Config) -> Counts:
    """Compiles rollout and update; returns numbers by "program, quantity"."""
    env = make_env(config)
    agent = make_agent(config, env.spec)
    key = jax.eval_shape(jax.random.key, 0)
    states = jax.eval_shape(lambda key: init_states(config, env, agent, key), key)
    collect, learn = make_collect_and_learn(config, env, agent)
    programs: dict[str, Any] = {
        "rollout": (collect, (*states, key)),
        "update": (learn, (states[0], jax.eval_shape(collect, *states, key)[1], key)),
    }
    counts = {}
    for name, (function, arguments) in programs.items():
        compiled: Any = jax.jit(function).lower(*arguments).compile()
        counts[f"{name}, operations"] = int(compiled.cost_analysis()["flops"])
        counts[f"{name}, temporary bytes"] = compiled.memory_analysis().temp_size_in_bytes
    return counts


def grown(bounds: Counts, counts: Counts) -> list[str]:
    """A message for each number that has no bound or exceeds it by more than the tolerance."""
    lines = []
    for name, count in counts.items():
        bound = bounds.get(name)
        if bound is None:
            lines.append(f"{name}: {count:,}, but {FILE.name} has no bound for it")
        elif count > bound * (1 + TOLERANCE):
            lines.append(f"{name}: grew from {bound:,} to {count:,} ({TOLERANCE:.0%} more is tolerated)")
    return lines


def show(bounds: Counts, counts: Counts) -> None:
    """Prints numbers and their bounds."""
    table = Table(title="counts of compiled programs, CPU")
    for column in ("what", "in counts.json", "now"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, count in counts.items():
        table.add_row(name, f"{bounds[name]:,}" if name in bounds else "-", f"{count:,}")
    Console().print(table)


def main(flags: Sequence[str]) -> int:
    """Compares or updates; returns 1 if a number grew, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="accept the current numbers")
    options = parser.parse_args(flags)
    if jax.default_backend() != "cpu":
        raise UserError(f"the counts are for CPUs, but JAX runs on {jax.default_backend()}; set JAX_PLATFORMS=cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # programs read from the cache have no memory analysis
    bounds: Counts = json.loads(FILE.read_text()) if FILE.exists() else {}
    counts = {f"{name}, {what}": n for name, config in CONFIGURATIONS.items() for what, n in measure(config).items()}
    show(bounds, counts)
    if options.update:
        FILE.write_text(json.dumps(counts, indent=2) + "\n")
        return 0
    lines = grown(bounds, counts)
    for line in lines:
        print(f"error: {line}; if this is intended, accept it: python benchmarks/counts.py --update", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
