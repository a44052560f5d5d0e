"""Measures the pixel encoder's CPU implementation against `lax.conv` and a lower bound.

    python benchmarks/encoder.py [--batches 32 128 2048] [--repeats 7] [--shape 84 84 3] [--dtype uint8]

Microseconds per sample; minima over alternating repeats. The lower bound is the encoder's operations at the rate of a
large matrix product, measured in the same process: 16.2 MFLOP forward for 84x84x3; backward twice that, without the
gradient of the first layer's input.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from trxl_jax.agent.encoders import PixelEncoder, convolutions, picture_shape
from trxl_jax.agent.numerics import Numerics

DIM = 384


def layer_operations(shape: tuple[int, ...], dim: int = DIM) -> list[int]:
    """Of each layer forward, the dense one last, for pictures of a shape."""
    height, width, channels = picture_shape(shape)
    form = convolutions(shape)
    counts = []
    for out, kernel, stride in form.layers:
        if form.padding == "VALID":
            height, width = ((size - kernel) // stride + 1 for size in (height, width))
        counts.append(2 * height * width * out * kernel**2 * channels)
        channels = out
    return [*counts, 2 * math.prod(form.grid) * dim]


def make_pictures(batch: int, shape: tuple[int, ...], dtype: str) -> jax.Array:
    """Random ones [B, *shape]."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (batch, *shape)) if dtype == "uint8" else rng.random((batch, *shape))
    return jnp.asarray(pictures, dtype)


def fastest(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds per call of each function; the minimum over repeats, in which functions are called alternately."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(repeats + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            jax.block_until_ready(function())
            if i:
                seconds[name].append(time.perf_counter() - started)
    return {name: min(values) for name, values in seconds.items()}


def measure(batch: int, repeats: int, shape: tuple[int, ...], dtype: str) -> dict[str, dict[str, float]]:
    """Microseconds per sample of each implementation, forward and with the gradient."""
    ours = PixelEncoder(DIM, Numerics("cpu"), shape)
    encoder = PixelEncoder(DIM, Numerics("gpu"), shape)  # the implementation for accelerators: plain lax.conv
    frames = make_pictures(batch, shape, dtype)
    params = encoder.init(jax.random.key(0), frames[:1])
    cotangent = jax.random.normal(jax.random.key(1), (batch, DIM))
    implementations: dict[str, Callable[[Any, jax.Array], jax.Array]] = {"ours": ours.apply, "lax.conv": encoder.apply}
    functions: dict[str, Callable[[], Any]] = {}
    for name, apply in implementations.items():
        gradient = jax.grad(lambda p, x, apply=apply: (apply(p, x) * cotangent).sum())
        for kind, function in (("forward", apply), ("both", gradient)):
            compiled = jax.jit(function).lower(params, frames).compile()
            functions[f"{name}/{kind}"] = partial(compiled, params, frames)
    square = jax.random.normal(jax.random.key(2), (2048, 2048))
    product = jax.jit(lambda a: a @ a).lower(square).compile()
    functions["product"] = lambda: product(square)
    seconds = fastest(functions, repeats)
    rate = 2 * 2048**3 / seconds.pop("product")
    forward, first = sum(layer_operations(shape)), layer_operations(shape)[0]
    figures = {"lower bound": {"forward": forward / rate * 1e6, "both": (3 * forward - first) / rate * 1e6}}
    for name, value in seconds.items():
        implementation_name, kind = name.split("/")
        figures.setdefault(implementation_name, {})[kind] = value / batch * 1e6
    return figures


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 2048])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--shape", type=int, nargs="+", default=[84, 84, 3])
    parser.add_argument("--dtype", choices=("uint8", "float32"), default="uint8")
    options = parser.parse_args()
    table = Table(title="microseconds per sample")
    for column in ("batch", "implementation", "forward", "forward and backward"):
        table.add_column(column, justify="right")
    for batch in options.batches:
        for name, figures in measure(batch, options.repeats, tuple(options.shape), options.dtype).items():
            table.add_row(str(batch), name, f"{figures['forward']:.0f}", f"{figures['both']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
