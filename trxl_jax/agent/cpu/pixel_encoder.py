"""The pixel encoder, forward and backward, at the speed of matrix products on CPUs; exact float32.

uint8 frames [B, 84, 84, 3] / 255 -> Conv 32 8x8/4 -> Conv 64 4x4/2 -> Conv 64 3x3/1 -> Dense D; no padding, ReLU after
each. `python benchmarks/encoder.py` compares it with `lax.conv`. What makes the difference:

- *A neutral dilation* keeps XLA from using YNNPACK for convolutions, which is half as fast as Eigen or less: `_conv`.
- *Space to depth.* 8x8 stride 4 over 3 channels is 2x2 stride 1 over 48, and 4x4 stride 2 over 32 is 2x2 over 128.
- *Weight gradients are convolutions too*, with batch and channels exchanged; no patches in memory.
- *Chunks* of 32 frames keep activations in cache. The dense layer takes 8 chunks in one product; otherwise its weight
  gradient, 4.8 MB, would be read and written once per chunk. For the gradient the activations of the second and third
  layer are kept; those of the first, 61% of all, are computed again: 5% more time where no frame repeats, and less
  where most do, because buffers are filled with zeros for all.

On GPU and TPU `lax.conv_general_dilated` is the better choice. Only reverse mode is defined, and only once.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap

Params = Mapping[str, Mapping[str, Array]]

_CHUNKS_A_BLOCK = 8
_NHWC = ("NHWC", "HWIO", "NHWC")


class _Layer(NamedTuple):
    kernel: Array
    bias: Array


class _Convolutions(NamedTuple):
    first: _Layer  # kernel [2, 2, 48, 32]
    second: _Layer  # [2, 2, 128, 64]
    third: _Layer  # [3, 3, 64, 64]


class _Saved(NamedTuple):
    """Activations after the ReLUs, of many chunks of c frames; the first layer's, 61% of all, are computed again."""

    second: Array  # [C, c, 9, 9, 64]
    third: Array  # [C, c, 7, 7, 64]


_Residuals = tuple[Params, Array, Array, Array, Array, _Saved]


