"""Measures seeds side by side (`train.py --num_seeds`) against one after another.

    python benchmarks/seeds.py [PRESET] --num_seeds 3 [--iterations 20] [--quiet] [--flags of train.py]

Prints a Markdown table: an update of all seeds one after another, side by side as `train.py` does it (on CPUs in
threads), and vmapped. The three take turns, after one of each that isn't timed; seconds are medians. `--quiet` counts
only updates during which other processes kept less than a tenth of a core busy, as Linux counts, and goes on until it
has so many of them, at most ten times as long. Before the table it prints by how much parameters differ from those
of the seeds alone, after some of the updates.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parent.parent))

from trxl_jax import init_states, make_agent, make_env
from trxl_jax.cli import run_command
from trxl_jax.commands.train import parse
from trxl_jax.config import Config
from trxl_jax.errors import ConfigError
from trxl_jax.ppo.train_step import SeedsStep, compile_seeds_step, compile_train_step, compile_vmapped_step

HEADER = (
    "| task, core | seeds | s an update of all | CPU s | steps/s of each | steps/s of all | as one after another |\n"
    "|---|---|---|---|---|---|---|"
)
MOST_TURNS = 10  # for each update that is to be timed, with `--quiet`
QUIET = 0.1  # cores
COMPARED = (1, 2, 5, 10, 20, 50, 100)  # updates


class Clock:
    """Seconds since it was made: of the clock, of work of this process, and of what others did."""

    def __init__(self) -> None:
        self._started, self._own, self._all = time.perf_counter(), time.process_time(), busy_seconds()

    def read(self) -> tuple[float, float, float]:
        """Seconds of the clock, seconds of work, and the number of cores that others kept busy."""
        seconds, own = time.perf_counter() - self._started, time.process_time() - self._own
        return seconds, own, (busy_seconds() - self._all - own) / seconds


def busy_seconds() -> float:
    """Seconds that all cores together have worked, as Linux counts in hundredths; elsewhere 0."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq = map(int, path.read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def distance(states: Any, others: Any) -> float:
    """The largest difference of a parameter between two lists of states."""
    params, other_params = ([train_state.params for train_state, _ in runs] for runs in (states, others))
    apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, other_params)
    return max(jax.tree.leaves(apart))


def measure(configs: Sequence[Config], iterations: int, *, quiet: bool) -> list[str]:
    """The table's rows for runs that differ only in their seeds."""
    env = make_env(configs[0])
    config = configs[0].fitted_to(env.spec.max_episode_steps)
    agent = make_agent(config, env.spec)
    init_keys, keys = zip(*(jax.random.split(jax.random.key(config.seed)) for config in configs), strict=True)
    states = [init_states(config, env, agent, key) for key in init_keys]
    one = compile_train_step(config, env, agent, states[0], keys[0])
    ways: dict[str, SeedsStep] = {
        "one after another": lambda states, keys: [jax.block_until_ready(one(*s, k)) for s, k in zip(states, keys)],
        "side by side": compile_seeds_step(config, env, agent, states, keys),
        "vmapped": compile_vmapped_step(config, env, agent, states, keys),
    }
    newest = dict.fromkeys(ways, states)
    print("largest difference of a parameter from the seeds alone: side by side, vmapped")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(1 + iterations * (MOST_TURNS if quiet else 1)):
        for name, way in ways.items():
            clock = Clock()
            results = jax.block_until_ready(way(newest[name], keys))
            seconds, work, others = clock.read()
            if turn and (others < QUIET or not quiet):
                times[name].append((seconds, work))
            newest[name] = [result[:2] for result in results]
        if turn + 1 in COMPARED:
            alone, *rest = (newest[name] for name in ways)
            print(f"after {turn + 1} updates:", *(f"{distance(alone, other):.1e}" for other in rest), flush=True)
        if min(map(len, times.values())) >= iterations:
            break
    if not all(times.values()):
        raise ConfigError("--quiet: other processes disturbed every update; wait for them, or leave --quiet out")
    rows = []
    for name, found in times.items():
        seconds, work = (statistics.median(column) for column in zip(*found, strict=True))
        before = statistics.median(seconds for seconds, _ in times["one after another"])
        speed = config.batch_size / seconds
        rows.append(
            f"| {config.env_id}, {config.core} | {len(keys)} {name} | {seconds:.3f} | {work:.3f} | {speed:,.0f} "
            f"| {len(keys) * speed:,.0f} | {before / seconds:.2f}x |"
        )
    return rows


def main(flags: Sequence[str]) -> int:
    """Measures and prints a table."""
    own = argparse.ArgumentParser(
        usage="%(prog)s [PRESET] --num_seeds K [--iterations N] [--quiet] [--flags of train.py]",
        description=__doc__.partition("\n")[0],
        epilog="The flags of train.py follow.",
        add_help=False,
    )
    own.add_argument("--iterations", type=int, default=20, metavar="N", help="updates that are timed (default: 20)")
    own.add_argument("--quiet", action="store_true", help="count only updates that nothing disturbed")
    options, rest = own.parse_known_args(flags)
    if not {"-h", "--help"}.isdisjoint(rest):
        own.print_help()
    print("\n".join([HEADER, *measure(parse(rest).configs, options.iterations, quiet=options.quiet)]))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
