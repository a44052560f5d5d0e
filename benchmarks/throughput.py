"""Measures a configuration: steps per second, seconds of rollout and update, compile time and memory.

    python benchmarks/throughput.py [PRESET] [--iterations 5] [--json] [--flags of train.py]

Whole iterations are timed after one warm-up iteration; results are medians. Rollout and update are timed as two
programs, as they run with host environments; with device environments the joint program is timed as well. With
`--iterations 0` nothing is run, only compiled.
"""

import argparse
import contextlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from trxl_jax import init_states, make_agent, make_env
from trxl_jax.cli import run_command
from trxl_jax.commands.train import parse
from trxl_jax.config import Config
from trxl_jax.envs.base import Environment
from trxl_jax.ppo.train_step import compile_collect_and_learn, compile_train_step


def measure(config: Config, iterations: int) -> dict[str, Any]:
    """Runs a configuration and returns its results by name."""
    with contextlib.closing(make_env(config)) as env:
        return _measure(config, env, iterations)


def _measure(config: Config, env: Environment, iterations: int) -> dict[str, Any]:
    config = config.replace(trxl_memory_length=min(config.trxl_memory_length, env.spec.max_episode_steps))
    agent = make_agent(config, env.spec)
    init_key, key = jax.random.split(jax.random.key(config.seed))
    train_state, state = jax.block_until_ready(init_states(config, env, agent, init_key))

    compile_seconds: dict[str, float] = {}

    def compiled(name: str, function: Any) -> Any:
        started = time.perf_counter()
        program = function(config, env, agent, (train_state, state), key)
        compile_seconds[name] = time.perf_counter() - started
        return program

    collect, learn = compiled("rollout and update", compile_collect_and_learn)
    if not iterations:
        return {"env_id": config.env_id, "compile_seconds": compile_seconds}
    seconds: dict[str, list[float]] = {"rollout": [], "update": [], "iteration": []}
    for i in range(iterations + 1):
        started = time.perf_counter()
        state, rollout = jax.block_until_ready(collect(train_state, state, jax.random.fold_in(key, i)))
        collected = time.perf_counter()
        train_state, _ = jax.block_until_ready(learn(train_state, rollout, key))
        env.pop_episode_results(rollout.episode)
        recorded = jax.eval_shape(lambda tree: tree, rollout.memory)
        del rollout  # as in `train_step`, so that two rollouts are never in memory at the same time
        ended = time.perf_counter()
        if i:
            seconds["rollout"].append(collected - started)
            seconds["update"].append(ended - collected)
            seconds["iteration"].append(ended - started)
    if not env.on_host:
        train_step = compiled("train_step", compile_train_step)
        seconds["iteration"].clear()
        for i in range(iterations + 1):
            started = time.perf_counter()
            train_state, state, _ = jax.block_until_ready(train_step(train_state, state, key))
            if i:
                seconds["iteration"].append(time.perf_counter() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "env_id": config.env_id,
        "steps_per_second": config.batch_size / median["iteration"],
        "iteration_seconds": median["iteration"],
        "rollout_seconds": median["rollout"],
        "update_seconds": median["update"],
        "compile_seconds": compile_seconds,
        "peak_rss_bytes": peak_bytes(),
        "memory_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(recorded)),
        "iterations": iterations,
        "backend": jax.default_backend(),
    }


def peak_bytes() -> int:
    """Of this process's memory."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` would count the process that started this one, if it was larger
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def show(figures: dict[str, Any]) -> None:
    """Prints a table."""
    table = Table(title=f"{figures['env_id']} on {figures['backend']}, medians of {figures['iterations']} iterations")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    table.add_row("steps per second", f"{figures['steps_per_second']:,.0f}")
    table.add_row("rollout", f"{figures['rollout_seconds']:.3f} s")
    table.add_row("update", f"{figures['update_seconds']:.3f} s")
    for name, value in figures["compile_seconds"].items():
        table.add_row(f"compile time of {name}", f"{value:.1f} s")
    table.add_row("peak memory of the process", f"{figures['peak_rss_bytes'] / 1e9:.2f} GB")
    table.add_row("memory of a rollout", f"{figures['memory_bytes'] / 1e6:.1f} MB")
    Console().print(table)


def main(flags: Sequence[str]) -> int:
    """Measures and prints a table or JSON."""
    own = argparse.ArgumentParser(
        usage="%(prog)s [PRESET] [--iterations N] [--json] [--flags of train.py]",
        description=__doc__.partition("\n")[0],
        epilog="The flags of train.py follow.",
        add_help=False,
    )
    own.add_argument("--iterations", type=int, default=5, metavar="N", help="iterations that are timed (default: 5)")
    own.add_argument("--json", action="store_true", help="print the results as one JSON object")
    options, rest = own.parse_known_args(flags)
    if not {"-h", "--help"}.isdisjoint(rest):
        own.print_help()
    figures = measure(parse(rest).config, options.iterations)
    if options.json or not options.iterations:
        print(json.dumps(figures))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
