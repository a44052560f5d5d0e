"""Features back to pictures."""

import flax.linen as nn
import jax

from trxl_jax.agent.cpu import pixel_decoder
from trxl_jax.agent.encoders import CONVOLUTIONS, LAST_GRID
from trxl_jax.agent.initializers import HIDDEN_GAIN, orthogonal, orthogonal_dense, torch_bias
from trxl_jax.agent.numerics import Numerics


class PixelDecoder(nn.Module):
    """Mirrors `PixelEncoder` with transposed convolutions.

    PyTorch's initialisation of a transposed convolution is orthogonal over [in, out * h * w] and its bias bound
    1/sqrt(out * h * w); Flax would flatten the kernel [h, w, in, out] around its last axis.

    Fields:
        numerics: platform and precision.
    """

    numerics: Numerics

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """f32[..., D] to f32[..., 84, 84, 3]: logits of the pixels' intensities."""
        height, width, channels = LAST_GRID
        x = features.reshape(-1, features.shape[-1])
        dense = orthogonal_dense(height * width * channels, x.shape[-1], HIDDEN_GAIN, self.numerics, name="dense")
        x = nn.relu(dense(x))
        x = x.reshape(-1, height, width, channels)
        outputs = [channels for channels, _, _ in CONVOLUTIONS[-2::-1]] + [3]
        for i, (out, (_, kernel, stride)) in enumerate(zip(outputs, reversed(CONVOLUTIONS), strict=True)):
            x = nn.ConvTranspose(
                out,
                (kernel, kernel),
                (stride, stride),
                padding="VALID",
                dtype=self.numerics.dtype,
                promote_dtype=self.numerics.cast_factors,
                kernel_init=orthogonal(HIDDEN_GAIN, column_axis=-2),
                bias_init=torch_bias(out * kernel * kernel),
                name=f"deconv_{i}",
            )(x if i == 0 else nn.relu(x))
        return x.reshape(*features.shape[:-1], *x.shape[1:])

    def reconstruction_loss_at(self, features: jax.Array, frames: jax.Array, indices: jax.Array) -> jax.Array:
        """`reconstruction_loss` of the logits of `features` and `frames[indices]`, for float32 on a CPU only; f32[].

        Args:
            features: f32[B, D].
            frames: u8[M, 84, 84, 3].
            indices: i32[B].
        """
        return pixel_decoder.reconstruction_loss(self.variables["params"], features, frames, indices)
