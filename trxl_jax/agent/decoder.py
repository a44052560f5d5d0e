"""Features back to pictures."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.agent.cpu import pixel_decoder
from trxl_jax.agent.encoders import SMALLEST_LARGE, as_picture, convolutions, has_channels_first, picture_shape
from trxl_jax.agent.initializers import HIDDEN_GAIN, orthogonal, orthogonal_dense, torch_bias
from trxl_jax.agent.numerics import Numerics
from trxl_jax.config import Config
from trxl_jax.envs.observations import ObservationSpace
from trxl_jax.errors import ConfigError

_STEP = 8  # of sizes: the product of the convolutions' strides


def require_reconstructable(config: Config, space: ObservationSpace) -> None:
    """Checks that `PixelDecoder` can reconstruct the pictures of observations.

    Transposed convolutions with strides give 36 pixels, 44, 52, ... (those that the encoder's strides reach to the
    last). Those of small pictures give every size.

    Args:
        config: for the message.
        space: of the observations. Intensities must lie between 0 and 1, which is known of uint8 only.

    Raises:
        ConfigError: it can't; the line names sizes near by.
    """
    flag = f"--reconstruction_coef {config.reconstruction_coef}: {config.env_id}"
    pictures = [array for array in space.arrays.values() if array.kind == "picture"]
    if not pictures:
        raise ConfigError(f"{flag} has no pixels; set it to 0")
    for picture in pictures:
        _require_mirrored(flag, picture.shape, picture.dtype)


def _require_mirrored(flag: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    height, width, _ = picture_shape(shape)
    if dtype != np.uint8:
        raise ConfigError(f"{flag} has pictures of {dtype}, and only uint8 is reconstructed; set it to 0")
    if convolutions(shape).padding == "VALID" and any((n - SMALLEST_LARGE) % _STEP for n in (height, width)):
        below = (n - (n - SMALLEST_LARGE) % _STEP for n in (height, width))
        above = (n + (SMALLEST_LARGE - n) % _STEP for n in (height, width))
        near = " or ".join("x".join(map(str, sides)) for sides in (below, above))
        raise ConfigError(
            f"{flag} has pictures of {height}x{width} pixels, and its decoder gives sizes 36, 44, 52, ...; "
            f"resize them to {near} (Gymnasium's ResizeObservation does), or set it to 0"
        )


class PixelDecoder(nn.Module):
    """Mirrors `PixelEncoder` with transposed convolutions.

    PyTorch's initialisation of a transposed convolution is orthogonal over [in, out * h * w] and its bias bound
    1/sqrt(out * h * w); Flax would flatten the kernel [h, w, in, out] around its last axis.

    Fields:
        numerics: platform and precision.
        shape: of one picture, as in `PixelEncoder`; `require_reconstructable` says which can be mirrored.
    """

    numerics: Numerics
    shape: tuple[int, ...] = (84, 84, 3)

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """f32[..., D] to f32[..., *shape]: logits of the pixels' intensities."""
        form = convolutions(self.shape)
        x = features.reshape(-1, features.shape[-1])
        x = nn.relu(orthogonal_dense(math.prod(form.grid), x.shape[-1], HIDDEN_GAIN, self.numerics, name="dense")(x))
        x = x.reshape(-1, *form.grid)
        outputs = [channels for channels, _, _ in form.layers[-2::-1]] + [picture_shape(self.shape)[2]]
        for i, (out, (_, kernel, stride)) in enumerate(zip(outputs, reversed(form.layers), strict=True)):
            x = nn.ConvTranspose(
                out,
                (kernel, kernel),
                (stride, stride),
                padding=form.padding,
                dtype=self.numerics.dtype,
                promote_dtype=self.numerics.cast_factors,
                kernel_init=orthogonal(HIDDEN_GAIN, column_axis=-2),
                bias_init=torch_bias(out * kernel * kernel),
                name=f"deconv_{i}",
            )(x if i == 0 else nn.relu(x))
        if has_channels_first(self.shape):
            x = jnp.moveaxis(x, -1, -3)
        return x.reshape(*features.shape[:-1], *self.shape)

    def reconstruction_loss_at(self, features: jax.Array, frames: jax.Array, indices: jax.Array) -> jax.Array:
        """`reconstruction_loss` of the logits of `features` and `frames[indices]`, for float32 on a CPU only; f32[].

        Args:
            features: f32[B, D].
            frames: u8[M, *shape].
            indices: i32[B].
        """
        channels_first = has_channels_first(self.shape)
        pictures = frames if channels_first else as_picture(frames, self.shape)
        return pixel_decoder.reconstruction_loss(self.variables["params"], features, pictures, indices, channels_first)
