"""Fails when rollout or update, compiled for a CPU at a tiny size, costs more than `counts.json` says.

    python benchmarks/counts.py [--update]

What is compared can't be noisy: operations, by XLA's cost analysis, and bytes of temporaries, by its memory analysis.
Operations count a loop's body once, so they tell what a step or a minibatch costs, not how many there are. A tenth more
is let through; `--update` writes what is, to accept it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

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
SLACK = 0.1

# Vectors on the device, and pixels on the host: large enough for what only large sizes take, the attention's loop over
# environments and a block of the encoder's chunks.
CONFIGURATIONS = {
    "proof-of-memory": PRESETS["proof-of-memory"].replace(env_id="gymnax/ProofofMemory-v0"),
    "mortar-mayhem-grid": PRESETS["mortar-mayhem-grid"].replace(
        num_envs=4, num_steps=128, num_minibatches=2, trxl_dim=128, trxl_num_layers=2, trxl_memory_length=64
    ),
}

Counts = dict[str, int]
"""By "configuration, program, what"."""


def measure(config: Config) -> Counts:
    """Compiles rollout and update; by "program, what"."""
    env = make_env(config)
    agent = make_agent(config, env.spec)
    key = jax.eval_shape(jax.random.key, 0)
    states = jax.eval_shape(lambda key: init_states(config, env, agent, key), key)
    collect, learn = make_collect_and_learn(config, env, agent)
    programs = {
        "rollout": (collect, (*states, key)),
        "update": (learn, (states[0], jax.eval_shape(collect, *states, key)[1], key)),
    }
    counts = {}
    for name, (function, arguments) in programs.items():
        compiled = jax.jit(function).lower(*arguments).compile()
        counts[f"{name}, operations"] = int(compiled.cost_analysis()["flops"])
        counts[f"{name}, temporary bytes"] = compiled.memory_analysis().temp_size_in_bytes
    return counts


def grown(bounds: Counts, counts: Counts) -> list[str]:
    """A line for each count that is above its bound by more than the slack, or has none."""
    lines = []
    for name, count in counts.items():
        bound = bounds.get(name)
        if bound is None:
            lines.append(f"{name}: {count:,}, but {FILE.name} has no bound for it")
        elif count > bound * (1 + SLACK):
            lines.append(f"{name}: grew from {bound:,} to {count:,} ({SLACK:.0%} more is let through)")
    return lines


def show(bounds: Counts, counts: Counts) -> None:
    """Prints counts beside their bounds."""
    table = Table(title="counts of compiled programs, CPU")
    for column in ("what", "in counts.json", "now"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, count in counts.items():
        table.add_row(name, f"{bounds[name]:,}" if name in bounds else "-", f"{count:,}")
    Console().print(table)


def main(flags: Sequence[str]) -> int:
    """Compares, or writes; 1 if a count grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="accept the counts as they are")
    options = parser.parse_args(flags)
    if jax.default_backend() != "cpu":
        raise UserError(f"the counts are a CPU's, not those of a {jax.default_backend()}; set JAX_PLATFORMS=cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a program read from it has no memory analysis
    bounds: Counts = json.loads(FILE.read_text()) if FILE.exists() else {}
    counts = {f"{name}, {what}": n for name, config in CONFIGURATIONS.items() for what, n in measure(config).items()}
    show(bounds, counts)
    if options.update:
        FILE.write_text(json.dumps(counts, indent=2) + "\n")
        return 0
    lines = grown(bounds, counts)
    for line in lines:
        print(f"error: {line}; if that is meant, accept it: python benchmarks/counts.py --update", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
