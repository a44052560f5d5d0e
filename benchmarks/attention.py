"""Measures variants of attention for one layer and minibatch, forward and backward, against a lower bound.

    python benchmarks/attention.py [--presets mortar-mayhem-grid ...] [--repeats 7]

- *projected*: as in the original; the window is copied for every sample and its slots are projected to keys and values.
- *all slots*: one batched product of projected queries with all slots, masked (`attend`).
- *plain products*: the same in a loop over environments and heads (`attend_frozen_keys`).
- *windows*: the window is copied for every sample; products with projected queries (`attend_single_query`).

`used` is the variant that training selects. The lower bound is the larger of two times: the operations with visible
slots at the rate of a large matrix product, and reading the slots once forward and once backward at the bandwidth of a
copy.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from encoder import fastest
from rich.console import Console
from rich.table import Table

from trxl_jax.agent.cores.attention import attend, attend_frozen_keys, attend_single_query, loops_over_environments
from trxl_jax.agent.cores.transformer_xl import gathers_windows
from trxl_jax.agent.cores.visibility import visible_slots, window_slots
from trxl_jax.config import Config
from trxl_jax.presets import PRESETS

MEMORY_CHAIN = Config(
    env_id="gymnax/MemoryChain-bsuite", num_envs=512, num_steps=128, update_epochs=4, trxl_num_layers=2, trxl_dim=256,
    trxl_num_heads=8, trxl_memory_length=128,
)  # fmt: skip
_PRESETS = ("mortar-mayhem-grid", "endless-mortar-mayhem", "minigrid-memory-s9", "proof-of-memory")
SIZES = {name: PRESETS[name] for name in _PRESETS} | {"memory-chain": MEMORY_CHAIN}


def measure(config: Config, repeats: int, seed: int = 0) -> dict[str, Any]:
    """Milliseconds of each variant, the lower bound, the selected variant, and the measured rate and bandwidth."""
    n, q, window = config.num_envs, config.num_steps // config.num_minibatches, config.trxl_memory_length
    heads, dim = config.trxl_num_heads, config.trxl_dim
    s, d = window + config.num_steps, dim // heads
    rng = np.random.default_rng(seed)
    slots = jnp.asarray(rng.normal(size=(n, heads, s, d)), jnp.float32)
    query = jnp.asarray(rng.normal(size=(n, q, heads, d)) / np.sqrt(d), jnp.float32)
    step = np.stack([rng.permutation(config.num_steps)[:q] for _ in range(n)])
    query_slot = jnp.asarray(window + step)
    episode_step = jnp.full_like(query_slot, s)  # episodes are long, so every window is full
    visible = visible_slots(query_slot, episode_step, jnp.arange(s), window)
    indices = window_slots(query_slot, window)
    w_key, w_value = (jnp.asarray(rng.normal(size=(d, d)) / np.sqrt(d), jnp.float32) for _ in range(2))

    def copy_windows(slots: jax.Array) -> jax.Array:
        envs, head = jnp.arange(n)[:, None, None, None], jnp.arange(heads)[:, None]
        return slots[envs, head, indices[:, :, None]].reshape(n * q, heads, window - 1, d)

    def windows_variant(query: jax.Array) -> jax.Array:
        visible_window = jnp.ones((n * q, 1, window - 1), bool)
        return attend_single_query(query.reshape(n * q, 1, heads, d), copy_windows(slots), visible_window).reshape(
            query.shape
        )

    def projected(query: jax.Array) -> jax.Array:
        windows = copy_windows(slots)
        keys, values = windows @ w_key, windows @ w_value
        weights = jax.nn.softmax(jnp.einsum("bhd,bhsd->bhs", query.reshape(n * q, heads, d), keys))
        return jnp.einsum("bhs,bhsd->bhd", weights, values).reshape(query.shape)

    variants: dict[str, Callable[[jax.Array], jax.Array]] = {
        "projected": projected,
        "all slots": lambda query: attend(query, slots, visible)[0],
        "plain products": lambda query: attend_frozen_keys(query, slots, visible),
        "windows": windows_variant,
    }
    if n * q * window * dim > 2**28:  # copies of the windows would take gigabytes
        variants = {name: variant for name, variant in variants.items() if name not in ("projected", "windows")}
    programs = {
        name: jax.jit(jax.grad(lambda query, variant=variant: jnp.square(variant(query)).sum())).lower(query).compile()
        for name, variant in variants.items()
    }
    functions: dict[str, Callable[[], Any]] = {name: partial(program, query) for name, program in programs.items()}
    square, long = jnp.ones((2048, 2048)), jnp.ones(2**26)
    product, copy = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)
    functions |= {"product": lambda: product(square), "copy": lambda: copy(long)}
    seconds = fastest(functions, repeats)
    rate, bandwidth = 2 * 2048**3 / seconds.pop("product"), 2 * long.nbytes / seconds.pop("copy")
    operations = 5 * 2 * n * q * (window - 1) * dim
    used = "all slots"
    if gathers_windows(n * q, s, window, dim):
        used = "windows"
    elif loops_over_environments(q, s, d):
        used = "plain products"
    return {
        "milliseconds": {name: value * 1e3 for name, value in seconds.items()},
        "floor": max(operations / rate, 2 * slots.nbytes / bandwidth) * 1e3,
        "used": used,
        "rate": rate,
        "bandwidth": bandwidth,
    }


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    table = Table(title="milliseconds per layer and minibatch, forward and backward")
    columns = ("projected", "all slots", "plain products", "windows")
    for column in ("preset", *columns, "lower bound", "used"):
        table.add_column(column, justify="left" if column in ("preset", "used") else "right")
    for name in options.presets:
        figures = measure(SIZES[name], options.repeats)
        milliseconds = figures["milliseconds"]
        cells = (f"{milliseconds[variant]:.2f}" if variant in milliseconds else "-" for variant in columns)
        table.add_row(name, *cells, f"{figures['floor']:.2f}", figures["used"])
    Console(width=100).print(table)
    print(f"a large matrix product: {figures['rate'] / 1e9:.0f} GFLOP/s; a copy: {figures['bandwidth'] / 1e9:.0f} GB/s")


if __name__ == "__main__":
    main()
