"""Relative positions (Dai et al. 2019, section 3.3): a term of the energy that depends on query, head and distance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from trxl_jax.agent.cores.distances import at_distance, sines
from trxl_jax.agent.cores.visibility import Visibility
from trxl_jax.agent.initializers import torch_default_by_head
from trxl_jax.agent.numerics import Numerics


class RelativeWeights(NamedTuple):
    """Parameters of an attention with relative positions.

    Fields:
        positions: f32[D, H, d], from the sines of a distance to its key for each head.
        content_bias: f32[H, d], added to the query that meets keys (u in the paper).
        position_bias: f32[H, d], added to the query that meets distances (v in the paper).
    """

    positions: jax.Array
    content_bias: jax.Array
    position_bias: jax.Array

    @classmethod
    def init(cls, param: Callable[..., Any], dim: int, num_heads: int) -> "RelativeWeights":
        """They, of the module whose `param` is given; D is even."""
        by_head = (dim, num_heads, dim // num_heads)
        return cls(
            param("positions", torch_default_by_head, by_head),
            param("content_bias", nn.initializers.zeros, by_head[1:]),
            param("position_bias", nn.initializers.zeros, by_head[1:]),
        )


def position_energies(
    query: jax.Array, weights: RelativeWeights, seen: Visibility, window: int, scale: float, numerics: Numerics
) -> list[jax.Array]:
    """Of queries f32[N, Q, H, d], which have been multiplied by `scale`, and the distances of what they see.

    Returns:
        f32[N, H, Q, S] for the slots and, if `seen` has steps of the queries' segments, f32[N, H, Q, G] for them; at
        distances of W = `window` and more, and where nothing is visible, they mean nothing.
    """
    query = query + weights.position_bias * scale
    dim, num_heads, _ = weights.positions.shape
    keys = numerics.product(sines(jnp.arange(window), dim), weights.positions.reshape(dim, dim))
    keys = keys.reshape(window, num_heads, -1)
    by_distance = jnp.einsum("nqhd,whd->nhqw", query.astype(keys.dtype), keys, preferred_element_type=jnp.float32)
    return [at_distance(by_distance, distance) for distance in _distances(seen)]


def _distances(seen: Visibility) -> list[jax.Array]:
    """Steps between queries and slots, i32[N, Q, S], and queries and their segments' steps, i32[N, Q, G]."""
    position = seen.query_position
    found = [position[..., None] - jnp.expand_dims(seen.slot_position, -2)]
    if seen.own is not None:
        n, q, segment_length = seen.own.shape
        by_segment = position.reshape(n, -1, segment_length)
        found.append((by_segment[..., None] - by_segment[:, :, None]).reshape(n, q, segment_length))
    return found
