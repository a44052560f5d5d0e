"""The pixel encoder's CPU formulation beside `lax.conv`, and the floor.

    python benchmarks/encoder.py [--batches 32 128 2048] [--repeats 7]

Microseconds a sample, minima over repeats that take turns. The floor is the encoder's operations at the rate of one
large product, measured in the same process: 16.2 MFLOP forward, and twice that again backward but for the first
layer's input gradient.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from trxl_jax.agent.cpu import pixel_encoder as pixel_encoder_cpu
from trxl_jax.agent.encoders import PixelEncoder
from trxl_jax.agent.numerics import Numerics

DIM = 384
FORWARD = 2 * (20 * 20 * 32 * 192 + 9 * 9 * 64 * 512 + 7 * 7 * 64 * 576 + 3136 * DIM)
BACKWARD = 2 * FORWARD - 2 * 20 * 20 * 32 * 192


def fastest(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of a call, the minimum over repeats in which the functions take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(repeats + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            jax.block_until_ready(function())
            if i:
                seconds[name].append(time.perf_counter() - started)
    return {name: min(values) for name, values in seconds.items()}


def measure(batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """Microseconds a sample of each way, forward and with the gradient."""
    encoder = PixelEncoder(DIM, Numerics("gpu"))  # the formulation for accelerators: plain lax.conv
    frames = jnp.asarray(np.random.default_rng(0).integers(0, 256, (batch, 84, 84, 3)), jnp.uint8)
    params = encoder.init(jax.random.key(0), frames[:1])
    cotangent = jax.random.normal(jax.random.key(1), (batch, DIM))
    ways: dict[str, Callable[[Any], jax.Array]] = {
        "ours": lambda p: pixel_encoder_cpu.encode(p["params"], frames, jnp.arange(batch)),
        "lax.conv": lambda p: encoder.apply(p, frames),
    }
    functions: dict[str, Callable[[], Any]] = {}
    for name, way in ways.items():
        forward = jax.jit(way).lower(params).compile()
        gradient = jax.jit(jax.grad(lambda p, way=way: (way(p) * cotangent).sum())).lower(params).compile()
        functions[f"{name}/forward"] = lambda f=forward: f(params)
        functions[f"{name}/both"] = lambda f=gradient: f(params)
    square = jax.random.normal(jax.random.key(2), (2048, 2048))
    product = jax.jit(lambda a: a @ a).lower(square).compile()
    functions["product"] = lambda: product(square)
    seconds = fastest(functions, repeats)
    rate = 2 * 2048**3 / seconds.pop("product")
    figures = {"floor": {"forward": FORWARD / rate * 1e6, "both": (FORWARD + BACKWARD) / rate * 1e6}}
    for name, value in seconds.items():
        way_name, kind = name.split("/")
        figures.setdefault(way_name, {})[kind] = value / batch * 1e6
    return figures


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 2048])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    table = Table(title="microseconds a sample")
    for column in ("batch", "way", "forward", "forward and backward"):
        table.add_column(column, justify="right")
    for batch in options.batches:
        for name, figures in measure(batch, options.repeats).items():
            table.add_row(str(batch), name, f"{figures['forward']:.0f}", f"{figures['both']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
