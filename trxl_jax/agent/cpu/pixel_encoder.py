"""The pixel encoder, forward and backward, at the speed of matrix products on CPUs; exact float32.

Pictures [B, H, W, C], bytes / 255 or floats -> Conv 32 8x8/4 -> Conv 64 4x4/2 -> Conv 64 3x3/1 -> Dense D; no padding,
ReLU after each. Or, where the first kernel is 3x3: three of 3x3/1, padded by 1. `python benchmarks/encoder.py` compares
it with `lax.conv`. What makes the difference (figures are those of 84x84x3):

- *A neutral dilation* keeps XLA from using YNNPACK for convolutions, which is half as fast as Eigen or less: `conv`.
- *Space to depth.* 8x8 stride 4 over 3 channels is 2x2 stride 1 over 48, and 4x4 stride 2 over 32 is 2x2 over 128.
- *The strides reach 8 n + 4 rows and columns*, so pictures are cropped to that, and then every layer fits exactly.
- *Weight gradients are convolutions too*, with batch and channels exchanged; no patches in memory.
- *Chunks* of 32 frames keep activations in cache. The dense layer takes 8 chunks in one product; otherwise its weight
  gradient, 4.8 MB, would be read and written once per chunk. For the gradient the activations of the second and third
  layer are kept; those of the first, 61% of all, are computed again: 5% more time where no frame repeats, and less
  where most do, because buffers are filled with zeros for all.

On GPU and TPU `lax.conv_general_dilated` is the better choice. Only reverse mode is defined, and only once.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax
from jax.custom_batching import sequential_vmap

from trxl_jax.agent.cpu.convolutions import NHWC, Layer, Params, Pool, conv, from_depth, to_depth

_CHUNKS_A_BLOCK = 8


@struct.dataclass
class _Convolutions:
    """The convolutions as ones of stride 1, with kernels [m, m, in, out] for inputs in space-to-depth form.

    Fields:
        first: kernel [2, 2, 16 * C, 32], or [3, 3, C, 32] where pictures are small.
        second: [2, 2, 128, 64], or [3, 3, 32, 64].
        third: [3, 3, 64, 64].
        strides: of the first and the second, as they are defined; 1 where pictures are small.
        padding: zeros around the inputs of each: none, or 1 where pictures are small.
    """

    first: Layer
    second: Layer
    third: Layer
    strides: tuple[int, int] = struct.field(pytree_node=False)
    padding: int = struct.field(pytree_node=False)


class _Saved(NamedTuple):
    """Activations after the ReLUs, of many chunks of c frames; the first layer's, 61% of all, are computed again."""

    second: Array  # [C, c, h, w, 64], for 84x84 pixels h = w = 9
    third: Array  # [C, c, h, w, 64], h = w = 7


_Residuals = tuple[Params, Pool, Array, Array, Array, _Saved]


