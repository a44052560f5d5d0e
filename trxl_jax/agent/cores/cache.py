"""The cache of hidden states.

Between updates the cache holds the W newest slots of every environment; a rollout appends T. Nothing is sized by the
length of an episode. Slots are never cleared: `visibility.py` hides the entries of earlier episodes.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike, DTypeLike

from trxl_jax.agent.cores.base import Carry


@struct.dataclass
class EpisodicMemory(Carry):
    """Cached hidden states of N environments between two rollouts, oldest first.

    Fields:
        hidden: [N, W, L, D] in the memory's dtype; for each layer its *input* at that step, detached.
        position: i32[N, W], the episode step at which the slot was written.
    """

    hidden: jax.Array
    position: jax.Array


@struct.dataclass
class CachedStates:
    """The slots of a rollout: the W carried ones, then one for each of its T steps; fields as in `EpisodicMemory`."""

    hidden: jax.Array
    position: jax.Array


def init(num_envs: int, window: int, num_layers: int, dim: int, dtype: DTypeLike = jnp.bfloat16) -> EpisodicMemory:
    """An empty memory of W = `window` slots at the start of an episode everywhere."""
    return EpisodicMemory(
        hidden=jnp.zeros((num_envs, window, num_layers, dim), dtype),
        position=jnp.zeros((num_envs, window), jnp.int32),
        episode_step=jnp.zeros(num_envs, jnp.int32),
    )


def start_rollout(memory: EpisodicMemory, num_steps: int) -> CachedStates:
    """Appends `num_steps` empty slots to the W carried ones."""
    return CachedStates(
        hidden=jnp.pad(memory.hidden, ((0, 0), (0, num_steps), (0, 0), (0, 0))),
        position=jnp.pad(memory.position, ((0, 0), (0, num_steps))),
    )


def append(cached: CachedStates, slot: ArrayLike, hidden: jax.Array, episode_step: jax.Array) -> CachedStates:
    """Writes the hidden states of a step.

    Args:
        cached: S slots.
        slot: i32[], the slot to write.
        hidden: f32[N, L, D].
        episode_step: i32[N].
    """
    n, _, num_layers, dim = cached.hidden.shape
    chex.assert_shape([hidden, episode_step], [(n, num_layers, dim), (n,)])
    entry = jax.lax.stop_gradient(hidden)[:, None].astype(cached.hidden.dtype)
    return CachedStates(
        hidden=_write(cached.hidden, entry, slot),
        position=jax.lax.dynamic_update_slice_in_dim(cached.position, episode_step[:, None], slot, axis=1),
    )


def end_rollout(cached: CachedStates, window: int, episode_step: jax.Array) -> EpisodicMemory:
    """Drops all slots but the W newest; `episode_step` i32[N] is the one that comes next."""
    return EpisodicMemory(
        hidden=cached.hidden[:, -window:], position=cached.position[:, -window:], episode_step=episode_step
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
