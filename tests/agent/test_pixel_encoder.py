"""The encoder's CPU formulation against lax.conv_general_dilated: values and gradients, dynamic chunk counts, vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from trxl_jax.agent.cpu import pixel_encoder as pixel_encoder_cpu
from trxl_jax.agent.encoders import PixelEncoder
from trxl_jax.agent.numerics import Numerics

pytestmark = pytest.mark.optimised

D = 384
SHAPES = {"conv_0": (8, 8, 3, 32), "conv_1": (4, 4, 32, 64), "conv_2": (3, 3, 64, 64), "dense": (3136, D)}


def encode(params: dict, frames: jax.Array, num_chunks: int | None = None, chunk: int = 32) -> jax.Array:
    """All frames, or the first chunks of them."""
    count = None if num_chunks is None else num_chunks * chunk
    return pixel_encoder_cpu.encode(params, frames, jnp.arange(frames.shape[0]), count, chunk)


def make_params(seed: int = 0, width: int = D) -> dict:
    rng = np.random.default_rng(seed)
    params = {}
    for name, default in SHAPES.items():
        shape = (*default[:-1], width) if name == "dense" else default
        kernel = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        bias = rng.normal(size=shape[-1]) * 0.1
        params[name] = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    return params


def make_frames(batch: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (batch, 84, 84, 3)), jnp.uint8)


def make_cotangent(batch: int, seed: int = 1, width: int = D) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, width)), jnp.float32)


def reference(params: dict, frames: jax.Array) -> jax.Array:
    x = frames.astype(jnp.float32) / 255
    for name, stride in (("conv_0", 4), ("conv_1", 2), ("conv_2", 1)):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        x = lax.conv_general_dilated(x, kernel, (stride,) * 2, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + bias)
    dense = params["dense"]
    return jax.nn.relu(x.reshape(x.shape[0], -1) @ dense["kernel"] + dense["bias"])


def value_and_gradient(function, params, frames, cotangent, *arguments) -> tuple:
    value, pullback = jax.vjp(lambda p: function(p, frames, *arguments), params)
    return value, pullback(cotangent)[0]


def assert_close(actual, expected, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest magnitude of each array (a ReLU that flips would show as about 1e-3)."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        assert a.dtype == e.dtype
        assert float(jnp.abs(a - e).max()) <= tolerance * float(jnp.abs(e).max())


@pytest.mark.parametrize(("batch", "chunk"), [(1, 32), (16, 32), (32, 32), (40, 32), (65, 7), (33, 3), (36, 2)])
def test_equals_lax_conv(batch: int, chunk: int) -> None:
    arguments = make_params(), make_frames(batch), make_cotangent(batch)
    fast = jax.jit(lambda *a: value_and_gradient(lambda p, f: encode(p, f, chunk=chunk), *a))(*arguments)
    assert_close(fast, jax.jit(lambda *a: value_and_gradient(reference, *a))(*arguments))


def test_other_width_and_no_gradient() -> None:
    params, frames = make_params(width=512), make_frames(16)
    assert_close(jax.jit(encode)(params, frames), reference(params, frames))


@pytest.mark.slow
def test_dynamic_number_of_chunks() -> None:
    """One compiled function for every count; later rows take no part whatever they and their cotangents hold."""
    chunk, batch = 4, 39  # 10 chunks: two blocks, the last frame missing
    params, frames, cotangent = make_params(), make_frames(batch), make_cotangent(batch)
    fast = jax.jit(lambda n, c: value_and_gradient(lambda p, f: encode(p, f, n, chunk), params, frames, c))
    for count in (0, 1, 3, 8, 9, 10, 99):
        rows = min(count * chunk, batch)
        value, gradient = fast(count, cotangent.at[rows:].set(jnp.nan))
        if count == 0:
            assert all(not leaf.any() for leaf in jax.tree.leaves(gradient))
            continue
        expected = value_and_gradient(reference, params, frames[:rows], cotangent[:rows])
        assert_close((value[:rows], gradient), expected)
    assert fast._cache_size() == 1


@pytest.mark.slow
def test_vmap_over_seeds() -> None:
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(make_params(seed) for seed in range(3)))
    frames, cotangent = make_frames(3 * 12).reshape(3, 12, 84, 84, 3), make_cotangent(3 * 12).reshape(3, 12, D)
    counts = jnp.asarray([1, 2, 3])
    one = lambda p, f, c, n: value_and_gradient(lambda p, f: encode(p, f, n, 4), p, f, c)  # noqa: E731
    value, gradient = jax.jit(jax.vmap(one))(params, frames, cotangent, counts)
    for i, count in enumerate((4, 8, 12)):
        seed = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        expected = value_and_gradient(reference, seed, frames[i, :count], cotangent[i, :count])
        assert_close((value[i, :count], jax.tree.map(lambda leaf, i=i: leaf[i], gradient)), expected)
    shared = jax.jit(jax.vmap(encode, in_axes=(0, None)))(params, frames[0])  # frames not batched
    assert_close(shared, jax.vmap(reference, in_axes=(0, None))(params, frames[0]))
    nested = jax.jit(jax.vmap(jax.vmap(encode, in_axes=(None, 0)), in_axes=(0, None)))(params, frames[:2])
    assert_close(nested[1, 0], reference(jax.tree.map(lambda leaf: leaf[1], params), frames[0]))


@pytest.mark.slow
def test_inside_scan_cond_and_remat() -> None:
    params, frames, cotangent = make_params(), make_frames(12).reshape(3, 4, 84, 84, 3), make_cotangent(4)

    def loss(encoder, params) -> jax.Array:
        def step(total, x) -> tuple:
            features = lax.cond(x.sum() >= 0, lambda: encoder(params, x), lambda: jnp.zeros((4, D)))
            return total + (features * cotangent).sum(), None

        return lax.scan(jax.checkpoint(step), 0.0, frames)[0]

    fast = jax.jit(jax.value_and_grad(lambda p: loss(encode, p)))(params)
    assert_close(fast, jax.jit(jax.value_and_grad(lambda p: loss(reference, p)))(params), 1e-5)


def test_avoids_ynnpack_convolutions() -> None:
    """The neutral dilation must keep every convolution on Eigen, and none may fall back to XLA's naive loop."""
    if jax.default_backend() != "cpu":
        pytest.skip("CPU only")
    function = jax.jit(lambda *a: value_and_gradient(encode, *a))
    text = function.lower(make_params(), make_frames(64), make_cotangent(64)).compile().as_text()
    convolutions = [line for line in text.splitlines() if " convolution(" in line]
    assert len(convolutions) == 8
    assert not any("ROOT" in line for line in convolutions)  # a fusion's root: handed to a library


def test_the_formulation_for_accelerators() -> None:
    params, frames = make_params(width=16), make_frames(3)
    encoder = PixelEncoder(16, Numerics("gpu"))
    assert_close(encoder.apply({"params": params}, frames), reference(params, frames))
