"""The memory window while acting: the W newest slots of each layer in the form in which queries attend to them."""

import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax.agent.cores.attention import Slots
from trxl_jax.agent.cores.visibility import visible_slots


@struct.dataclass
class RingBuffer:
    """The W newest slots; slot s is stored at index s modulo W, so that a step overwrites the oldest one.

    Fields:
        layers: for each layer f32[N, H, W, D / H], encoded once, when written.
    """

    layers: Slots

    @property
    def window(self) -> int:
        """W."""
        return self.layers[0].shape[-2]

    def write(self, entry: Slots, slot: jax.Array) -> "RingBuffer":
        """Stores slot i32[], for each layer f32[N, H, 1, D / H]."""
        index = slot % self.window
        return RingBuffer(
            [
                jax.lax.dynamic_update_slice_in_dim(layer, new, index, axis=2)
                for layer, new in zip(self.layers, entry, strict=True)
            ]
        )

    def slots(self, slot: jax.Array) -> jax.Array:
        """The slots i32[W] that are stored just before `slot`, i32[], is written, by index."""
        return slot - 1 - (slot - 1 - jnp.arange(self.window)) % self.window

    def visible(self, slot: jax.Array, episode_step: jax.Array) -> jax.Array:
        """Which indices one query per environment may attend to, bool[N, 1, W].

        Args:
            slot: i32[], the slot in which the query's step is, or would be, written.
            episode_step: i32[N], its step in the episode.
        """
        query_slot = jnp.broadcast_to(slot, (episode_step.shape[0], 1))
        return visible_slots(query_slot, episode_step[:, None], self.slots(slot), self.window)
