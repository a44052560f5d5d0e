"""Measures seeds side by side (`train.py --num_seeds`) against one of them, and against all one after another.

    python benchmarks/seeds.py [PRESET] --num_seeds 3 [--iterations 20] [--flags of train.py]

Prints a row of a Markdown table. Updates of the group and of each seed alone take turns, after one of each that isn't
timed; seconds are medians.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

sys.path.insert(0, str(Path(__file__).parent.parent))

from trxl_jax import init_states, make_agent, make_env
from trxl_jax.cli import run_command
from trxl_jax.commands.train import parse
from trxl_jax.config import Config
from trxl_jax.ppo.train_step import compile_seeds_step, compile_train_step

HEADER = (
    "| task, core | one seed alone: s an update | steps/s | all side by side: s an update | steps/s of each | of all "
    "| as one after another | seconds to compile: one, all |\n|---|---|---|---|---|---|---|---|"
)


class Timed(NamedTuple):
    """A compiled program and how long compiling it took."""

    program: Callable[..., Any]
    seconds: float


def timed(function: Callable[[], Callable[..., Any]]) -> Timed:
    """Calls a function that compiles."""
    started = time.perf_counter()
    program = function()
    return Timed(program, time.perf_counter() - started)


def measure(configs: Sequence[Config], iterations: int) -> str:
    """The table's row for runs that differ only in their seeds."""
    env = make_env(configs[0])
    config = configs[0].fitted_to(env.spec.max_episode_steps)
    agent = make_agent(config, env.spec)
    init_keys, keys = zip(*(jax.random.split(jax.random.key(config.seed)) for config in configs), strict=True)
    alone = together = [init_states(config, env, agent, key) for key in init_keys]
    one = timed(lambda: compile_train_step(config, env, agent, alone[0], keys[0]))
    group = timed(lambda: compile_seeds_step(config, env, agent, together, list(keys)))
    seconds: dict[str, list[float]] = {"one": [], "all": []}
    for i in range(iterations + 1):
        started = time.perf_counter()
        together = [result[:2] for result in jax.block_until_ready(group.program(together, list(keys)))]
        ended = time.perf_counter()
        for seed, key in enumerate(keys):
            alone[seed] = jax.block_until_ready(one.program(*alone[seed], key))[:2]
        if i:
            seconds["all"].append(ended - started)
            seconds["one"].append((time.perf_counter() - ended) / len(keys))
    a, b = (statistics.median(seconds[name]) for name in ("one", "all"))
    return (
        f"| {config.env_id}, {config.core} | {a:.3f} | {config.batch_size / a:,.0f} | {b:.3f} "
        f"| {config.batch_size / b:,.0f} | {len(keys) * config.batch_size / b:,.0f} "
        f"| {len(keys) * a / b:.2f}x | {one.seconds:.0f}, {group.seconds:.0f} |"
    )


def main(flags: Sequence[str]) -> int:
    """Measures and prints a table."""
    own = argparse.ArgumentParser(
        usage="%(prog)s [PRESET] --num_seeds K [--iterations N] [--flags of train.py]",
        description=__doc__.partition("\n")[0],
        epilog="The flags of train.py follow.",
        add_help=False,
    )
    own.add_argument("--iterations", type=int, default=20, metavar="N", help="updates that are timed (default: 20)")
    options, rest = own.parse_known_args(flags)
    if not {"-h", "--help"}.isdisjoint(rest):
        own.print_help()
    print(f"{HEADER}\n{measure(parse(rest).configs, options.iterations)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
