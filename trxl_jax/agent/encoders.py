"""Observations to D features."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from trxl_jax.agent.accelerator import pixel_encoder as folded_encoder
from trxl_jax.agent.accelerator.folding import folded
from trxl_jax.agent.cpu import pixel_encoder
from trxl_jax.agent.initializers import HIDDEN_GAIN, orthogonal, orthogonal_dense, torch_bias
from trxl_jax.agent.numerics import Numerics

SMALLEST_LARGE = 36
"""Height and width, in pixels, from which on the convolutions are those with strides: fewer would leave nothing."""

_LARGE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
_SMALL = ((32, 3, 1), (64, 3, 1), (64, 3, 1))
_FRAMES_A_CHUNK = 32


class VectorEncoder(nn.Module):
    """One dense layer without activation, in float32: observations may have any scale, and there are few of them.

    Fields:
        dim: D.
        numerics: the platform; factors are float32.
    """

    dim: int
    numerics: Numerics

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """[..., features] to f32[..., D]."""
        layer = orthogonal_dense(self.dim, obs.shape[-1], HIDDEN_GAIN, self.numerics.full_precision, name="dense")
        return layer(obs.astype(jnp.float32))


def has_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether a picture of this shape is [C, H, W]: at most 4 channels, more than 4 columns, and H different from C.

    3x3x20, a view of three by three cells with 20 kinds of things, is [H, W, C].
    """
    return len(shape) == 3 and shape[0] <= 4 < shape[2] and shape[0] != shape[1]


def picture_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """H, W and C of pictures [H, W], [H, W, C] or [C, H, W]."""
    if len(shape) == 2:
        return (*shape, 1)
    first, second, third = shape
    return (second, third, first) if has_channels_first(shape) else (first, second, third)


def as_picture(obs: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Pictures [..., *shape] as [..., H, W, C]."""
    if has_channels_first(shape):
        return jnp.moveaxis(obs, -3, -1)
    return obs.reshape(*obs.shape[: obs.ndim - len(shape)], *picture_shape(shape))


class Convolutions(NamedTuple):
    """The convolutions that encode a picture; the decoder mirrors them.

    Fields:
        layers: (channels, kernel, stride) of each.
        padding: VALID: none; SAME: zeros around, so that sizes stay.
        grid: height, width and channels of what the last one gives.
    """

    layers: tuple[tuple[int, int, int], ...]
    padding: str
    grid: tuple[int, int, int]


def convolutions(shape: tuple[int, ...]) -> Convolutions:
    """Those for pictures of a shape.

    From 36 pixels on, in height and width, those of Mnih et al. (2015), with 7x7 left of 84x84; smaller pictures have
    three of 3x3 with stride 1 and zeros around, so that every size has a result, a single row too.
    """
    height, width, _ = picture_shape(shape)
    if min(height, width) < SMALLEST_LARGE:
        return Convolutions(_SMALL, "SAME", (height, width, _SMALL[-1][0]))
    for _, kernel, stride in _LARGE:
        height, width = ((size - kernel) // stride + 1 for size in (height, width))
    return Convolutions(_LARGE, "VALID", (height, width, _LARGE[-1][0]))


class _Weights(nn.Module):
    """Kernel and bias of a layer, for functions that apply them their own way."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        kernel = self.param("kernel", orthogonal(HIDDEN_GAIN), self.shape)
        bias = self.param("bias", torch_bias(math.prod(self.shape[:-1])), self.shape[-1:])
        return {"kernel": kernel, "bias": bias}


class PixelEncoder(nn.Module):
    """Three convolutions and a dense layer, each with ReLU (Mnih et al. 2015, with PPO's initialisation).

    Fields:
        dim: D.
        numerics: platform and precision. In float32 on a CPU `cpu/pixel_encoder.py` does the work, otherwise
            `accelerator/pixel_encoder.py`.
        shape: of one picture, (H, W), (H, W, C) or (C, H, W); see `has_channels_first`.
    """

    dim: int
    numerics: Numerics
    shape: tuple[int, ...] = (84, 84, 3)

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        *_, channels = picture_shape(self.shape)
        form = convolutions(self.shape)
        layers = {}
        for i, (out, kernel, _) in enumerate(form.layers):
            layers[f"conv_{i}"] = _Weights((kernel, kernel, channels, out), name=f"conv_{i}")
            channels = out
        self.layers = layers | {"dense": _Weights((math.prod(form.grid), self.dim), name="dense")}

    def __call__(self, obs: jax.Array) -> jax.Array:
        """Pictures u8 (divided by 255) or f32 (as they are) [..., *shape] to f32[..., D].

        Features are flattened channel-last; the original's, channel-first.
        """
        frames = obs.reshape(-1, *self.shape)
        if self.numerics.cpu_float32:
            features = self.encode_at(frames, jnp.arange(frames.shape[0]))
        else:
            form, is_bytes = convolutions(self.shape), obs.dtype == jnp.uint8
            weights = folded(self) if is_bytes else self._fold_for(1.0)
            strides = [stride for _, _, stride in form.layers]
            features = folded_encoder.encode(weights, as_picture(frames, self.shape), strides, form.padding)
        return features.reshape(*obs.shape[: obs.ndim - len(self.shape)], self.dim)

    def encode_at(
        self, frames: jax.Array, indices: jax.Array, count: jax.Array | None = None, chunk: int = _FRAMES_A_CHUNK
    ) -> jax.Array:
        """Features f32[B, D] of `frames[indices]`, for float32 on a CPU only; not differentiable in `frames`.

        Args:
            frames: u8 or f32 [M, *shape].
            indices: i32[B].
            count: i32[], only the first so many rows matter; others are undefined, and no work is done for them.
            chunk: frames encoded at a time.
        """
        weights = {name: layer() for name, layer in self.layers.items()}
        channels_first = has_channels_first(self.shape)
        pictures = frames if channels_first else as_picture(frames, self.shape)
        return pixel_encoder.encode(weights, pictures, indices, count, chunk, channels_first)

    def fold(self) -> folded_encoder.FoldedEncoder | None:
        """Weights for pictures of bytes, where `accelerator/pixel_encoder.py` does the work; see `folding`."""
        return None if self.numerics.cpu_float32 else self._fold_for(255.0)

    def _fold_for(self, white: float) -> folded_encoder.FoldedEncoder:
        # Blocks of pixels fit GPUs' libraries; a TPU's compiler makes its own, and its layouts pad channels to 128.
        stride = convolutions(self.shape).layers[0][2] if self.numerics.platform == "gpu" else 1
        weights = [layer() for layer in self.layers.values()]
        return folded_encoder.fold(weights, stride, white, self.numerics.dtype)
