"""The pixel encoder for GPUs and TPUs.

- Bytes go into the first convolution as they are, which is exact in every precision; its kernel is divided by 255.
- A convolution with stride s on pictures is one with stride 1 on blocks of s x s pixels, which have s * s times the
  channels: 48 instead of 3 for the first layer. Matrix units want many channels, and libraries pad to 4 or 8.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from trxl_jax.agent.accelerator.activations import bias_relu, bias_rows

_NHWC = ("NHWC", "HWIO", "NHWC")


@struct.dataclass
class FoldedEncoder:
    """Weights as the convolutions take them, kernels in the products' dtype.

    Fields:
        kernels: of each convolution [m, m, in, out], the first for blocks of pixels; of the dense layer [in, D].
        biases: of each, from `bias_rows`.
    """

    kernels: list[jax.Array]
    biases: list[jax.Array]

    def for_acting(self) -> "FoldedEncoder":
        """Without what only gradients need."""
        return FoldedEncoder(self.kernels, [rows[:1] for rows in self.biases])


def fold(weights: Sequence[Mapping[str, jax.Array]], stride: int, white: float, dtype: DTypeLike) -> FoldedEncoder:
    """Prepares "kernel" and "bias" of each layer, f32.

    Args:
        weights: of the convolutions, kernels [m, m, in, out], and of the dense layer [in, D].
        stride: of the first convolution, if it is to be done on blocks of pixels; or 1.
        white: what pictures are divided by.
        dtype: of the products' factors.
    """
    kernels = [layer["kernel"] for layer in weights]
    size, _, channels, out = kernels[0].shape
    if size % stride == 0:
        kernels[0] = to_blocks(kernels[0].transpose(3, 0, 1, 2), stride).transpose(1, 2, 3, 0)
        assert kernels[0].shape == (size // stride, size // stride, stride * stride * channels, out)
    kernels[0] = kernels[0] / white
    return FoldedEncoder([kernel.astype(dtype) for kernel in kernels], bias_rows([layer["bias"] for layer in weights]))


def encode(folded: FoldedEncoder, pictures: jax.Array, strides: Sequence[int], padding: str) -> jax.Array:
    """Pictures u8 or f32 [B, H, W, C] to features f32[B, D].

    Args:
        folded: the weights.
        pictures: not scaled.
        strides: of each convolution.
        padding: VALID or SAME.
    """
    dtype = folded.kernels[0].dtype
    x, strides = pictures, list(strides)
    if folded.kernels[0].shape[2] != pictures.shape[-1]:
        x, strides[0] = to_blocks(pictures, strides[0]), 1
    *convolutions, dense = zip(folded.kernels, folded.biases, strict=True)
    for (kernel, bias), stride in zip(convolutions, strides, strict=True):
        x = jax.lax.conv_general_dilated(x.astype(dtype), kernel, (stride, stride), padding, dimension_numbers=_NHWC)
        x = bias_relu(x, bias)
    kernel, bias = dense
    return bias_relu((x.reshape(x.shape[0], -1) @ kernel).astype(jnp.float32), bias)


def to_blocks(pictures: jax.Array, stride: int) -> jax.Array:
    """[B, H, W, C] to [B, H / s, W / s, s * s * C]; rows and columns that fill no block are cut off."""
    batch, height, width, channels = pictures.shape
    rows, columns = height // stride, width // stride
    cut = pictures[:, : rows * stride, : columns * stride]
    blocks = cut.reshape(batch, rows, stride, columns, stride * channels).swapaxes(2, 3)
    return blocks.reshape(batch, rows, columns, stride * stride * channels)
