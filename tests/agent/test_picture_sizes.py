"""Pictures of any size, layout and dtype: encoder and decoder against plain convolutions in float64."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from trxl_jax.agent.decoder import PixelDecoder, require_reconstructable
from trxl_jax.agent.encoders import PixelEncoder, as_picture, picture_shape
from trxl_jax.agent.numerics import Numerics
from trxl_jax.config import Config
from trxl_jax.envs.observations import numbers, picture
from trxl_jax.errors import ConfigError
from trxl_jax.ppo.losses import reconstruction_loss

pytestmark = pytest.mark.optimised

D = 24
NHWC = ("NHWC", "HWIO", "NHWC")
SLOW = pytest.mark.slow


class Case(NamedTuple):
    """A shape with what it must mean: height, width and channels, and what three convolutions leave of them."""

    shape: tuple[int, ...]
    hwc: tuple[int, int, int]
    grid: tuple[int, int]
    dtype: str = "uint8"


# Rows and columns that no stride reaches: 64, 96, 128, 37, 53, 47, 99. The others fit.
LARGE = [
    Case((84, 84), (84, 84, 1), (7, 7)),
    pytest.param(Case((84, 84, 3), (84, 84, 3), (7, 7), "float32"), marks=SLOW),
    pytest.param(Case((64, 64, 3), (64, 64, 3), (4, 4)), marks=SLOW),
    pytest.param(Case((128, 128, 1), (128, 128, 1), (12, 12), "float32"), marks=SLOW),
    pytest.param(Case((96, 84, 4), (96, 84, 4), (8, 7)), marks=SLOW),
    pytest.param(Case((36, 36, 1), (36, 36, 1), (1, 1)), marks=SLOW),
    Case((37, 53, 2), (37, 53, 2), (1, 3), "float32"),
    pytest.param(Case((3, 84, 84), (84, 84, 3), (7, 7)), marks=SLOW),
    Case((4, 47, 99), (47, 99, 4), (2, 8)),
]
SMALL = [
    Case((7, 7, 3), (7, 7, 3), (7, 7)),
    pytest.param(Case((3, 3, 3), (3, 3, 3), (3, 3), "float32"), marks=SLOW),
    Case((5, 9, 1), (5, 9, 1), (5, 9), "float32"),
    pytest.param(Case((1, 9, 3), (1, 9, 3), (1, 9)), marks=SLOW),
    pytest.param(Case((2, 6, 8), (6, 8, 2), (6, 8)), marks=SLOW),
    pytest.param(Case((40, 20), (40, 20, 1), (40, 20)), marks=SLOW),
]
CASES = LARGE + SMALL


def pictures(case: Case, count: int) -> jax.Array:
    rng, shape = np.random.default_rng(0), (count, *case.shape)
    values = rng.integers(0, 256, shape) if case.dtype == "uint8" else rng.normal(size=shape, scale=2.0)
    return jnp.asarray(values, case.dtype)


def random_like(tree: dict, seed: int = 1) -> dict:
    """Parameters of every layer's usual size, and biases that are not small."""
    rng = np.random.default_rng(seed)
    scale = lambda x: 1 / np.sqrt(x.size // x.shape[-1]) if x.ndim > 1 else 0.1  # noqa: E731
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * scale(x), jnp.float32), tree)


def encoder_params(case: Case) -> dict:
    encoder = PixelEncoder(D, Numerics("cpu"), case.shape)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, *case.shape), case.dtype))["params"]
    return random_like(shapes)


def channels_last(case: Case, obs: jax.Array) -> jax.Array:
    if len(case.shape) == 2:
        return obs[..., None]
    return obs if case.shape == case.hwc else obs.transpose(0, 2, 3, 1)


def is_large(case: Case) -> bool:
    return min(case.hwc[:2]) >= 36


