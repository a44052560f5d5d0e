"""Lower bounds of the time per environment step, from operations and bytes.

    python benchmarks/floors.py [PRESET ...] [--json]

Counts are computed. Three quantities are measured: the rate of a large matrix product, the bandwidth of a copy, and the
environment alone (one process, random actions).

- *Operations*: matrix products only, with the reformulations of attention in `trxl_jax/agent/cores/attention.py`, and
  only the W - 1 slots visible to a query. A step needs one forward pass for acting, and forward and backward passes in
  every epoch; the backward pass repeats a product for each factor that has a gradient. Frames are encoded once per
  unique frame, which are counted under a random policy, in the task's version on the device.
- *Bytes*: acting reads each step's window and, once for all environments, the parameters. A minibatch reads the slots
  twice, accesses parameters, gradient and both optimiser moments seven times, and reads its unique frames.
  Activations are assumed to stay in cache.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from encoder import fastest, layer_operations
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from attention import MEMORY_CHAIN
from names import check_names
from presets import rows

from trxl_jax import make_agent, make_env
from trxl_jax.agent.cpu.frames import hash_frames
from trxl_jax.agent.distributions import make_distribution, sampling_noise
from trxl_jax.cli import run_command
from trxl_jax.config import Config
from trxl_jax.envs.host.episode import make_wrapped
from trxl_jax.envs.registry import episode_rules, find_env, move_to_backend

SIZES = rows() | {"memory-chain": MEMORY_CHAIN}
DEFAULT = ("mortar-mayhem-grid", "endless-mortar-mayhem", "minigrid-memory-s9", "proof-of-memory",
           "proof-of-memory-device", "memory-chain")  # fmt: skip

_FRAME_BYTES = 84 * 84 * 3


def operations(config: Config, obs_size: int, num_outputs: int, distinct: tuple[float, float] | None) -> float:
    """Operations per environment step: acting once, and learning in every epoch."""
    dim, heads, visible = config.trxl_dim, config.trxl_num_heads, config.trxl_memory_length - 1
    attention = 4 * visible * dim
    dense = config.trxl_num_layers * (2 * dim * dim // heads + 4 * dim**2) + 2 * dim**2 + 2 * dim * num_outputs
    forward = dense + config.trxl_num_layers * attention
    # Slots are constants: only one factor of attention's products has a gradient.
    learning = 3 * dense + config.trxl_num_layers * 2 * attention
    if distinct is None:
        encoder = 2 * obs_size * dim
        return forward + encoder + config.update_epochs * (learning + 2 * encoder)
    first, *others = layer_operations((84, 84, 3), dim)
    encoder, both = first + sum(others), 2 * first + 3 * sum(others)
    decoder = 3 * encoder if config.reconstruction_coef else 0  # of each sample, not of each frame
    return forward + distinct[0] * encoder + config.update_epochs * (learning + distinct[1] * both + decoder)


def moved_bytes(config: Config, num_params: int, distinct: tuple[float, float] | None) -> float:
    """Bytes read and written per environment step."""
    slot = 4 * config.trxl_num_layers * config.trxl_dim
    acting = config.trxl_memory_length * slot + 4 * num_params / config.num_envs
    slots = config.num_envs * (config.trxl_memory_length + config.num_steps) * slot
    minibatch = 2 * slots + 7 * 4 * num_params
    learning = config.update_epochs * config.num_minibatches * minibatch / config.batch_size
    frames = _FRAME_BYTES * (1 + config.update_epochs * distinct[1]) if distinct else 0.0
    return acting + learning + frames


def environment_seconds(config: Config, steps: int = 500) -> float | None:
    """Seconds per step of one host environment; None for device environments, whose cost is negligible."""
    make = find_env(config)
    if isinstance(make, tuple):
        return None
    env = make_wrapped(make, episode_rules(config))
    rng = np.random.default_rng(0)
    nvec = env.native_actions.space.nvec
    actions = rng.integers(0, nvec, (steps, len(nvec)))
    env.reset()
    started = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    seconds = (time.perf_counter() - started) / steps
    env.close()
    return seconds


def distinct_frames(config: Config) -> tuple[float, float]:
    """Unique frames as fractions of the frames of a rollout and of a minibatch."""
    env = make_env(move_to_backend(config, "device"))

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        noise = sampling_noise(env.spec.action, key, (config.num_envs,))
        action = make_distribution(env.spec.action, [jnp.zeros_like(noise)]).sample(noise)
        state, result = env.step(state, action)
        return state, hash_frames(result.obs)

    play = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys)[1])
    keys = jax.random.split(jax.random.key(0), config.num_steps)
    hashes = np.asarray(play(env.reset(jax.random.key(1))[0], keys))
    order = np.random.default_rng(0).permutation(config.num_steps).reshape(config.num_minibatches, -1)
    of_minibatches = [np.unique(hashes[steps]).size / hashes[steps].size for steps in order]
    return np.unique(hashes).size / hashes.size, float(np.mean(of_minibatches))


def rates() -> tuple[float, float]:
    """Operations per second of a large matrix product, and bytes per second of a large copy."""
    square, long = jnp.ones((2048, 2048)), jnp.ones(2**26)
    product, copy = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)
    seconds = fastest({"product": lambda: product(square), "copy": lambda: copy(long)}, 7)
    return 2 * 2048**3 / seconds["product"], 2 * long.nbytes / seconds["copy"]


def floor(name: str, rate: float, bandwidth: float) -> dict[str, Any]:
    """Microseconds per step by each bound, and steps per second: max(operations, bytes) + environment."""
    config = SIZES[name]
    env = make_env(config)
    spec = env.spec
    env.close()
    distinct = distinct_frames(config) if spec.has_pictures else None
    config = config.replace(trxl_memory_length=min(config.trxl_memory_length, spec.max_episode_steps))
    params = jax.eval_shape(make_agent(config, spec).init_params, jax.random.key(0))
    num_params = sum(x.size for x in jax.tree.leaves(params))
    count = operations(
        config, sum(array.size for array in spec.obs.arrays.values()), sum(spec.action.nvec) + 1, distinct
    )
    moved = moved_bytes(config, num_params, distinct)
    environment = environment_seconds(config) or 0.0
    by_operations, by_bytes = count / rate, moved / bandwidth
    return {
        "name": name,
        "mflop": count / 1e6,
        "kilobytes": moved / 1e3,
        "operations_us": by_operations * 1e6,
        "bytes_us": by_bytes * 1e6,
        "environment_us": environment * 1e6,
        "steps_per_second": 1 / (max(by_operations, by_bytes) + environment),
    }


def main(flags: Sequence[str]) -> int:
    """Computes and prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=list(DEFAULT))
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    options = parser.parse_args(flags)
    check_names("preset", options.presets, SIZES)
    rate, bandwidth = rates()
    rows = [floor(name, rate, bandwidth) for name in options.presets]
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return 0
    table = Table(title="lower bounds per environment step")
    columns = ("mflop", "kilobytes", "operations_us", "bytes_us", "environment_us", "steps_per_second")
    for column in ("name", *columns):
        table.add_column(
            column.replace("_us", ", us").replace("_", " "), justify="left" if column == "name" else "right"
        )
    for row in rows:
        table.add_row(row["name"], *(f"{row[column]:,.{1 if row[column] < 100 else 0}f}" for column in columns))
    Console(width=110).print(table)
    print(f"a large matrix product: {rate / 1e9:.0f} GFLOP/s; a copy: {bandwidth / 1e9:.0f} GB/s")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
