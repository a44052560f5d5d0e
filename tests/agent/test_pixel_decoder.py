"""The decoder's CPU implementation against the plain decoder and loss: values, gradients, clamping, vmap, loops."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from trxl_jax.agent.cpu import pixel_decoder
from trxl_jax.agent.decoder import PixelDecoder
from trxl_jax.agent.numerics import Numerics
from trxl_jax.ppo.losses import reconstruction_loss

pytestmark = pytest.mark.optimised

D = 48
DECODER = PixelDecoder(Numerics("gpu"))  # the implementation for accelerators: plain transposed convolutions


def make_params(seed: int = 0) -> dict:
    return DECODER.init(jax.random.key(seed), jnp.zeros((1, D)))["params"]


def make_features(batch: int, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, D)), jnp.float32)


def make_frames(count: int, seed: int = 2) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (count, 84, 84, 3)), jnp.uint8)


def plain(params: dict, features: jax.Array, frames: jax.Array, indices: jax.Array) -> jax.Array:
    return reconstruction_loss(DECODER.apply({"params": params}, features), frames[indices])


def value_and_gradient(function: Callable, *arguments: object) -> tuple:
    """Loss, and its gradients in the parameters and the features."""
    return jax.jit(jax.value_and_grad(function, argnums=(0, 1)))(*arguments)


def assert_close(actual: object, expected: object, tolerance: float = 1e-5) -> None:
    """Each array within `tolerance` of its norm."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        assert a.dtype == e.dtype
        assert np.linalg.norm(a - e) <= tolerance * np.linalg.norm(e)


# One sample; even and odd chunks; several chunks; two blocks of chunks, the last with padding.
@pytest.mark.parametrize(
    "batch", [1, 5, 33, pytest.param(32, marks=pytest.mark.slow), 67, pytest.param(261, marks=pytest.mark.slow)]
)
def test_equals_plain_decoder(batch: int) -> None:
    indices = jnp.asarray(np.random.default_rng(3).integers(0, 40, batch))  # some repeat, some are never used
    arguments = make_params(), make_features(batch), make_frames(40), indices
    fast = value_and_gradient(pixel_decoder.reconstruction_loss, *arguments)
    assert_close(fast, value_and_gradient(plain, *arguments))
    assert_close(jax.jit(pixel_decoder.reconstruction_loss)(*arguments), fast[0], 1e-6)


def test_extreme_logits() -> None:
    """Features so large that many logits are clamped, on frames that contain black, white and values between."""
    params, features, frames = make_params(), 1e3 * make_features(12), make_frames(12)
    frames = frames.at[:, :30].set(0).at[:, 60:].set(255)
    logits = DECODER.apply({"params": params}, features)
    assert 0.1 < (jnp.abs(logits) > 100).mean() < 0.9
    arguments = params, features, frames, jnp.arange(12)
    assert_close(
        value_and_gradient(pixel_decoder.reconstruction_loss, *arguments), value_and_gradient(plain, *arguments)
    )


@pytest.mark.parametrize("byte", [0, 51, 255])
def test_cross_entropy_of_one_logit(byte: int) -> None:
    """Kernels of zeros, so that the last bias is every logit; against float64, small losses to full precision."""
    size = np.concatenate([np.logspace(-6, 2, 33)[:-1], [99.9, 100.1, 1e3, 1e30]])
    logits = np.concatenate([-size[::-1], [0], size]).astype(np.float32)
    params = jax.tree.map(jnp.zeros_like, make_params())
    frames = jnp.full((1, 84, 84, 3), byte, jnp.uint8)

    def loss(logit: jax.Array) -> jax.Array:
        layer = params["deconv_2"] | {"bias": jnp.full(3, logit)}
        return pixel_decoder.reconstruction_loss(
            {**params, "deconv_2": layer}, jnp.ones((1, D)), frames, jnp.zeros(1, jnp.int32)
        )

    value, gradient = jax.jit(lambda x: lax.map(jax.value_and_grad(loss), x))(jnp.asarray(logits))
    exact, target = logits.astype(np.float64), byte / 255
    miss_one, miss_zero = (np.minimum(np.logaddexp(0, x), 100) for x in (-exact, exact))
    np.testing.assert_allclose(value, target * miss_one + (1 - target) * miss_zero, rtol=2e-6, atol=1e-30)
    sigmoid = np.exp(-np.logaddexp(0, -exact))
    # A difference of a sigmoid and a target has the precision of these two; 21,168 of them are summed.
    np.testing.assert_allclose(gradient, np.where(np.abs(exact) < 100, sigmoid - target, 0), rtol=2e-5, atol=1e-6)