def reference_encoder(case: Case, params: dict, obs: jax.Array) -> jax.Array:
    """Plain convolutions, in the dtype of the parameters."""
    dtype = params["dense"]["bias"].dtype
    x = channels_last(case, obs).astype(dtype) / (255 if obs.dtype == jnp.uint8 else 1)
    strides, padding = ((4, 2, 1), "VALID") if is_large(case) else ((1, 1, 1), "SAME")
    for i, stride in enumerate(strides):
        layer = params[f"conv_{i}"]
        x = lax.conv_general_dilated(x, layer["kernel"], (stride,) * 2, padding, dimension_numbers=NHWC)
        x = jax.nn.relu(x + layer["bias"])
    assert x.shape[1:] == (*case.grid, 64)
    return jax.nn.relu(x.reshape(x.shape[0], -1) @ params["dense"]["kernel"] + params["dense"]["bias"])


def features_and_gradient(function, cotangent, *arguments) -> tuple:
    """Features, and the gradient in the parameters, the first argument."""

    def both(cotangent, params, *others) -> tuple:
        features, pullback = jax.vjp(lambda p: function(p, *others), params)
        return features, pullback(cotangent)[0]

    return jax.jit(both)(cotangent, *arguments)


def in_float64(*arrays) -> tuple:
    return jax.tree.map(lambda x: np.asarray(x, np.float64 if x.dtype.kind == "f" else None), arrays)


def assert_close(actual, expected, tolerance: float = 3e-6) -> None:
    """Each array within `tolerance` of its norm."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        assert np.linalg.norm(np.asarray(a) - e) <= tolerance * np.linalg.norm(e)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_encodes_a_pool_as_plain_convolutions_do(case: Case) -> None:
    """Frames that repeat, a chunk that doesn't divide, and rows that don't matter."""
    params, obs = encoder_params(case), pictures(case, 6)
    indices, count = jnp.array([4, 0, 5, 5, 2, 1, 3, 0]), 5
    cotangent = np.random.default_rng(2).normal(size=(count, D)).astype(np.float32)
    encoder = PixelEncoder(D, Numerics("cpu"), case.shape)

    def shared(params: dict, count: jax.Array) -> jax.Array:
        return encoder.apply({"params": params}, obs, indices, count, 2, method="encode_at")[:5]

    fast = features_and_gradient(shared, cotangent, params, jnp.int32(count))
    with jax.enable_x64(True):
        wide = in_float64(cotangent, params, obs[indices[:count]])
        exact = features_and_gradient(lambda *a: reference_encoder(case, *a), *wide)
    assert_close(fast, exact)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_encodes_observations_with_any_leading_axes(case: Case, platform: str) -> None:
    params, obs = encoder_params(case), pictures(case, 6)
    encoder = PixelEncoder(D, Numerics(platform), case.shape)
    features = encoder.apply({"params": params}, obs.reshape(2, 3, *case.shape))
    assert features.dtype == jnp.float32
    assert_close(features.reshape(6, D), reference_encoder(case, params, obs), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [Case((5, 4, 2), (5, 4, 2), (5, 4), "float32"), Case((1, 44, 36), (44, 36, 1), (2, 1))]
)
def test_vmap_over_seeds(case: Case) -> None:
    encoder = PixelEncoder(D, Numerics("cpu"), case.shape)
    seeds = [random_like(encoder_params(case), seed) for seed in range(2)]
    obs = pictures(case, 8).reshape(2, 4, *case.shape)
    loss = lambda apply: lambda params, obs: jnp.square(apply(params, obs)).sum()  # noqa: E731
    ours = loss(lambda params, obs: encoder.apply({"params": params}, obs))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    for axes, data in (((0, 0), obs), ((0, None), obs[0])):
        value, gradient = jax.jit(jax.vmap(jax.value_and_grad(ours), in_axes=axes))(stacked, data)
        for i in range(2):
            one = data if axes[1] is None else data[i]
            expected = jax.value_and_grad(loss(lambda p, o: reference_encoder(case, p, o)))(seeds[i], one)
            assert_close((value[i], jax.tree.map(lambda g, i=i: g[i], gradient)), expected, 1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="CPU only")
def test_small_pictures_take_fast_convolutions() -> None:
    """In a loop each is in the layout of Eigen's kernel and none is handed to YNNPACK; see `conv`."""
    case = Case((7, 7, 3), (7, 7, 3), (7, 7))
    encoder = PixelEncoder(D, Numerics("cpu"), case.shape)
    gradient = jax.jit(jax.grad(lambda params, obs: encoder.apply({"params": params}, obs).sum()))
    text = gradient.lower(encoder_params(case), pictures(case, 64)).compile().as_text()
    lines = [line for line in text.splitlines() if " convolution(" in line]
    assert len(lines) == 7  # three forward, the first again, three kernels' gradients
    assert all("dim_labels=b01f_01io->b01f" in line and "ROOT" not in line for line in lines)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((84, 84), (84, 84, 1)),
        ((84, 84, 3), (84, 84, 3)),
        ((3, 84, 84), (84, 84, 3)),
        ((1, 64, 80), (64, 80, 1)),
        ((4, 10, 5), (10, 5, 4)),
        ((3, 3, 3), (3, 3, 3)),
        ((1, 9, 3), (1, 9, 3)),  # a row of nine pixels in colour
        ((4, 4, 16), (4, 4, 16)),  # square: a board with 16 kinds of pieces
        ((10, 10, 4), (10, 10, 4)),
        ((5, 60, 60), (5, 60, 60)),  # five channels are too many to be sure
    ],
)
def test_layouts(shape: tuple[int, ...], expected: tuple[int, int, int]) -> None:
    assert picture_shape(shape) == expected
    obs = np.arange(2 * np.prod(shape)).reshape(2, 1, *shape)
    turned = np.asarray(as_picture(jnp.asarray(obs), shape))
    assert turned.shape == (2, 1, *expected)
    if len(shape) == 3 and expected != shape:
        obs = np.moveaxis(obs, 2, -1)
    np.testing.assert_array_equal(turned, obs.reshape(turned.shape))


