"""Observations to D features, and features back to pixels."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import orthogonal
from jax.typing import DTypeLike

from trxl_jax import pixel_encoder_cpu
from trxl_jax.initializers import HIDDEN_GAIN, cast_factors, orthogonal_dense, torch_bias

# (channels, kernel, stride) of the encoder's convolutions; the decoder mirrors them.
_CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
_LAST_GRID = (7, 7, 64)
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
        for i, (out, kernel, _) in enumerate(_CONVOLUTIONS):
            layers[f"conv_{i}"] = _Weights((kernel, kernel, channels, out), name=f"conv_{i}")
            channels = out
        self.layers = layers | {"dense": _Weights((math.prod(_LAST_GRID), self.dim), name="dense")}

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
        for i, (_, _, stride) in enumerate(_CONVOLUTIONS):
            x, kernel, bias = cast_factors(x, **self.layers[f"conv_{i}"](), dtype=self.dtype)
            x = jax.lax.conv_general_dilated(
                x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = nn.relu(x + bias)
        x, kernel, bias = cast_factors(x.reshape(x.shape[0], -1), **self.layers["dense"](), dtype=self.dtype)
        return nn.relu(x @ kernel + bias)


class PixelDecoder(nn.Module):
    """Mirrors `PixelEncoder` with transposed convolutions.

    PyTorch's initialisation of a transposed convolution is orthogonal over [in, out * h * w] and its bias bound
    1/sqrt(out * h * w); Flax would flatten the kernel [h, w, in, out] around its last axis.

    Fields:
        dtype: of the factors of products; results are float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """f32[..., D] to f32[..., 84, 84, 3]: logits of the pixels' intensities."""
        height, width, channels = _LAST_GRID
        x = features.reshape(-1, features.shape[-1])
        dense = orthogonal_dense(height * width * channels, x.shape[-1], HIDDEN_GAIN, dtype=self.dtype, name="dense")
        x = nn.relu(dense(x))
        x = x.reshape(-1, height, width, channels)
        outputs = [channels for channels, _, _ in _CONVOLUTIONS[-2::-1]] + [3]
        for i, (out, (_, kernel, stride)) in enumerate(zip(outputs, reversed(_CONVOLUTIONS), strict=True)):
            x = nn.ConvTranspose(
                out,
                (kernel, kernel),
                (stride, stride),
                padding="VALID",
                dtype=self.dtype,
                promote_dtype=cast_factors,
                kernel_init=orthogonal(HIDDEN_GAIN, column_axis=-2),
                bias_init=torch_bias(out * kernel * kernel),
                name=f"deconv_{i}",
            )(x if i == 0 else nn.relu(x))
        return x.reshape(*features.shape[:-1], *x.shape[1:])
