"""Observations to D features."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import orthogonal
from jax.typing import DTypeLike

from trxl_jax.agent.cpu import pixel_encoder as pixel_encoder_cpu
from trxl_jax.agent.initializers import HIDDEN_GAIN, cast_factors, orthogonal_dense, torch_bias

# (channels, kernel, stride) of the encoder's convolutions; the decoder mirrors them.
CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
LAST_GRID = (7, 7, 64)
_FRAMES_A_CHUNK = 32


class VectorEncoder(nn.Module):
    """One dense layer without activation, in float32: observations come in any scale, and there are few of them.

    Fields:
        dim: D.
    """

    dim: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """f32[..., features] to f32[..., D]."""
        return orthogonal_dense(self.dim, obs.shape[-1], HIDDEN_GAIN, name="dense")(obs.astype(jnp.float32))


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
        platform: what it is compiled for: cpu, gpu or tpu. The CPU has a formulation of its own, in float32.
        dtype: of the factors of products; results are float32.
    """

    dim: int
    platform: str
    dtype: DTypeLike = jnp.float32

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
        features = self.pick(frames, jnp.arange(frames.shape[0])) if self.platform == "cpu" else self._convolve(frames)
        return features.reshape(*obs.shape[:-3], self.dim)

    def pick(
        self, pool: jax.Array, places: jax.Array, count: jax.Array | None = None, chunk: int = _FRAMES_A_CHUNK
    ) -> jax.Array:
        """The CPU's formulation: features f32[B, D] of the frames at i32[B] `places` of a pool u8[M, 84, 84, 3].

        Args:
            pool: frames.
            places: which of them.
            count: only the first so many rows matter, i32[]; others are undefined, and no work is done for them.
            chunk: frames taken at a time.
        """
        weights = {name: layer() for name, layer in self.layers.items()}
        return pixel_encoder_cpu.encode(weights, pool, places, count, chunk)

    def _convolve(self, frames: jax.Array) -> jax.Array:
        """u8[B, 84, 84, 3] to f32[B, D]."""
        x = frames.astype(jnp.float32) / 255.0
        for i, (_, _, stride) in enumerate(CONVOLUTIONS):
            x, kernel, bias = cast_factors(x, **self.layers[f"conv_{i}"](), dtype=self.dtype)
            x = jax.lax.conv_general_dilated(
                x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = nn.relu(x + bias)
        x, kernel, bias = cast_factors(x.reshape(x.shape[0], -1), **self.layers["dense"](), dtype=self.dtype)
        return nn.relu(x @ kernel + bias)