def encode(params: Params, pool: Array, indices: Array, count: Array | int | None = None, chunk: int = 32) -> Array:
    """Features of frames of a pool, differentiable in `params`.

    Args:
        params: "conv_0", "conv_1", "conv_2" and "dense", each with "kernel" (HWIO, [3136, D]) and "bias"; float32.
        pool: u8[M, 84, 84, 3].
        indices: i32[B], which frames of the pool.
        count: only the first `count` of them matter; may be traced, as it sets how often the loops run. Later rows of
            the result are undefined, their cotangents ignored from the next multiple of `chunk` on. None: all.
        chunk: frames to a step, at most; without `count` such that chunks are even.

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
    return _encode(params, pool, indices.reshape(total, chunk), num_chunks)[:batch]


@jax.custom_vjp
def _encode(params: Params, pool: Array, indices: Array, count: Array) -> Array:
    """Features [C' * c, D] of the first `count` chunks of indices [C, c]; C' is C made a multiple of a block."""
    return _features(params, pool, indices, count)


def _encode_fwd(params: Params, pool: Array, indices: Array, count: Array) -> tuple[Array, _Residuals]:
    features, saved = _features_and_saved(params, pool, indices, count)
    return features, (params, pool, indices, count, features, saved)


def _encode_bwd(residuals: _Residuals, cotangent: Array) -> tuple[Params, None, None, None]:
    return _gradient(*residuals, cotangent), None, None, None


_encode.defvjp(_encode_fwd, _encode_bwd)


# Under vmap (seeds with parameters of their own) one after the other: convolutions batched over kernels become grouped
# ones, which are slow, and a loop with batched trip counts copies its buffers at every step.
@sequential_vmap
def _features(params: Params, pool: Array, indices: Array, count: Array) -> Array:
    return _forward(params, pool, indices, count, save=False)[0]


@sequential_vmap
def _features_and_saved(params: Params, pool: Array, indices: Array, count: Array) -> tuple[Array, _Saved]:
    features, buffers = _forward(params, pool, indices, count, save=True)
    return features, _Saved(*buffers)


def _forward(params: Params, pool: Array, indices: Array, count: Array, save: bool) -> tuple[Array, tuple[Array, ...]]:
    """Features [C' * c, D] and, to save, activations [C', ...] of all chunks; else only the last block's third."""
    convolutions, dense = _layers(params)
    chunks, chunk = indices.shape
    block = min(chunks, _CHUNKS_A_BLOCK)
    blocks = -(-chunks // block)
    # Loops need initialised buffers, and zeros for unused ones are not free: 4 to 20 us a sample.
    kept = blocks * block if save else block
    shapes = ((9, 9, 64), (7, 7, 64)) if save else ((7, 7, 64),)
    buffers = tuple(jnp.zeros((kept, chunk, *shape)) for shape in shapes)

    def one_block(i: Array, state: tuple[tuple[Array, ...], Array]) -> tuple[tuple[Array, ...], Array]:
        buffers, features = state
        start = i * block if save else 0

        def one_chunk(j: Array, buffers: tuple[Array, ...]) -> tuple[Array, ...]:
            new = _later(convolutions, _first(convolutions, pool[indices[i * block + j]]))[-len(buffers) :]
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
    params: Params, pool: Array, indices: Array, count: Array, features: Array, saved: _Saved, cotangent: Array
) -> Params:
    """Gradient in the parameters; features and cotangent [C' * c, D]."""
    (convolutions, dense), to_params = jax.vjp(_layers, params)
    chunks, chunk = indices.shape
    block = min(chunks, _CHUNKS_A_BLOCK)
    processed = jnp.arange(features.shape[0])[:, None] < count * chunk
    cotangent = jnp.where(processed & (features > 0), cotangent, 0)

    def one_block(i: Array, sums: tuple[_Convolutions, _Layer]) -> tuple[_Convolutions, _Layer]:
        gradient = lax.dynamic_slice_in_dim(cotangent, i * block * chunk, block * chunk)
        flat = lax.dynamic_slice_in_dim(saved.third, i * block, block).reshape(block * chunk, -1)
        d_flat = jnp.where(flat > 0, gradient @ dense.kernel.T, 0).reshape(block, chunk, 7, 7, 64)

        def one_chunk(j: Array, sums: _Convolutions) -> _Convolutions:
            k = i * block + j
            new = _convolution_gradients(convolutions, pool[indices[k]], saved.second[k], d_flat[j])
            return jax.tree.map(jnp.add, sums, new)

        new = lax.fori_loop(0, jnp.minimum(block, count - i * block), one_chunk, sums[0])
        return new, _Layer(sums[1].kernel + flat.T @ gradient, sums[1].bias + gradient.sum(0))

    zeros = jax.tree.map(jnp.zeros_like, (convolutions, dense))
    return to_params(lax.fori_loop(0, -(-count // block), one_block, zeros))[0]


def _layers(params: Params) -> tuple[_Convolutions, _Layer]:
    """Kernels for space-to-depth inputs, the first with the pixels' 1/255; linear, its VJP takes gradients back."""
    first, second, third, dense = (_Layer(**params[name]) for name in ("conv_0", "conv_1", "conv_2", "dense"))
    one = first.kernel.reshape(2, 4, 2, 12, 32).transpose(0, 2, 1, 3, 4).reshape(2, 2, 48, 32) / 255
    two = second.kernel.reshape(2, 2, 2, 2, 32, 64).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 128, 64)
    return _Convolutions(_Layer(one, first.bias), _Layer(two, second.bias), third), dense


def _first(layers: _Convolutions, frames: Array) -> Array:
    """Activations [c, 10, 10, 128], space to depth, of frames [c, 84, 84, 3]."""
    pixels = frames.reshape(-1, 21, 4, 21, 12).transpose(0, 1, 3, 2, 4).reshape(-1, 21, 21, 48).astype(jnp.float32)
    first = jax.nn.relu(_conv(pixels, layers.first.kernel) + layers.first.bias)
    return first.reshape(-1, 10, 2, 10, 64).transpose(0, 1, 3, 2, 4).reshape(-1, 10, 10, 128)


def _later(layers: _Convolutions, first: Array) -> tuple[Array, Array]:
    """Activations of the second and the third layer, [c, 9, 9, 64] and [c, 7, 7, 64]."""
    second = jax.nn.relu(_conv(first, layers.second.kernel) + layers.second.bias)
    return second, jax.nn.relu(_conv(second, layers.third.kernel) + layers.third.bias)


def _convolution_gradients(layers: _Convolutions, frames: Array, second: Array, d_third: Array) -> _Convolutions:
    """Gradients of a chunk's convolutions: second [c, 9, 9, 64], and d_third [c, 7, 7, 64] before the third ReLU."""
    chunk = frames.shape[0]
    first = _first(layers, frames)
    # One product, then nine shifted sums: 26 us a sample, and 39 as a padded convolution with its 65% more products.
    spread = (d_third.reshape(-1, 64) @ layers.third.kernel.reshape(576, 64).T).reshape(chunk, 7, 7, 3, 3, 64)
    shifts = [((0, 0), (i, 2 - i), (j, 2 - j), (0, 0)) for i in range(3) for j in range(3)]
    d_second = jnp.where(second > 0, sum(jnp.pad(spread[:, :, :, s[1][0], s[2][0]], s) for s in shifts), 0)
    # This one grows, from 9 to 10, which YNNPACK does not take either.
    kernel = layers.second.kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    d_first = lax.conv_general_dilated(d_second, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_NHWC)
    d_first = jnp.where(first > 0, d_first, 0).reshape(chunk, 10, 10, 2, 2, 32)
    d_first = d_first.transpose(0, 1, 3, 2, 4, 5).reshape(chunk, 20, 20, 32)
    # Transposed in two steps: in one, the first layer's gradient takes 72 us a sample instead of 54.
    pixels = lax.optimization_barrier(frames.reshape(chunk, -1).T.astype(jnp.float32))
    pixels = pixels.reshape(21, 4, 21, 12, chunk).transpose(4, 0, 2, 1, 3).reshape(chunk, 21, 21, 48)
    pairs = (pixels, d_first), (first, d_second), (second, d_third)
    return _Convolutions(*(_layer_gradient(inputs, gradient) for inputs, gradient in pairs))


def _layer_gradient(inputs: Array, gradient: Array) -> _Layer:
    """Kernel and bias gradients: inputs [c, H, W, in], gradient at the outputs [c, h, w, out].

    Without the barrier the compiler transposes element by element: 72 us a sample instead of 52 for the first layer.
    """
    inputs, gradient = lax.optimization_barrier((inputs.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)))
    return _Layer(_conv(inputs, gradient).transpose(1, 2, 0, 3), gradient.sum((0, 1, 2)))


def _conv(inputs: Array, kernel: Array) -> Array:
    """Convolution, stride 1, no padding: inputs NHWC, kernel HWIO.

    Input, kernel and stride are dilated by 2 along W, which cancels out. XLA (jaxlib 0.10) gives 2-D float32
    convolutions to YNNPACK unless the input is dilated: 81 us a sample for the first layer, 37 so, 32 for Eigen alone.
    """
    two, none = (1, 2), ((0, 0), (0, 0))
    return lax.conv_general_dilated(inputs, kernel, two, none, two, two, dimension_numbers=_NHWC)
