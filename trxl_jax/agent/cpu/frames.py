"""Frames that repeat, so that each distinct one is encoded once.

Of a rollout's frames few may be distinct: 282 of 16,384 in MortarMayhem-Grid, 56 of 4,096 in MiniGrid-MemoryS9
(random policy, published sizes). The encoder is a function of the frame alone. Hashes find candidates and the frames
themselves decide, so that a collision costs an encoding and can't lie.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

_NONE = np.int32(2**31 - 1)


@struct.dataclass
class FrameTable:
    """The frames of a rollout and their features, filled step by step. A frame's place is t * N + n.

    Fields:
        obs: u8[T * N, 84, 84, 3].
        hashes: u32[T * N].
        first: i32[T * N], the place of the first equal frame.
        features: f32[T * N, D].
    """

    obs: jax.Array
    hashes: jax.Array
    first: jax.Array
    features: jax.Array


class Distinct(NamedTuple):
    """A selection of places without its repeats.

    Fields:
        places: i32[B]; the first `num_distinct` are the distinct ones.
        inverse: i32[B], for each selected place its row in `places`.
        num_distinct: i32[].
    """

    places: jax.Array
    inverse: jax.Array
    num_distinct: jax.Array


def empty_table(places: int, obs: jax.Array, dim: int) -> FrameTable:
    """Room for T * N = `places` observations like those of `obs`, u8[N, 84, 84, 3], and their D features."""
    return FrameTable(
        obs=jnp.zeros((places, *obs.shape[1:]), obs.dtype),
        hashes=jnp.zeros(places, jnp.uint32),
        first=jnp.full(places, _NONE),
        features=jnp.zeros((places, dim), jnp.float32),
    )


def hash_frames(frames: jax.Array) -> jax.Array:
    """u8[B, ...] to u32[B]: sums of bytes times fixed random odd numbers, modulo 2^32.

    A single changed byte always changes it. As a product it takes 0.15 ms for 32 frames; mixing words took 0.8.
    """
    flat = frames.reshape(frames.shape[0], -1).astype(jnp.uint32)
    factors = np.random.default_rng(0).integers(0, 2**32, flat.shape[1], np.uint32) | np.uint32(1)
    return flat @ factors


def add_step(
    table: FrameTable, start: jax.Array, obs: jax.Array, encode: Callable[[jax.Array, jax.Array], jax.Array]
) -> tuple[FrameTable, jax.Array]:
    """Adds observations of a step; encodes those that the table doesn't hold yet.

    Args:
        table: filled up to place `start`.
        start: i32[], the first one's place.
        obs: u8[n, 84, 84, 3], of all environments or of some that are neighbours.
        encode: frames u8[n, ...] and how many of them matter, i32[], to features f32[n, D].

    Returns:
        The table, and the observations' features f32[n, D].
    """
    n = obs.shape[0]
    own = jnp.arange(n, dtype=jnp.int32)
    hashes = jax.lax.dynamic_update_slice_in_dim(table.hashes, hash_frames(obs), start, axis=0)
    stored = jax.lax.dynamic_update_slice_in_dim(table.obs, obs, start, axis=0)
    places = jnp.arange(len(hashes), dtype=jnp.int32)
    new_hashes = jax.lax.dynamic_slice_in_dim(hashes, start, n)
    matches = (new_hashes[:, None] == hashes) & (places < start + n)
    first = jnp.where(matches, places, _NONE).min(axis=1)
    equal = (stored[first] == obs).all(axis=(1, 2, 3))
    first = jnp.where(equal, first, start + own)

    is_new = first == start + own

    def encode_new() -> jax.Array:
        order = jnp.argsort(~is_new, stable=True)
        encoded = encode(obs[order], is_new.sum())[jnp.argsort(order)]
        features = jnp.where(is_new[:, None], encoded, table.features[first])
        # A repeat within this step has its features from the row beside it.
        return features[jnp.where(first >= start, first - start, own)]

    # Most steps have nothing new. A condition around the encoder, because XLA moves the body of a loop that runs once
    # or never out of it: 1.6 ms a step with 16 environments.
    features = jax.lax.cond(is_new.any(), encode_new, lambda: table.features[first])
    table = FrameTable(
        obs=stored,
        hashes=hashes,
        first=jax.lax.dynamic_update_slice_in_dim(table.first, first, start, axis=0),
        features=jax.lax.dynamic_update_slice_in_dim(table.features, features, start, axis=0),
    )
    return table, features


def distinct(places: jax.Array) -> Distinct:
    """Drops repeats of i32[B]."""
    unique, inverse = jnp.unique(places, return_inverse=True, size=places.size, fill_value=0)
    return Distinct(places=unique, inverse=inverse, num_distinct=inverse.max() + 1)
