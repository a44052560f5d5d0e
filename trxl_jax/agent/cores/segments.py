"""Softmax attention to cached slots and, with gradient, to the steps of the query's own segment.

Segments are G consecutive queries: Q = K * G. A query never attends to another segment's steps as such, only to their
cached hidden states.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.agent.cores.softmax import softmax

_MASKED = -1e30  # finite, so that a row without anything visible has no NaN
_product = partial(jnp.einsum, preferred_element_type=jnp.float32)


class KeysValues(NamedTuple):
    """Keys and values of S entries, [N, H, S, d] each, in the products' dtype."""

    keys: jax.Array
    values: jax.Array


class OwnEntries(NamedTuple):
    """What the steps of the queries' segments offer.

    Fields:
        keys: [N, H, Q, d], those of all Q steps.
        values: [N, H, Q, d].
        visible: bool[N, Q, G], which steps of its segment a query sees.
    """

    keys: jax.Array
    values: jax.Array
    visible: jax.Array


class Energies(NamedTuple):
    """Of each query and X things that it may attend to.

    Fields:
        energy: f32[N, H, Q, X].
        visible: bool[N, Q, X].
    """

    energy: jax.Array
    visible: jax.Array


def slot_energy(query: jax.Array, keys: jax.Array) -> jax.Array:
    """Products f32[N, H, Q, S] of queries f32[N, Q, H, d] and the keys [N, H, S, d] of slots."""
    return _product("nqhd,nhsd->nhqs", query.astype(keys.dtype), keys)


def own_energy(query: jax.Array, keys: jax.Array, segment_length: int) -> jax.Array:
    """Products f32[N, H, Q, G] of queries f32[N, Q, H, d] and the keys [N, H, Q, d] of their segments' steps."""
    n, q, heads, d = query.shape
    query = query.astype(keys.dtype).reshape(n, -1, segment_length, heads, d)
    keys = keys.reshape(n, heads, -1, segment_length, d)
    return _product("nkihd,nhkjd->nhkij", query, keys).reshape(n, heads, q, segment_length)


def energies(
    query: jax.Array, keys: jax.Array, visible: jax.Array, own: OwnEntries | None, added: Sequence[jax.Array] = ()
) -> list[Energies]:
    """Energies of slots and, with `own`, of the steps of segments.

    Args:
        query: f32[N, Q, H, d], scaled.
        keys: [N, H, S, d], of slots.
        visible: bool[N, Q, S], which slots a query sees.
        own: what the segments' steps offer.
        added: what is added to the energies of each, f32[N, H, Q, S] and f32[N, H, Q, G]; empty: nothing.
    """
    parts = [Energies(slot_energy(query, keys), visible)]
    if own is not None:
        parts.append(Energies(own_energy(query, own.keys, own.visible.shape[-1]), own.visible))
    if not added:
        return parts
    return [part._replace(energy=part.energy + more) for part, more in zip(parts, added, strict=True)]


def joint_softmax(*parts: Energies) -> list[jax.Array]:
    """Weights f32[N, H, Q, X] of each part, 0 where hidden; together they sum to 1, or to 0 if all is hidden."""
    masked = [jnp.where(part.visible[:, None], part.energy, _MASKED) for part in parts]
    weights = softmax(jnp.concatenate(masked, axis=-1))
    ends = np.cumsum([part.energy.shape[-1] for part in parts])[:-1]
    return [w * part.visible[:, None] for w, part in zip(jnp.split(weights, ends, axis=-1), parts, strict=True)]


def read_slots(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Sums f32[N, Q, H, d] of the values [N, H, S, d] of slots with weights f32[N, H, Q, S]."""
    return _product("nhqs,nhsd->nqhd", weights.astype(values.dtype), values)


def read_own(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Sums f32[N, Q, H, d] of the values [N, H, Q, d] of segments' steps with weights f32[N, H, Q, G]."""
    n, heads, q, segment_length = weights.shape
    weights = weights.astype(values.dtype).reshape(n, heads, -1, segment_length, segment_length)
    values = values.reshape(n, heads, -1, segment_length, values.shape[-1])
    return _product("nhkij,nhkjd->nkihd", weights, values).reshape(n, q, heads, -1)
