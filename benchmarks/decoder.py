"""Measures the reconstruction loss's CPU implementation against `lax.conv_transpose` and a lower bound.

    python benchmarks/decoder.py [--batches 32 256] [--repeats 5] [--shape 84 84 3]

Microseconds per sample; minima over alternating repeats. "In a loop" is the gradient in a `lax.scan` of two steps, as
in an update. The lower bound is the decoder's operations at the rate of a large matrix product, measured in the same
process: 16.2 MFLOP forward for 84x84x3, and twice that backward.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from encoder import DIM, fastest, layer_operations, make_pictures
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from trxl_jax.agent.decoder import PixelDecoder
from trxl_jax.agent.numerics import Numerics
from trxl_jax.ppo.losses import reconstruction_loss

STEPS = 2
COLUMNS = ("forward", "forward and backward", "in a loop")


def variants(loss: Callable[[Any, jax.Array], jax.Array], params: Any, features: jax.Array) -> dict[str, Any]:
    """Compiled functions of a loss by column."""
    gradient = jax.grad(loss, argnums=(0, 1))

    def loop(params: Any, features: jax.Array) -> Any:
        def step(state: Any, _: None) -> tuple[Any, None]:
            return jax.tree.map(lambda x, g: x - 1e-3 * g, state, gradient(*state)), None

        return jax.lax.scan(step, (params, features), None, length=STEPS)[0]

    functions = zip(COLUMNS, (loss, gradient, loop), strict=True)
    return {name: jax.jit(function).lower(params, features).compile() for name, function in functions}


def measure(batch: int, repeats: int, shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Microseconds per sample of each implementation by column."""
    ours = PixelDecoder(Numerics("cpu"), shape)
    decoder = PixelDecoder(Numerics("gpu"), shape)  # the implementation for accelerators: plain lax.conv_transpose
    frames = make_pictures(batch, shape, "uint8")
    features = jax.nn.relu(jax.random.normal(jax.random.key(0), (batch, DIM)))
    params = decoder.init(jax.random.key(1), features[:1])
    implementations: dict[str, Callable[[Any, jax.Array], jax.Array]] = {
        "ours": lambda p, x: ours.apply(p, x, frames, jnp.arange(batch), method="reconstruction_loss_at"),
        "lax.conv_transpose": lambda p, x: reconstruction_loss(decoder.apply(p, x), frames),
    }
    functions: dict[str, Callable[[], Any]] = {}
    for name, loss in implementations.items():
        for column, function in variants(loss, params, features).items():
            functions[f"{name}/{column}"] = partial(function, params, features)
    square = jax.random.normal(jax.random.key(2), (2048, 2048))
    product = jax.jit(lambda a: a @ a).lower(square).compile()
    functions["product"] = lambda: product(square)
    seconds = fastest(functions, repeats)
    rate = 2 * 2048**3 / seconds.pop("product")
    forward = sum(layer_operations(shape)) / rate * 1e6
    figures = {"lower bound": dict(zip(COLUMNS, (forward, 3 * forward, 3 * forward), strict=True))}
    for name, value in seconds.items():
        implementation, column = name.split("/")
        steps = STEPS if column == "in a loop" else 1
        figures.setdefault(implementation, {})[column] = value / batch / steps * 1e6
    return figures


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shape", type=int, nargs="+", default=[84, 84, 3])
    options = parser.parse_args()
    table = Table(title="microseconds per sample")
    for column in ("batch", "implementation", *COLUMNS):
        table.add_column(column, justify="right")
    for batch in options.batches:
        for name, figures in measure(batch, options.repeats, tuple(options.shape)).items():
            table.add_row(str(batch), name, *(f"{figures[column]:.0f}" for column in COLUMNS))
    Console().print(table)


if __name__ == "__main__":
    main()
