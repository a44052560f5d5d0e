"""The rule that says which cached slots a query may attend to; acting and learning both use it."""

import chex
import jax
import jax.numpy as jnp


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


def window_slots(query_slot: jax.Array, window: int) -> jax.Array:
    """The W - 1 slots just before each query's own, i32[N, Q] to i32[N, Q, W - 1]; no other can be visible to it."""
    return query_slot[..., None] - jnp.arange(window - 1, 0, -1)
