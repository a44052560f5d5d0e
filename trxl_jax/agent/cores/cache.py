"""The cache of hidden states.

Between updates the cache holds the W newest slots of every environment; a rollout appends T. Nothing is sized by the
length of an episode. Slots are never cleared: `visibility.py` hides the entries of earlier episodes.
"""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike, DTypeLike


@struct.dataclass
class EpisodicMemory:
    """Cached hidden states of N environments, oldest first.

    Fields:
        hidden: [N, S, L, D] in the memory's dtype; for each layer its *input* at that step, detached.
        position: i32[N, S], the episode step at which the slot was written.
        episode_step: i32[N], the episode step that comes next.
    """

    hidden: jax.Array
    position: jax.Array
    episode_step: jax.Array


def init(num_envs: int, window: int, num_layers: int, dim: int, dtype: DTypeLike = jnp.bfloat16) -> EpisodicMemory:
    """An empty memory of W = `window` slots at the start of an episode everywhere."""
    return EpisodicMemory(
        hidden=jnp.zeros((num_envs, window, num_layers, dim), dtype),
        position=jnp.zeros((num_envs, window), jnp.int32),
        episode_step=jnp.zeros(num_envs, jnp.int32),
    )


def start_rollout(memory: EpisodicMemory, num_steps: int) -> EpisodicMemory:
    """Appends `num_steps` empty slots to the W carried ones."""
    return dataclasses.replace(
        memory,
        hidden=jnp.pad(memory.hidden, ((0, 0), (0, num_steps), (0, 0), (0, 0))),
        position=jnp.pad(memory.position, ((0, 0), (0, num_steps))),
    )


def append(memory: EpisodicMemory, slot: ArrayLike, hidden: jax.Array) -> EpisodicMemory:
    """Writes the hidden states of the current step.

    Args:
        memory: S slots.
        slot: i32[], the slot to write.
        hidden: f32[N, L, D].
    """
    n, _, num_layers, dim = memory.hidden.shape
    chex.assert_shape(hidden, (n, num_layers, dim))
    entry = jax.lax.stop_gradient(hidden)[:, None].astype(memory.hidden.dtype)
    return dataclasses.replace(
        memory,
        hidden=_write(memory.hidden, entry, slot),
        position=jax.lax.dynamic_update_slice_in_dim(memory.position, memory.episode_step[:, None], slot, axis=1),
    )


def _write(hidden: jax.Array, entry: jax.Array, slot: ArrayLike) -> jax.Array:
    write = partial(jax.lax.dynamic_update_slice_in_dim, axis=1)
    if hidden.dtype != jnp.bfloat16:
        return write(hidden, entry, slot)

    def as_integers(hidden: jax.Array, entry: jax.Array, slot: ArrayLike) -> jax.Array:
        bits, entry_bits = (jax.lax.bitcast_convert_type(x, jnp.uint16) for x in (hidden, entry))
        return jax.lax.bitcast_convert_type(write(bits, entry_bits, slot), jnp.bfloat16)

    # XLA's CPU backend emulates the update of a bfloat16 array: 1.8 ms a step at the defaults, and 0.1 as integers. Its
    # TPU backend would copy the whole array to reinterpret it.
    return jax.lax.platform_dependent(hidden, entry, slot, cpu=as_integers, default=write)


def advance(memory: EpisodicMemory, done: jax.Array) -> EpisodicMemory:
    """Advances the episode step: 0 where the episode ended, bool[N] `done`, else one more."""
    chex.assert_shape(done, memory.episode_step.shape)
    return dataclasses.replace(memory, episode_step=jnp.where(done, 0, memory.episode_step + 1))


def end_rollout(memory: EpisodicMemory, window: int) -> EpisodicMemory:
    """Drops all slots but the W newest."""
    return dataclasses.replace(memory, hidden=memory.hidden[:, -window:], position=memory.position[:, -window:])
