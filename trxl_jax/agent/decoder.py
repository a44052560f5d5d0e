"""Features back to pictures."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import orthogonal
from jax.typing import DTypeLike

from trxl_jax.agent.encoders import CONVOLUTIONS, LAST_GRID
from trxl_jax.agent.initializers import HIDDEN_GAIN, cast_factors, orthogonal_dense, torch_bias


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
        height, width, channels = LAST_GRID
        x = features.reshape(-1, features.shape[-1])
        dense = orthogonal_dense(height * width * channels, x.shape[-1], HIDDEN_GAIN, dtype=self.dtype, name="dense")
        x = nn.relu(dense(x))
        x = x.reshape(-1, height, width, channels)
        outputs = [channels for channels, _, _ in CONVOLUTIONS[-2::-1]] + [3]
        for i, (out, (_, kernel, stride)) in enumerate(zip(outputs, reversed(CONVOLUTIONS), strict=True)):
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
