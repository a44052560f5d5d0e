"""Observations to D features."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from trxl_jax.agent.cpu import pixel_encoder
from trxl_jax.agent.initializers import HIDDEN_GAIN, orthogonal, orthogonal_dense, torch_bias
from trxl_jax.agent.numerics import Numerics

# (channels, kernel, stride) of the encoder's convolutions; the decoder mirrors them.
CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
LAST_GRID = (7, 7, 64)
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
        numerics: platform and precision. In float32 on a CPU `cpu/pixel_encoder.py` does the work.
    """

    dim: int
    numerics: Numerics

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        channels = 3
        layers = {}
        for i, (out, kernel, _) in enumerate(CONVOLUTIONS):
            layers[f"conv_{i}"] = _Weights((kernel, kernel, channels, out), name=f"conv_{i}")
            channels = out
        self.layers = layers | {"dense": _Weights((math.prod(LAST_GRID), self.dim), name="dense")}

    def __call__(self, obs: jax.Array) -> jax.Array:
        """u8[..., 84, 84, 3] to f32[..., D]. Features are flattened channel-last; the original's, channel-first."""
        frames = obs.reshape(-1, *obs.shape[-3:])
        if self.numerics.cpu_float32:
            features = self.encode_at(frames, jnp.arange(frames.shape[0]))
        else:
            features = self._convolve(frames)
        return features.reshape(*obs.shape[:-3], self.dim)

    def encode_at(
        self, frames: jax.Array, indices: jax.Array, count: jax.Array | None = None, chunk: int = _FRAMES_A_CHUNK
    ) -> jax.Array:
        """Features f32[B, D] of `frames[indices]`, for float32 on a CPU only.

        Args:
            frames: u8[M, 84, 84, 3].
            indices: i32[B].
            count: i32[], only the first so many rows matter; others are undefined, and no work is done for them.
            chunk: frames encoded at a time.
        """
        weights = {name: layer() for name, layer in self.layers.items()}
        return pixel_encoder.encode(weights, frames, indices, count, chunk)

    def _convolve(self, frames: jax.Array) -> jax.Array:
        """u8[B, 84, 84, 3] to f32[B, D]."""
        x = frames.astype(jnp.float32) / 255.0
        for i, (_, _, stride) in enumerate(CONVOLUTIONS):
            x, kernel, bias = self.numerics.cast_factors(x, **self.layers[f"conv_{i}"]())
            x = jax.lax.conv_general_dilated(
                x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = nn.relu(x + bias)
        x, kernel, bias = self.numerics.cast_factors(x.reshape(x.shape[0], -1), **self.layers["dense"]())
        return nn.relu(x @ kernel + bias)
