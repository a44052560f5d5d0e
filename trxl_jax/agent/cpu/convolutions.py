"""What pixel encoder and decoder share: a pool of pictures, space to depth, and convolutions as XLA runs them fast."""

from collections.abc import Mapping
from typing import NamedTuple

from flax import struct
from jax import Array, lax

Params = Mapping[str, Mapping[str, Array]]

NHWC = ("NHWC", "HWIO", "NHWC")


class Layer(NamedTuple):
    """A convolution's or dense layer's parameters.

    Fields:
        kernel: f32[m, m, in, out] or f32[in, out].
        bias: f32[out].
    """

    kernel: Array
    bias: Array


@struct.dataclass
class Pool:
    """Pictures of which some are used.

    Fields:
        pictures: u8 or f32 [M, H, W, C], or [M, C, H, W] where channels come first.
        channels_first: whether they do. Axes are turned where pictures are used: turning all would cost more.
    """

    pictures: Array
    channels_first: bool = struct.field(pytree_node=False)

    def take(self, indices: Array) -> Array:
        """Pictures [..., H, W, C] at i32[...]."""
        taken = self.pictures[indices]
        axes = range(indices.ndim)
        return taken.transpose(*axes, -2, -1, -3) if self.channels_first else taken

    @property
    def white(self) -> int:
        """What pictures are divided by: bytes by 255, floats by 1."""
        return 255 if self.pictures.dtype == "uint8" else 1


def to_depth(images: Array, stride: int) -> Array:
    """[..., h * stride, w * stride, C] to [..., h, w, stride**2 * C]."""
    *batch, height, width, channels = images.shape
    height, width = height // stride, width // stride
    blocks = images.reshape(*batch, height, stride, width, stride * channels).swapaxes(-3, -2)
    return blocks.reshape(*batch, height, width, -1)


def from_depth(images: Array, stride: int) -> Array:
    """Inverse of `to_depth`."""
    *batch, height, width, channels = images.shape
    rows = images.reshape(*batch, height, width, stride, channels // stride).swapaxes(-3, -2)
    return rows.reshape(*batch, height * stride, width * stride, -1)


def conv(inputs: Array, kernel: Array, padding: int = 0) -> Array:
    """Convolution, stride 1, of inputs [B, h, w, in] with zeros around, and a kernel [i, j, in, out].

    Input, kernel and stride are dilated by 2 along W, which cancels out. XLA (jaxlib 0.10) gives 2-D float32
    convolutions to YNNPACK unless the input is dilated: 81 us a sample for the encoder's first layer, 37 so, 32 for
    Eigen alone.
    """
    two, zeros = (1, 2), ((padding, padding), (2 * padding, 2 * padding))
    return lax.conv_general_dilated(inputs, kernel, two, zeros, two, two, dimension_numbers=NHWC)
