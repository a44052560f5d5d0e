"""Observations to D features, and features back to pixels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import orthogonal

from trxl_jax.initializers import HIDDEN_GAIN, orthogonal_dense, torch_bias

# (channels, kernel, stride) of the encoder's convolutions; the decoder mirrors them.
_CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
_LAST_GRID = (7, 7, 64)


class VectorEncoder(nn.Module):
    """One dense layer without activation.

    Fields:
        dim: D.
    """

    dim: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """f32[..., features] to f32[..., D]."""
        return orthogonal_dense(self.dim, obs.shape[-1], HIDDEN_GAIN, name="dense")(obs.astype(jnp.float32))


class PixelEncoder(nn.Module):
    """Three convolutions and a dense layer, each with ReLU (Mnih et al. 2015, with PPO's initialisation).

    Fields:
        dim: D.
    """

    dim: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """u8[..., 84, 84, 3] to f32[..., D]. Features are flattened channel-last; the original's, channel-first."""
        x = obs.reshape(-1, *obs.shape[-3:]).astype(jnp.float32) / 255.0
        for i, (channels, kernel, stride) in enumerate(_CONVOLUTIONS):
            x = nn.relu(
                nn.Conv(
                    channels,
                    (kernel, kernel),
                    stride,
                    padding="VALID",
                    kernel_init=orthogonal(HIDDEN_GAIN),
                    bias_init=torch_bias(x.shape[-1] * kernel * kernel),
                    name=f"conv_{i}",
                )(x)
            )
        x = x.reshape(*obs.shape[:-3], -1)
        return nn.relu(orthogonal_dense(self.dim, x.shape[-1], HIDDEN_GAIN, name="dense")(x))


class PixelDecoder(nn.Module):
    """Mirrors `PixelEncoder` with transposed convolutions.

    PyTorch's initialisation of a transposed convolution is orthogonal over [in, out * h * w] and its bias bound
    1/sqrt(out * h * w); Flax would flatten the kernel [h, w, in, out] around its last axis.
    """

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """f32[..., D] to f32[..., 84, 84, 3]: logits of the pixels' intensities."""
        height, width, channels = _LAST_GRID
        x = features.reshape(-1, features.shape[-1])
        x = nn.relu(orthogonal_dense(height * width * channels, x.shape[-1], HIDDEN_GAIN, name="dense")(x))
        x = x.reshape(-1, height, width, channels)
        outputs = [channels for channels, _, _ in _CONVOLUTIONS[-2::-1]] + [3]
        for i, (out, (_, kernel, stride)) in enumerate(zip(outputs, reversed(_CONVOLUTIONS), strict=True)):
            x = nn.ConvTranspose(
                out,
                (kernel, kernel),
                (stride, stride),
                padding="VALID",
                kernel_init=orthogonal(HIDDEN_GAIN, column_axis=-2),
                bias_init=torch_bias(out * kernel * kernel),
                name=f"deconv_{i}",
            )(x if i == 0 else nn.relu(x))
        return x.reshape(*features.shape[:-1], *x.shape[1:])