MIRRORED = [
    Case((36, 44, 1), (36, 44, 1), (1, 2)),
    pytest.param(Case((60, 68), (60, 68, 1), (4, 5)), marks=SLOW),
    pytest.param(Case((4, 52, 36), (52, 36, 4), (3, 1)), marks=SLOW),
    Case((5, 7, 3), (5, 7, 3), (5, 7)),
    pytest.param(Case((2, 6, 8), (6, 8, 2), (6, 8)), marks=SLOW),
    pytest.param(Case((1, 9, 3), (1, 9, 3), (1, 9)), marks=SLOW),
    pytest.param(Case((35, 40), (35, 40, 1), (35, 40)), marks=SLOW),
]


def reference_decoder(case: Case, params: dict, features: jax.Array) -> jax.Array:
    """Each layer is the transposed map of the encoder's convolution; logits [B, *shape]."""
    strides, padding, kernels = ((4, 2, 1), "VALID", (8, 4, 3)) if is_large(case) else ((1, 1, 1), "SAME", (3, 3, 3))
    sizes = [case.hwc[:2]]
    for stride, kernel in zip(strides, kernels, strict=True):
        sizes.append(tuple((n - kernel) // stride + 1 if padding == "VALID" else n for n in sizes[-1]))
    x = jax.nn.relu(features @ params["dense"]["kernel"] + params["dense"]["bias"]).reshape(-1, *case.grid, 64)
    for i, stride in enumerate(reversed(strides)):
        layer = params[f"deconv_{i}"]
        kernel = layer["kernel"][::-1, ::-1].swapaxes(2, 3)  # [h, w, out, in]: the encoder's, from out to in
        inputs = jax.ShapeDtypeStruct((len(x), *sizes[2 - i], kernel.shape[2]), x.dtype)
        convolve = lambda y, kernel=kernel, stride=stride: lax.conv_general_dilated(  # noqa: E731
            y, kernel, (stride,) * 2, padding, dimension_numbers=NHWC
        )
        (x,) = jax.linear_transpose(convolve, inputs)(x)
        x = x + layer["bias"]
        x = jax.nn.relu(x) if i < 2 else x
    return (
        x.reshape(-1, *case.shape)
        if case.shape[-1] == case.hwc[2]
        else x.transpose(0, 3, 1, 2).reshape(-1, *case.shape)
    )


def without_units_near_zero(decoder: PixelDecoder, params: dict, features: np.ndarray) -> np.ndarray:
    """Those of f32[B, D] whose hidden units are all clear of zero.

    Rounding decides on which side of a ReLU the others are. Of 130,000 units, one on the other side moves a gradient by
    1e-3.
    """
    _, stored = decoder.apply({"params": params}, features, capture_intermediates=True)
    layers = [stored["intermediates"][name]["__call__"][0] for name in ("dense", "deconv_0", "deconv_1")]
    return features[np.all([np.abs(x.reshape(len(x), -1)).min(1) > 1e-6 for x in layers], 0)]


@pytest.mark.parametrize("case", MIRRORED, ids=str)
def test_reconstructs_what_the_encoder_takes(case: Case) -> None:
    ours, plain = (PixelDecoder(Numerics(platform), case.shape) for platform in ("cpu", "gpu"))
    features = np.random.default_rng(3).normal(size=(20, D)).astype(np.float32)
    params = random_like(jax.eval_shape(plain.init, jax.random.key(0), features)["params"])
    features = without_units_near_zero(plain, params, features)[:5]
    logits = plain.apply({"params": params}, features.reshape(5, 1, D))
    assert logits.shape == (5, 1, *case.shape)
    assert_close(logits[:, 0], reference_decoder(case, params, features), 1e-5)
    obs, indices = pictures(case, 4), np.array([3, 0, 0, 2, 1])

    def shared(params: dict, features: jax.Array) -> jax.Array:
        return ours.apply({"params": params}, features, obs, indices, method="reconstruction_loss_at")

    def reference(params: dict, features: jax.Array) -> jax.Array:
        return reconstruction_loss(plain.apply({"params": params}, features), obs[indices])

    both = (jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(params, features) for f in (shared, reference))
    assert_close(*both, 1e-5)


@pytest.mark.parametrize(
    "shape", [(84, 84, 3), (36, 36), (44, 100, 1), (3, 60, 124), (35, 35, 3), (20, 200), (1, 9, 3), (7, 7, 3)]
)
def test_reconstructable(shape: tuple[int, ...]) -> None:
    require_reconstructable(Config(), picture(*shape))
    decoder = PixelDecoder(Numerics("gpu"), shape)
    logits = jax.eval_shape(lambda x: decoder.init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, 8)))
    assert logits.shape == (2, *shape)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((64, 64, 3), "uint8", "64x64 pixels.* resize them to 60x60 or 68x68"),
        ((3, 96, 84), "uint8", "96x84 pixels.* resize them to 92x84 or 100x84"),
        ((37, 36), "uint8", "37x36 pixels.* resize them to 36x36 or 44x36"),
        ((84, 84, 3), "float32", "pictures of float32, and only uint8"),
        ((8,), "float32", "no pixels; set it to 0"),
        ((2, 2, 2, 2), "uint8", "no pixels; set it to 0"),
    ],
)
def test_what_is_not_reconstructed_says_why(shape: tuple[int, ...], dtype: str, message: str) -> None:
    config = Config(reconstruction_coef=0.1)
    with pytest.raises(ConfigError, match=f"^--reconstruction_coef 0.1: {config.env_id} has .*{message}") as error:
        require_reconstructable(config, picture(*shape, dtype=dtype) if len(shape) in (2, 3) else numbers(*shape))
    assert "\n" not in str(error.value)