@pytest.mark.slow
def test_gradient_is_scaled() -> None:
    arguments = make_params(), make_features(3), make_frames(3), jnp.arange(3)
    loss = pixel_decoder.reconstruction_loss
    _, single = value_and_gradient(loss, *arguments)
    _, double = value_and_gradient(lambda *a: 2 * loss(*a), *arguments)
    assert_close(double, jax.tree.map(lambda g: 2 * g, single), 1e-6)


@pytest.mark.slow
def test_vmap_over_seeds() -> None:
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(make_params(seed) for seed in range(3)))
    features, frames = make_features(3 * 5).reshape(3, 5, D), make_frames(3 * 5).reshape(3, 5, 84, 84, 3)
    indices = jnp.asarray([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 0, 1, 1, 2]])
    one = jax.value_and_grad(pixel_decoder.reconstruction_loss, argnums=(0, 1))
    fast = jax.jit(jax.vmap(one))(params, features, frames, indices)
    shared = jax.jit(jax.vmap(one, in_axes=(0, 0, None, None)))(params, features, frames[0], indices[0])
    for i in range(3):
        seed = jax.tree.map(lambda leaf, i=i: leaf[i], (params, features, frames, indices))
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], fast), value_and_gradient(plain, *seed))
        expected = value_and_gradient(plain, *seed[:2], frames[0], indices[0])
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], shared), expected)


@pytest.mark.slow
def test_inside_scan_and_remat() -> None:
    features, frames = make_features(8).reshape(2, 4, D), make_frames(8).reshape(2, 4, 84, 84, 3)

    def total(loss: Callable, params: dict, features: jax.Array) -> jax.Array:
        def step(total: jax.Array, inputs: tuple) -> tuple:
            return total + loss(params, *inputs, jnp.arange(4)), None

        return lax.scan(jax.checkpoint(step), 0.0, (features, frames))[0]

    fast = value_and_gradient(lambda *a: total(pixel_decoder.reconstruction_loss, *a), make_params(), features)
    assert_close(fast, value_and_gradient(lambda *a: total(plain, *a), make_params(), features))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="CPU only")
def test_every_convolution_in_a_loop_takes_the_fast_kernel() -> None:
    """In the layout of Eigen's kernel and with no naive loop; XLA rearranges convolutions only outside of loops."""

    def steps(params: dict, features: jax.Array, frames: jax.Array) -> dict:
        def step(params: dict, _: None) -> tuple:
            gradient = jax.grad(pixel_decoder.reconstruction_loss)(params, features, frames, jnp.arange(64))
            return jax.tree.map(lambda p, g: p - g, params, gradient), None

        return lax.scan(step, params, None, length=2)[0]

    text = jax.jit(steps).lower(make_params(), make_features(64), make_frames(64)).compile().as_text()
    convolutions = [line for line in text.splitlines() if " convolution(" in line]
    assert len(convolutions) == 9  # forward, input's gradient and kernel's gradient of three layers
    assert all("dim_labels=b01f_01io->b01f" in line for line in convolutions)
    assert not any("rhs_reversal" in line for line in convolutions)
    assert not any("ROOT" in line for line in convolutions)  # a fusion's root: handed to YNNPACK