def encode(
    params: Params,
    pictures: Array,
    indices: Array,
    count: Array | int | None = None,
    chunk: int = 32,
    channels_first: bool = False,
) -> Array:
    """Features of pictures of a pool, differentiable in `params` only.

    Args:
        params: "conv_0", "conv_1", "conv_2" and "dense", each with "kernel" (HWIO, [h * w * 64, D]) and "bias";
            float32. Kernels are 8x8, 4x4 and 3x3, or all 3x3.
        pictures: u8 or f32 [M, H, W, C].
        indices: i32[B], which of them.
        count: only the first `count` of them matter; may be traced, as it sets how often the loops run. Later rows of
            the result are undefined, their cotangents ignored from the next multiple of `chunk` on. None: all.
        chunk: pictures to a step, at most; without `count` such that chunks are even.
        channels_first: pictures are [M, C, H, W].

    Returns:
        f32[B, D].
    """
    batch = indices.shape[0]
    chunk = min(chunk, batch)
    total = -(-batch // chunk)
    if count is None:
        count, chunk = batch, -(-batch // total)
    num_chunks = jnp.clip(-(-jnp.asarray(count, jnp.int32) // chunk), 0, total)
    indices = jnp.pad(indices, (0, total * chunk - batch))
    return _encode(params, Pool(pictures, channels_first), indices.reshape(total, chunk), num_chunks)[:batch]


@jax.custom_vjp
def _encode(params: Params, pool: Pool, indices: Array, count: Array) -> Array:
    """Features [C' * c, D] of the first `count` chunks of indices [C, c]; C' is C made a multiple of a block."""
    return _features(params, pool, indices, count)


def _encode_fwd(params: Params, pool: Pool, indices: Array, count: Array) -> tuple[Array, _Residuals]:
    features, saved = _features_and_saved(params, pool, indices, count)
    return features, (params, pool, indices, count, features, saved)


def _encode_bwd(residuals: _Residuals, cotangent: Array) -> tuple[Params, None, None, None]:
    return _gradient(*residuals, cotangent), None, None, None


_encode.defvjp(_encode_fwd, _encode_bwd)


# Under vmap (seeds with parameters of their own) one after the other: convolutions batched over kernels become grouped
# ones, which are slow, and a loop with batched trip counts copies its buffers at every step.
@sequential_vmap
def _features(params: Params, pool: Pool, indices: Array, count: Array) -> Array:
    return _forward(params, pool, indices, count, save=False)[0]


@sequential_vmap
def _features_and_saved(params: Params, pool: Pool, indices: Array, count: Array) -> tuple[Array, _Saved]:
    features, buffers = _forward(params, pool, indices, count, save=True)
    return features, _Saved(*buffers)


def _forward(params: Params, pool: Pool, indices: Array, count: Array, save: bool) -> tuple[Array, tuple[Array, ...]]:
    """Features [C' * c, D] and, to save, activations [C', ...] of all chunks; else only the last block's third."""
    convolutions, dense = _layers(params, pool.white)
    chunks, chunk = indices.shape
    block = min(chunks, _CHUNKS_A_BLOCK)
    blocks = -(-chunks // block)
    layers_kept = 2 if save else 1

    def activations(indices: Array) -> tuple[Array, ...]:
        return _later(convolutions, _first(convolutions, _reached(pool.take(indices), convolutions)))[-layers_kept:]

    # Loops need initialised buffers, and zeros for unused ones are not free: 4 to 20 us a sample.
    kept = blocks * block if save else block
    shapes = jax.eval_shape(activations, jax.ShapeDtypeStruct((chunk,), indices.dtype))
    buffers = tuple(jnp.zeros((kept, *one.shape)) for one in shapes)

    def one_block(i: Array, state: tuple[tuple[Array, ...], Array]) -> tuple[tuple[Array, ...], Array]:
        buffers, features = state
        start = i * block if save else 0

        def one_chunk(j: Array, buffers: tuple[Array, ...]) -> tuple[Array, ...]:
            new = activations(indices[i * block + j])
            return jax.tree.map(lambda b, n: lax.dynamic_update_index_in_dim(b, n, start + j, 0), buffers, new)

        buffers = lax.fori_loop(0, jnp.minimum(block, count - i * block), one_chunk, buffers)
        flat = lax.dynamic_slice_in_dim(buffers[-1], start, block).reshape(block * chunk, -1)
        new = jax.nn.relu(flat @ dense.kernel + dense.bias)
        return buffers, lax.dynamic_update_slice_in_dim(features, new, i * block * chunk, 0)

    features = jnp.zeros((blocks * block * chunk, dense.bias.shape[0]))
    buffers, features = lax.fori_loop(0, -(-count // block), one_block, (buffers, features))
    return features, buffers


@sequential_vmap
def _gradient(
    params: Params, pool: Pool, indices: Array, count: Array, features: Array, saved: _Saved, cotangent: Array
) -> Params:
    """Gradient in the parameters; features and cotangent [C' * c, D]."""
    (convolutions, dense), to_params = jax.vjp(partial(_layers, white=pool.white), params)
    chunks, chunk = indices.shape
    block = min(chunks, _CHUNKS_A_BLOCK)
    processed = jnp.arange(features.shape[0])[:, None] < count * chunk
    cotangent = jnp.where(processed & (features > 0), cotangent, 0)

    def one_block(i: Array, sums: tuple[_Convolutions, Layer]) -> tuple[_Convolutions, Layer]:
        gradient = lax.dynamic_slice_in_dim(cotangent, i * block * chunk, block * chunk)
        flat = lax.dynamic_slice_in_dim(saved.third, i * block, block).reshape(block * chunk, -1)
        d_flat = jnp.where(flat > 0, gradient @ dense.kernel.T, 0).reshape(block, *saved.third.shape[1:])

        def one_chunk(j: Array, sums: _Convolutions) -> _Convolutions:
            k = i * block + j
            pictures = _reached(pool.take(indices[k]), convolutions)
            new = _convolution_gradients(convolutions, pictures, saved.second[k], d_flat[j])
            return jax.tree.map(jnp.add, sums, new)

        new = lax.fori_loop(0, jnp.minimum(block, count - i * block), one_chunk, sums[0])
        return new, Layer(sums[1].kernel + flat.T @ gradient, sums[1].bias + gradient.sum(0))

    zeros = jax.tree.map(jnp.zeros_like, (convolutions, dense))
    return to_params(lax.fori_loop(0, -(-count // block), one_block, zeros))[0]


def _layers(params: Params, white: int) -> tuple[_Convolutions, Layer]:
    """Kernels for space-to-depth inputs, the first for pixels up to `white`; linear, its VJP takes gradients back."""
    first, second, third, dense = (Layer(**params[name]) for name in ("conv_0", "conv_1", "conv_2", "dense"))
    strides, padding = ((1, 1), 1) if first.kernel.shape[0] == 3 else ((4, 2), 0)
    one, two = (_to_depth_kernel(x.kernel, s) for x, s in zip((first, second), strides, strict=True))
    return _Convolutions(Layer(one / white, first.bias), Layer(two, second.bias), third, strides, padding), dense


def _to_depth_kernel(kernel: Array, stride: int) -> Array:
    """A kernel [stride * m, stride * m, in, out] for inputs in space-to-depth form, [m, m, stride**2 * in, out]."""
    size, _, channels, out = kernel.shape
    m = size // stride
    blocks = kernel.reshape(m, stride, m, stride * channels, out).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(m, m, stride**2 * channels, out)


def _reached(pictures: Array, layers: _Convolutions) -> Array:
    """Pictures [c, H, W, C] without the last rows and columns, which strides don't reach."""
    if layers.padding:
        return pictures
    height, width = (size - (size - 4) % 8 for size in pictures.shape[1:3])
    return pictures[:, :height, :width]


def _first(layers: _Convolutions, pictures: Array) -> Array:
    """Activations of the first layer, space to depth, [c, 10, 10, 128] for pictures [c, 84, 84, C]."""
    pixels = to_depth(pictures, layers.strides[0]).astype(jnp.float32)
    first = jax.nn.relu(conv(pixels, layers.first.kernel, layers.padding) + layers.first.bias)
    return to_depth(first, layers.strides[1])


def _later(layers: _Convolutions, first: Array) -> tuple[Array, Array]:
    """Activations of the second and the third layer, [c, 9, 9, 64] and [c, 7, 7, 64] for 84x84 pixels."""
    second = jax.nn.relu(conv(first, layers.second.kernel, layers.padding) + layers.second.bias)
    return second, jax.nn.relu(conv(second, layers.third.kernel, layers.padding) + layers.third.bias)


def _convolution_gradients(layers: _Convolutions, pictures: Array, second: Array, d_third: Array) -> _Convolutions:
    """Gradients of a chunk's convolutions: second [c, h, w, 64], and d_third [c, h', w', 64] before the third ReLU."""
    chunk, height, width, channels = pictures.shape
    first = _first(layers, pictures)
    d_second = jnp.where(second > 0, _spread(d_third, layers.third.kernel, layers.padding), 0)
    if layers.padding:
        d_first = _spread(d_second, layers.second.kernel, layers.padding)
    else:
        # This one grows, from 9 to 10, which YNNPACK does not take either.
        kernel = layers.second.kernel[::-1, ::-1].transpose(0, 1, 3, 2)
        d_first = lax.conv_general_dilated(d_second, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=NHWC)
    d_first = from_depth(jnp.where(first > 0, d_first, 0), layers.strides[1])
    # Transposed in two steps: in one, the first layer's gradient takes 72 us a sample instead of 54.
    pixels = lax.optimization_barrier(pictures.reshape(chunk, -1).T.astype(jnp.float32))
    stride = layers.strides[0]
    height, width = height // stride, width // stride
    pixels = pixels.reshape(height, stride, width, stride * channels, chunk).transpose(4, 0, 2, 1, 3)
    pixels = pixels.reshape(chunk, height, width, -1)
    pairs = (pixels, d_first), (first, d_second), (second, d_third)
    one, two, three = (_layer_gradient(inputs, gradient, layers.padding) for inputs, gradient in pairs)
    return _Convolutions(one, two, three, layers.strides, layers.padding)


def _spread(gradient: Array, kernel: Array, padding: int) -> Array:
    """Gradient at the inputs of a 3x3 convolution, [c, h, w, out] at its outputs, kernel [3, 3, in, out].

    One product, then nine shifted sums: 26 us a sample, and 39 as a padded convolution with its 65% more products.
    """
    *images, out = gradient.shape
    size = kernel.shape[2]
    parts = gradient.reshape(-1, out) @ kernel.reshape(9 * size, out).T
    near = [(i - padding, 2 - i - padding, 0) for i in range(3)]
    still = (0, 0, 0)
    shifts = [(still, near[i], near[j], still) for i in range(3) for j in range(3)]
    parts = parts.reshape(*images, 9, size)
    return sum((lax.pad(parts[..., i, :], jnp.float32(0), s) for i, s in enumerate(shifts)), jnp.float32(0))


def _layer_gradient(inputs: Array, gradient: Array, padding: int) -> Layer:
    """Kernel and bias gradients: inputs [c, H, W, in], gradient at the outputs [c, h, w, out].

    Without the barrier the compiler transposes element by element: 72 us a sample instead of 52 for the first layer.
    """
    inputs, gradient = lax.optimization_barrier((inputs.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)))
    return Layer(conv(inputs, gradient, padding).transpose(1, 2, 0, 3), gradient.sum((0, 1, 2)))
