"""Measures steps per second of tasks that exist on host and device, including observations.

    python benchmarks/environments.py [TASK ...] [--batches 1 64 1024] [--repeats 5] [--json]
                                      [--popgym_python PATH]

Tasks are named as in their packages, `MortarMayhem-v0` or `popgym-RepeatFirstEasy-v0`; by default Memory Gym's.
Host: one process that steps one environment; a synchronous Gymnasium vector environment does this N times. Device: a
batch under `jit`, `vmap` and `scan`, including resets. Actions are random, host and device are measured alternately,
and results are medians. "writing pictures" is an upper bound of the rate: the same loop, but it only writes arrays of
that size.

`--popgym_python` is the Python interpreter of a virtual environment with popgym-arcade, which needs another version of
gymnax. Its tasks, with images of at least 128x128 pixels, are then measured by `arcade.py`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from names import check_names

from trxl_jax.cli import run_command
from trxl_jax.config import Config
from trxl_jax.envs.observations import PICTURE_84
from trxl_jax.envs.registry import find_env, make_single, on_backend
from trxl_jax.envs.tasks import memory_gym, minigrid, popgym
from trxl_jax.envs.tasks.popgym.host import is_popgym
from trxl_jax.envs.tasks.t_maze.host import ENV_ID as T_MAZE
from trxl_jax.errors import ConfigError

TASKS = (*memory_gym.NAMES, *minigrid.NAMES, T_MAZE)
HOST_STEPS = 2000
DEVICE_STEPS = 16
POPGYM_STEPS = 1664  # twice the longest episode: all environments of a batch may end in the same step
POPGYM_TASKS = ("NavigatorEasy", "CountRecallEasy", "MineSweeperEasy")


def host_rate(name: str) -> Callable[[], float]:
    """Returns a function that steps one host environment and returns steps per second."""
    env = make_single(name)
    env.action_space.seed(0)
    env.reset(seed=0)

    def play() -> float:
        started = time.perf_counter()
        for _ in range(HOST_STEPS):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
        return HOST_STEPS / (time.perf_counter() - started)

    return play


def device_rate(name: str, num_envs: int) -> Callable[[], float]:
    """Returns the same for a batch of device environments, compiled and warmed up."""
    found: Any = find_env(Config(env_id=on_backend(name, "device")))
    env, params = found
    space = env.action_space(params)

    def one_step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        _, state = carry
        keys = jax.random.split(key, num_envs)
        action = jax.vmap(space.sample)(keys)
        return jax.vmap(env.step, (0, 0, 0, None))(keys, state, action, params)[:2], None

    first = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(jax.random.key(0), num_envs), params)
    return _timed(one_step, first, num_envs, POPGYM_STEPS if is_popgym(name) else DEVICE_STEPS)


def floor_rate(num_envs: int) -> Callable[[], float]:
    """Returns the same for a loop that only writes observations."""

    def one_step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        count, _ = carry
        return (
            count + 1,
            jnp.broadcast_to(count.astype(jnp.uint8)[:, None, None, None], (num_envs, *PICTURE_84.shape)),
        ), None

    start = jnp.arange(num_envs), jnp.zeros((num_envs, *PICTURE_84.shape), jnp.uint8)
    return _timed(one_step, start, num_envs, DEVICE_STEPS)


def _timed(
    one_step: Callable[[Any, jax.Array], tuple[Any, None]], carry: Any, num_envs: int, num_steps: int
) -> Callable[[], float]:
    def run(carry: Any, key: jax.Array) -> Any:
        return jax.lax.scan(one_step, carry, jax.random.split(key, num_steps))[0]

    # Donating the carry avoids measuring the allocation of memory, which a longer scan would not need.
    play = jax.jit(run, donate_argnums=0)
    carry = jax.block_until_ready(play(carry, jax.random.key(1)))

    def rate() -> float:
        nonlocal carry
        started = time.perf_counter()
        carry = jax.block_until_ready(play(carry, jax.random.key(2)))
        return num_steps * num_envs / (time.perf_counter() - started)

    return rate


def measure(
    names: Sequence[str], batches: Sequence[int], repeats: int, console: Console
) -> dict[str, dict[str, float]]:
    """Median steps per second by task and backend, such as `host` or `device 1024`."""
    figures: dict[str, dict[str, float]] = {}
    with console.status("") as status:
        status.update("floor")
        floors = {f"device {n}": floor_rate(n) for n in batches}
        figures["writing pictures"] = {
            side: statistics.median(play() for _ in range(repeats)) for side, play in floors.items()
        }
        for name in names:
            status.update(f"{name}: compiling")
            plays = {"host": host_rate(name)} | {f"device {n}": device_rate(name, n) for n in batches}
            rates: dict[str, list[float]] = {side: [] for side in plays}
            for i in range(repeats):
                status.update(f"{name}: {i + 1} of {repeats}")
                for side, play in plays.items():
                    rates[side].append(play())
            figures[name] = {side: statistics.median(values) for side, values in rates.items()}
    return figures


def measure_popgym(python: str, batches: Sequence[int], repeats: int) -> dict[str, dict[str, float]]:
    """Runs `arcade.py` with another Python interpreter and returns its results."""
    script = Path(__file__).with_name("arcade.py")
    command = [python, str(script), *POPGYM_TASKS, "--batches", *map(str, batches), "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"--popgym_python {python}: {done.stderr.strip().splitlines()[-1:]}")
    return {f"popgym-arcade {name}": rates for name, rates in json.loads(done.stdout.splitlines()[-1]).items()}


def show(figures: dict[str, dict[str, float]], batches: Sequence[int], console: Console) -> None:
    """Prints a table; ratios are relative to the host."""
    table = Table(title=f"steps per second, including observations, on {jax.default_backend()}")
    table.add_column("task")
    table.add_column("host", justify="right")
    for n in batches:
        table.add_column(f"{n:,} on device", justify="right")
    for name, rates in figures.items():
        host = rates.get("host")
        cells = []
        for n in batches:
            rate = rates[f"device {n}"]
            cells.append(f"{rate:,.0f}" + (f" ({rate / host:.1f}x)" if host else ""))
        table.add_row(name, f"{host:,.0f}" if host else "", *cells)
    console.print(table)


def main(flags: Sequence[str]) -> int:
    """Measures and prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--popgym_python")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(flags)
    check_names("task", options.tasks, [*TASKS, *(popgym.HOST_PREFIX + name for name in popgym.TASKS)])
    console = Console(stderr=options.json)
    figures = measure(options.tasks, options.batches, options.repeats, console)
    if options.popgym_python:
        figures |= measure_popgym(options.popgym_python, options.batches, options.repeats)
    if options.json:
        print(json.dumps(figures))
    else:
        show(figures, options.batches, console)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
