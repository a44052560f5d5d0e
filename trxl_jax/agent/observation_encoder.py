"""Observations of any space to D features: an encoder for each array, and a layer that joins several."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.agent.encoders import PixelEncoder, VectorEncoder
from trxl_jax.agent.initializers import HIDDEN_GAIN, orthogonal_dense
from trxl_jax.agent.numerics import Numerics
from trxl_jax.envs.observations import ArraySpace, DictSpace, ObservationSpace


def flat_features(space: ArraySpace, array: jax.Array) -> jax.Array:
    """Numbers [..., *shape] as a vector f32[..., features]; choices as one-hot vectors, one after the other."""
    flat = array.reshape(*array.shape[: array.ndim - len(space.shape)], space.size)
    if space.kind != "choices":
        return flat.astype(jnp.float32)
    # Column c is 1 if element `of[c]` is choice `number[c]`.
    of = np.repeat(np.arange(space.size), space.nvec)
    number = np.concatenate([np.arange(n) for n in space.nvec])
    return (flat[..., of] == number).astype(jnp.float32)


def make_array_encoder(space: ArraySpace, dim: int, numerics: Numerics) -> PixelEncoder | VectorEncoder:
    """The encoder of one array: convolutions for pictures, one dense layer for everything else."""
    return PixelEncoder(dim, numerics, space.shape) if space.kind == "picture" else VectorEncoder(dim, numerics)


class DictEncoder(nn.Module):
    """An encoder for each array of a dict. The features of several are concatenated and mapped to D.

    Fields:
        space: of the dict.
        dim: D.
        numerics: platform and precision.
    """

    space: DictSpace
    dim: int
    numerics: Numerics

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        encoded = {name: array for name, array in self.space.arrays.items() if array.kind != "mask"}
        self.parts = {name: make_array_encoder(array, self.dim, self.numerics) for name, array in encoded.items()}
        if len(encoded) > 1:
            width = len(encoded) * self.dim
            self.joint = orthogonal_dense(self.dim, width, HIDDEN_GAIN, self.numerics, name="joint")

    def join(self, parts: dict[str, jax.Array]) -> jax.Array:
        """Features f32[..., D] of each array, by name, to those of the whole observation, f32[..., D]."""
        features = [parts[name] for name in self.parts]
        return features[0] if len(features) == 1 else self.joint(jnp.concatenate(features, axis=-1))


def make_encoder(space: ObservationSpace, dim: int, numerics: Numerics) -> nn.Module:
    """The encoder of an observation: of a single array, or a `DictEncoder`."""
    if isinstance(space, DictSpace):
        return DictEncoder(space, dim, numerics)
    return make_array_encoder(space, dim, numerics)
