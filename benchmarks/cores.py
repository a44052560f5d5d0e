"""Measures every core at two sizes: whole iterations, and its learning alone beside its matrix products.

    python benchmarks/cores.py [CORE ...] [--sizes SIZE ...] [--iterations 3] [--out benchmarks/cores]

Sizes are those of proof-of-memory and mortar-mayhem-grid, both on the device, each core in a process of its own. Writes
OUT.json and OUT.md; what is measured replaces figures of an earlier call.

- *steps/s*, *peak*: as `throughput.py` measures them.
- *parameters*: of the core alone. *carry*: bytes an environment keeps between rollouts.
- *learning*: milliseconds of the core's forward and backward pass on one minibatch, without encoder and heads.
- *floor*: its matrix products (three times the forward pass's; cached keys need no gradient) at a large one's rate.
- *loop*: for GRU and LSTM, forward and backward pass of a plain `lax.scan` over the same matrix products.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parent.parent))

from encoder import fastest
from floors import rates
from names import check_names

from trxl_jax import PRESETS, make_agent, make_env
from trxl_jax.agent.cores.base import Core, Queries
from trxl_jax.cli import run_command
from trxl_jax.config import Config
from trxl_jax.envs.registry import move_to_backend
from trxl_jax.errors import UserError
from trxl_jax.files import write_text_atomically

_HERE = Path(__file__).parent
_PAPER = ["--trxl_see_self", "--trxl_heads", "full", "--trxl_positional_encoding", "relative"]
CORES: dict[str, list[str]] = {
    "trxl": [],
    "trxl, segments": ["--segment_length", "Q"],
    "trxl, rotary": ["--trxl_positional_encoding", "rotary"],
    "trxl, relative, full heads": ["--trxl_positional_encoding", "relative", "--trxl_heads", "full"],
    "gtrxl": ["--core", "gtrxl"],
    "gtrxl, as in its paper": ["--core", "gtrxl", *_PAPER],
    "gru": ["--core", "gru", "--segment_length", "Q"],
    "lstm": ["--core", "lstm", "--segment_length", "Q"],
    "min_gru": ["--core", "min_gru", "--segment_length", "Q"],
    "lru": ["--core", "lru", "--segment_length", "Q"],
    "none": ["--core", "none"],
}
"""Flags of each row; Q is the number of steps that a minibatch has of each environment."""
SIZES = ("proof-of-memory", "mortar-mayhem-grid")
_GATES = {"gru": 3, "lstm": 4}
_COLUMNS = ("core", "steps/s", "update, s", "parameters", "carry", "peak", "learning, ms", "floor, ms", "loop, ms")


def flags_of(core: str, size: str) -> list[str]:
    """Flags of a row at a size."""
    preset = PRESETS[size]
    steps = str(preset.num_steps // preset.num_minibatches)
    return [size, "--backend", "device", *(steps if flag == "Q" else flag for flag in CORES[core])]


def products(config: Config) -> float:
    """Operations of the core's matrix products, forward and backward, per step."""
    d, layers, window = config.trxl_dim, config.core_layers, config.trxl_memory_length
    if config.core == "none":
        return 0.0
    if config.core in _GATES:
        return 3.0 * layers * 2 * 2 * _GATES[config.core] * d * d
    if config.core == "min_gru":
        return 3.0 * layers * 2 * 2 * d * d
    if config.core == "lru":
        return 3.0 * layers * 2 * 4 * d * d
    heads = 1 if config.trxl_heads == "full" else config.trxl_num_heads
    formed = config.trxl_heads == "full" or config.trxl_positional_encoding in ("relative", "rotary")
    dense = 2 * d * d // heads + (4 if config.core == "trxl" or not config.trxl_see_self else 6) * d * d
    dense += 12 * 2 * d * d if config.core == "gtrxl" else 0
    attention = 4 * (window - 1) * d
    # Keys and values of all S slots, formed anew in every minibatch, with a gradient for matrices but not for slots.
    slots = (window + config.num_steps) / (config.num_steps // config.num_minibatches)
    forming = 2 * 2 * 2 * d * d / heads * slots if formed else 0
    return config.trxl_num_layers * (3.0 * dense + (3 if formed else 2) * attention + forming)


def learning_milliseconds(core: Core, config: Config) -> float:
    """Of one minibatch: y and its gradient for inputs and parameters."""
    n, t, q = config.num_envs, config.num_steps, config.num_steps // config.num_minibatches
    step = jnp.tile(jnp.arange(q), (n, 1))
    queries = Queries(step, step)
    carry = core.init_carry(n)

    def record(bound: Core) -> Any:
        return bound.finish(bound.start(carry, t, config.segment_length), carry.episode_step)[1]

    def everything(bound: Core) -> Any:
        prepared = bound.prepare(record(bound))
        return bound.learn(jnp.zeros((n, q, config.trxl_dim)), prepared, queries, config.segment_length)

    core = core.clone(name=None)
    params = {"params": dict(jax.jit(nn.init(everything, core))(jax.random.key(0))).get("params", {})}
    recorded = nn.apply(record, core)(params)
    x = jax.random.normal(jax.random.key(1), (n, q, config.trxl_dim))
    frozen = None if core.prepares_with_parameters else core.apply(params, recorded, method="prepare")

    @jax.jit
    def gradient(params: Any, x: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array) -> jax.Array:
            prepared = core.apply(params, recorded, method="prepare") if frozen is None else frozen
            y: jax.Array = core.apply(params, x, prepared, queries, config.segment_length, method="learn")
            return jnp.square(y).sum()

        return jax.grad(loss, argnums=(0, 1))(params, x)

    return 1e3 * fastest({"it": lambda: gradient(params, x)}, 5)["it"]


def loop_milliseconds(gates: int, config: Config) -> float:
    """Forward and backward pass of a loop over the matrix products of a recurrent layer, on one minibatch."""
    b, g, d = config.num_envs, config.segment_length, config.trxl_dim
    x = jax.random.normal(jax.random.key(0), (g, b, d))
    keys = jax.random.split(jax.random.key(1), gates + 1)
    recurrent = [jax.random.normal(key, (d, d)) / d for key in keys[:gates]]
    into = jax.random.normal(keys[gates], (d, gates * d)) / d

    @jax.jit
    def gradient(weights: Any, x: jax.Array) -> Any:
        def loss(weights: Any, x: jax.Array) -> jax.Array:
            recurrent, into = weights

            def step(h: jax.Array, gated: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
                h = jnp.tanh(sum(g + h @ w for g, w in zip(gated, recurrent, strict=True)))
                return h, h

            return jax.lax.scan(step, jnp.zeros((b, d)), jnp.split(x @ into, gates, axis=-1))[1].sum()

        return jax.grad(loss, argnums=(0, 1))(weights, x)

    return 1e3 * fastest({"it": lambda: gradient((recurrent, into), x)}, 5)["it"]


def measure(core: str, size: str, iterations: int) -> dict[str, Any]:
    """The figures of a row: of whole iterations in a process of its own, of the core in this one."""
    flags = flags_of(core, size)
    command = [sys.executable, str(_HERE / "throughput.py"), *flags, "--iterations", str(iterations), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise UserError(f"{core}: {ran.stderr.strip()[-300:]}")
    figures = json.loads(ran.stdout.splitlines()[-1])

    from trxl_jax.commands.train import parse

    config = parse(flags).config
    spec = make_env(move_to_backend(config, "device")).spec
    config = config.fitted_to(spec.max_episode_steps)
    agent = make_agent(config, spec)
    params = jax.eval_shape(agent.init_params, jax.random.key(0))["params"]
    own = params.get("core", params.get("transformer", {}))
    samples = config.batch_size // config.num_minibatches
    return {
        "steps_per_second": figures["steps_per_second"],
        "update_seconds": figures["update_seconds"],
        "peak_bytes": figures["peak_rss_bytes"],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(own)),
        "carry_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(agent.core.init_carry(1))),
        "learning_ms": learning_milliseconds(agent.core, config),
        "floor_ms": 1e3 * products(config) * samples / rates()[0],
        "loop_ms": loop_milliseconds(_GATES[config.core], config) if config.core in _GATES else None,
    }


def table(measured: dict[str, Any]) -> str:
    """A Markdown table for each size."""
    parts = []
    for size in SIZES:
        lines = [f"{size}, on the device:", "", f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
        rows = {core: measured.get(f"{size}, {core}") for core in CORES}
        if not any(rows.values()):
            continue
        for core, row in rows.items():
            if row is None:
                continue
            cells = (
                f"{row['steps_per_second']:,.0f}",
                f"{row['update_seconds']:.2f}",
                f"{row['parameters']:,}",
                f"{row['carry_bytes']:,} B",
                f"{row['peak_bytes'] / 1e9:.2f} GB",
                *("" if row[key] is None else f"{row[key]:.2f}" for key in ("learning_ms", "floor_ms", "loop_ms")),
            )
            lines.append(f"| {core} | {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def main(flags: Sequence[str]) -> int:
    """Measures rows and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cores", nargs="*", metavar="CORE", help="default: all")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--iterations", type=int, default=3, help="timed iterations (%(default)s)")
    parser.add_argument("--out", type=Path, default=_HERE / "cores", help="files without suffix (%(default)s)")
    given = parser.parse_args(flags)
    check_names("core", given.cores, CORES)
    path = given.out.with_suffix(".json")
    measured = json.loads(path.read_text()) if path.exists() else {}
    for size in given.sizes:
        for core in given.cores or CORES:
            measured[f"{size}, {core}"] = measure(core, size, given.iterations)
            print(f"{size}, {core}: {measured[f'{size}, {core}']['steps_per_second']:,.0f} steps/s", flush=True)
            write_text_atomically(path, json.dumps(measured, indent=1) + "\n")
            write_text_atomically(given.out.with_suffix(".md"), table(measured))
    print(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
