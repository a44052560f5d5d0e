"""The reconstruction loss and its gradient at the speed of matrix products on CPU; exact float32.

Features [B, D] -> Dense h * w * 64 -> ConvT 64 3x3/1 -> ConvT 32 4x4/2 -> ConvT C 8x8/4, ReLU between the layers:
logits of the pixels of uint8 pictures; the loss is their binary cross-entropy. 7x7 become 84x84 pixels, and h become
8 * h + 28. Or, where the last kernel is 3x3: three of 3x3/1, cropped by 1, so that sizes stay. `python
benchmarks/decoder.py` compares it with `lax.conv_transpose`. Figures below are those of 84x84x3.

- *Space to depth.* A transposed convolution of stride s and kernel s * m is a convolution of stride 1 and kernel m with
  s * s times the channels, padded by m - 1. The last layer is 2x2 from 20x20x32 to 21x21x48; pixels stay in that form,
  and the pictures are brought into it. XLA's own transposed convolutions multiply mostly zeros, 16 of 17 here.
- *Loss and gradient in one pass.* The loss is a scalar, so its gradient is computed with it and the backward pass only
  scales it. Each chunk of 32 samples runs forward and backward while its activations are in cache; none is stored.
- *The dense layer* takes a block of 8 chunks in one product, because its weight gradient would otherwise be read and
  written for every chunk.
- *Convolutions* as in the encoder: a neutral dilation, and weight gradients as convolutions.

XLA rewrites a convolution to the layout that its fast kernels need only outside of loops (jaxlib 0.10): the gradients
of `lax.conv_general_dilated` inside `lax.scan` fall back to a naive loop, which this module avoids as well.

On GPU and TPU `PixelDecoder` with plain convolutions is the better choice. Only reverse mode is defined, and only once.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax
from jax.custom_batching import sequential_vmap

from trxl_jax.agent.cpu.convolutions import Layer, Params, Pool, conv, from_depth, to_depth

_SAMPLES_PER_CHUNK = 32
_CHUNKS_PER_BLOCK = 8
_MAX_LOGIT = 100.0  # PyTorch's binary cross-entropy clamps its logarithms at -100


@struct.dataclass
class _Deconvolutions:
    """Kernels [m, m, in, out]: the input at i adds its product with kernel[a] to the output at i + a.

    Fields:
        first: kernel [3, 3, 64, 64].
        second: [2, 2, 64, 128], output in space-to-depth form; or [3, 3, 64, 32] where pictures are small.
        third: [2, 2, 32, 16 * C], likewise; or [3, 3, 32, C].
        strides: of the second and the third, as they are defined; 1 where pictures are small.
        cropped: what is cut off each side of each layer's outputs: nothing, or 1 where pictures are small.
    """

    first: Layer
    second: Layer
    third: Layer
    strides: tuple[int, int] = struct.field(pytree_node=False)
    cropped: int = struct.field(pytree_node=False)


class _Totals(NamedTuple):
    """Sums over samples."""

    loss: Array
    gradient: _Deconvolutions


def reconstruction_loss(
    params: Params, features: Array, pictures: Array, indices: Array, channels_first: bool = False
) -> Array:
    """Mean binary cross-entropy of reconstructed pictures, differentiable in `params` and `features`; f32[].

    Logarithms are clamped at -100, as in PyTorch.

    Args:
        params: "dense", "deconv_0", "deconv_1" and "deconv_2", each with "kernel" ([D, h * w * 64], [h, w, in, out] as
            in Flax's ConvTranspose) and "bias"; float32.
        features: f32[B, D].
        pictures: u8[M, H, W, C], of a size that these layers give.
        indices: i32[B], for each sample the one that is to be reconstructed.
        channels_first: pictures are [M, C, H, W].
    """
    return _loss(params, features, Pool(pictures, channels_first), indices)


@jax.custom_vjp
def _loss(params: Params, features: Array, pool: Pool, indices: Array) -> Array:
    return _loss_and_gradient(params, features, pool, indices)[0]


def _loss_fwd(params: Params, features: Array, pool: Pool, indices: Array) -> tuple[Array, tuple[Params, Array]]:
    return _loss_and_gradient(params, features, pool, indices)


def _loss_bwd(gradient: tuple[Params, Array], cotangent: Array) -> tuple[Params, Array, None, None]:
    to_params, to_features = jax.tree.map(lambda g: cotangent * g, gradient)
    return to_params, to_features, None, None


_loss.defvjp(_loss_fwd, _loss_bwd)


# Under vmap (seeds with parameters of their own) one after the other: convolutions batched over kernels become grouped
# ones, which are slow.
@sequential_vmap
def _loss_and_gradient(
    params: Params, features: Array, pool: Pool, indices: Array
) -> tuple[Array, tuple[Params, Array]]:
    """The loss f32[] and its gradient in `params` and `features`."""
    (deconvolutions, dense), to_params = jax.vjp(_layers, params)
    batch = features.shape[0]
    features, indices, weight = _in_blocks(features, indices, math.prod(pool.pictures.shape[1:]))

    def one_chunk(totals: _Totals, inputs: tuple[Array, Array, Array]) -> tuple[_Totals, Array]:
        new, d_x = _chunk(deconvolutions, *inputs)
        return jax.tree.map(jnp.add, totals, new), d_x

    def one_block(
        sums: tuple[_Totals, Layer], inputs: tuple[Array, Array, Array]
    ) -> tuple[tuple[_Totals, Layer], Array]:
        features, indices, weight = inputs
        x = jax.nn.relu(features @ dense.kernel + dense.bias)
        targets = to_depth(pool.take(indices), deconvolutions.strides[1])
        grids = x.reshape(*indices.shape, *_grid(deconvolutions, targets))
        totals, d_x = lax.scan(one_chunk, sums[0], (grids, targets, weight))
        d_x = jnp.where(x > 0, d_x.reshape(x.shape), 0)
        d_dense = Layer(sums[1].kernel + features.T @ d_x, sums[1].bias + d_x.sum(0))
        return (totals, d_dense), d_x @ dense.kernel.T

    zeros = jax.tree.map(jnp.zeros_like, (_Totals(jnp.float32(0), deconvolutions), dense))
    (totals, d_dense), d_features = lax.scan(one_block, zeros, (features, indices, weight))
    d_features = d_features.reshape(-1, d_features.shape[-1])[:batch]
    return totals.loss, (to_params((totals.gradient, d_dense))[0], d_features)


def _in_blocks(features: Array, indices: Array, pixels: int) -> tuple[Array, Array, Array]:
    """Features [blocks, chunks * c, D], indices and weights [blocks, chunks, c]; even, with padding of weight 0."""
    batch = features.shape[0]
    total = -(-batch // _SAMPLES_PER_CHUNK)
    blocks = -(-total // _CHUNKS_PER_BLOCK)
    chunks = -(-total // blocks)
    chunk = -(-batch // (blocks * chunks))
    padding = blocks * chunks * chunk - batch
    weight = jnp.full(batch, 1 / (batch * pixels), jnp.float32)
    indices, weight = (jnp.pad(x, (0, padding)).reshape(blocks, chunks, chunk) for x in (indices, weight))
    return jnp.pad(features, ((0, padding), (0, 0))).reshape(blocks, chunks * chunk, -1), indices, weight


def _layers(params: Params) -> tuple[_Deconvolutions, Layer]:
    """Kernels for outputs in space-to-depth form; linear, its VJP takes gradients back."""
    layers = [Layer(**params[f"deconv_{i}"]) for i in range(3)]
    strides, cropped = ((1, 1), 1) if layers[-1].kernel.shape[0] == 3 else ((2, 4), 0)
    first, second, third = (_to_depth_layer(layer, s) for layer, s in zip(layers, (1, *strides), strict=True))
    return _Deconvolutions(first, second, third, strides, cropped), Layer(**params["dense"])


def _to_depth_layer(layer: Layer, stride: int) -> Layer:
    """A transposed convolution [stride * m, stride * m, in, out] as one of stride 1, [m, m, in, stride**2 * out]."""
    size, _, channels, out = layer.kernel.shape
    m = size // stride
    kernel = layer.kernel[::-1, ::-1].reshape(m, stride, m, stride, channels, out).transpose(0, 2, 4, 1, 3, 5)
    return Layer(kernel.reshape(m, m, channels, -1), jnp.tile(layer.bias, stride**2))


def _grid(layers: _Deconvolutions, targets: Array) -> tuple[int, int, int]:
    """Shape of the first layer's inputs: targets [..., h, w, _], in space-to-depth form."""
    height, width = targets.shape[-3:-1]
    if not layers.cropped:
        height, width = ((size - 1) // layers.strides[0] - 3 for size in (height, width))
    return height, width, layers.first.kernel.shape[2]


def _chunk(layers: _Deconvolutions, x: Array, targets: Array, weight: Array) -> tuple[_Totals, Array]:
    """Loss, its gradient in the layers, and that in x: x [c, 7, 7, 64], targets u8[c, 21, 21, 48], weight [c]."""
    stride, cropped = layers.strides[0], layers.cropped
    first = jax.nn.relu(_expand(x, layers.first, cropped))
    second = from_depth(jax.nn.relu(_expand(first, layers.second, cropped)), stride)
    loss, d_logits = _cross_entropy(_expand(second, layers.third, cropped), targets, weight)
    third, d_second = _gradients(second, d_logits, layers.third, cropped)
    d_second = to_depth(jnp.where(second > 0, d_second, 0), stride)
    middle, d_first = _gradients(first, d_second, layers.second, cropped)
    start, d_x = _gradients(x, jnp.where(first > 0, d_first, 0), layers.first, cropped)
    return _Totals(loss, _Deconvolutions(start, middle, third, layers.strides, cropped)), d_x


def _cross_entropy(logits: Array, targets: Array, weight: Array) -> tuple[Array, Array]:
    """Weighted sum of cross-entropies, and its gradient in the logits [c, 21, 21, 48].

    softplus(l) - t * l for logits within +-100, and their value at +-100 beyond, as with clamped logarithms.
    """
    target = targets.astype(jnp.float32) / 255
    size = jnp.abs(logits)
    small = jnp.exp(-size)
    loss = jnp.minimum(size, _MAX_LOGIT) * jnp.where(logits > 0, 1 - target, target) + _log1p(small)
    sigmoid = jnp.where(logits >= 0, 1, small) / (1 + small)
    gradient = jnp.where(size <= _MAX_LOGIT, sigmoid - target, 0)
    sums = loss.reshape(weight.shape[0], -1) @ jnp.ones(loss[0].size)
    return sums @ weight, gradient * weight[:, None, None, None]


def _log1p(x: Array) -> Array:
    """log(1 + x) for x in [0, 1]: 2 artanh(x / (2 + x)) as a series, whose next term is below 1e-9 of it."""
    ratio = x / (2 + x)
    square = ratio * ratio
    series = jnp.zeros_like(x)
    for k in range(15, 0, -2):
        series = series * square + 1 / k
    return 2 * ratio * series


def _expand(inputs: Array, layer: Layer, cropped: int) -> Array:
    """[c, h, w, in] to [c, h + m - 1, w + m - 1, out], less what is cropped."""
    return conv(inputs, layer.kernel[::-1, ::-1], layer.kernel.shape[0] - 1 - cropped) + layer.bias


def _gradients(inputs: Array, gradient: Array, layer: Layer, cropped: int) -> tuple[Layer, Array]:
    """Gradients in the layer and its inputs: inputs [c, h, w, in], gradient at the outputs [c, H, W, out]."""
    to_inputs = conv(gradient, layer.kernel.transpose(0, 1, 3, 2), cropped)
    # Without the barrier the compiler transposes element by element.
    images, kernel = lax.optimization_barrier((gradient.transpose(3, 1, 2, 0), inputs.transpose(1, 2, 0, 3)))
    bias = gradient.reshape(-1, gradient.shape[-1])
    return Layer(conv(images, kernel, cropped).transpose(1, 2, 3, 0), jnp.ones(bias.shape[0]) @ bias), to_inputs
