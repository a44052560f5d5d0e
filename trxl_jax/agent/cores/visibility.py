"""The rule that says what a query may attend to; acting and learning both use it."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Visibility(NamedTuple):
    """What each of Q queries may attend to: cached slots, and steps of its own segment.

    Segments are G consecutive queries, Q = K * G. Positions are numbers of steps; only differences matter.

    Fields:
        slots: bool[N, Q, S], the cached slots.
        query_position: i32[N, Q].
        slot_position: i32[S] or i32[N, S].
        own: bool[N, Q, G], the steps of the query's segment; None: none of them, not even itself.
    """

    slots: jax.Array
    query_position: jax.Array
    slot_position: jax.Array
    own: jax.Array | None = None


def visible_slots(query_slot: jax.Array, episode_step: jax.Array, slots: jax.Array, window: int) -> jax.Array:
    """Which slots each query may attend to: the min(k, W - 1) just before its own, all from its own episode.

    W - 1, not W: the original always masks the last entry of its window, and published window lengths count it.

    Args:
        query_slot: i32[N, Q], the slot in which the query's own step is, or would be, written.
        episode_step: i32[N, Q], the query's step k in its episode.
        slots: i32[S], the numbers of the slots in question, or i32[N, Q, S], different ones for each query.
        window: W.

    Returns:
        bool[N, Q, S].
    """
    chex.assert_rank([query_slot, episode_step], 2)
    chex.assert_equal_shape([query_slot, episode_step])
    count = jnp.minimum(episode_step, window - 1)[..., None]
    query = query_slot[..., None]
    return (query - count <= slots) & (slots < query)


def visible_or_empty(
    query_slot: jax.Array, episode_step: jax.Array, slots: jax.Array, window: int, *, of_minibatch: bool = False
) -> jax.Array:
    """`visible_slots` where the last one is empty, whatever its number, and visible if and only if no other is.

    The others, i32[S] with the last, hold the W slots before each query's: only these while acting, all W + T of the
    rollout while learning. `of_minibatch`: the queries are cut out of larger arrays. Returns bool[N, Q, S].
    """
    step, query = episode_step[..., None], query_slot[..., None]
    # Not by `visible_slots`: XLA's kernels of attention take in comparisons, but no minimum.
    oldest, starts = query - step, step == 0
    if of_minibatch:  # they don't take in the cutting either
        oldest, query, starts = jax.lax.optimization_barrier((oldest, query, starts))
    visible = (oldest <= slots) & (query - (window - 1) <= slots) & (slots < query)
    is_last = jnp.arange(slots.shape[-1]) == slots.shape[-1] - 1
    return jnp.where(is_last, starts if window > 1 else True, visible)


def window_slots(query_slot: jax.Array, window: int) -> jax.Array:
    """The W - 1 slots just before each query's own, i32[N, Q] to i32[N, Q, W - 1]; no other can be visible to it."""
    return query_slot[..., None] - jnp.arange(window - 1, 0, -1)


def see(
    query_slot: jax.Array, episode_step: jax.Array, slots: jax.Array, window: int, segment_length: int, see_self: bool
) -> Visibility:
    """`visible_slots` for queries that see the steps of their own segment as such, and cached slots before it.

    Args:
        query_slot: i32[N, Q], the slot of each query's step; segments of G queries have consecutive ones.
        episode_step: i32[N, Q], the query's step in its episode.
        slots: i32[S], the numbers of the slots in question.
        window: W.
        segment_length: G, a divisor of Q. 1: gradients don't flow through earlier steps.
        see_self: whether a query sees its own step, besides the W - 1 before it.
    """
    n, q = query_slot.shape
    visible = visible_slots(query_slot, episode_step, slots, window)
    if segment_length == 1 and not see_self:
        return Visibility(visible, query_slot, slots)
    segments = query_slot.reshape(n, -1, 1, segment_length)
    own_slots = jnp.broadcast_to(segments, (n, q // segment_length, segment_length, segment_length)).reshape(n, q, -1)
    own = visible_slots(query_slot, episode_step, own_slots, window)
    if see_self:
        own |= own_slots == query_slot[..., None]
    return Visibility(visible & (slots < own_slots[..., :1]), query_slot, slots, own)
