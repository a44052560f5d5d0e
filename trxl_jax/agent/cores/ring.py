"""The memory window while acting: the W newest slots of each layer in the form in which queries attend to them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class RingBuffer:
    """The W newest slots; slot s is stored at index s modulo W, so that a step overwrites the oldest one.

    Fields:
        layers: a pytree of arrays [N, ..., W + spare, D / H], encoded once, when written.
        spare: places after the W slots that are never overwritten.
    """

    layers: Any
    spare: int = struct.field(pytree_node=False, default=0)

    @property
    def window(self) -> int:
        """W."""
        return int(jax.tree.leaves(self.layers)[0].shape[-2]) - self.spare

    def write(self, entry: Any, slot: jax.Array) -> "RingBuffer":
        """Stores slot i32[], arrays [N, ..., 1, D / H]."""
        write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=slot % self.window, axis=-2)
        return RingBuffer(jax.tree.map(write, self.layers, entry), self.spare)

    def slots(self, slot: jax.Array) -> jax.Array:
        """The slots i32[W + spare] that are stored just before `slot`, i32[], is written, by index."""
        return slot - 1 - (slot - 1 - jnp.arange(self.window + self.spare)) % self.window
