"""Transformer-XL over cached hidden states: pre-LN layers, each attending to the cached inputs of that layer."""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax.agent.cores import cache
from trxl_jax.agent.cores.attention import LAYER_NORM_EPS, MemoryAttention, Slots, normalise
from trxl_jax.agent.cores.base import Core, Queries
from trxl_jax.agent.cores.cache import CachedStates, EpisodicMemory
from trxl_jax.agent.cores.positions import PositionalEncoding
from trxl_jax.agent.cores.ring import RingBuffer
from trxl_jax.agent.cores.visibility import visible_slots, window_slots
from trxl_jax.agent.initializers import dense
from trxl_jax.agent.numerics import Numerics

# Gathering the window of each query makes attention a short product per query: 0.13 ms a layer and minibatch of Proof
# of Memory, and 0.41 with all slots. It pays while the copies stay in cache and slots are many times the window.
_MAX_GATHERED = 2**22  # numbers of one layer
_MIN_WINDOWS = 4


@struct.dataclass
class AttentionState:
    """What acting attends to.

    Fields:
        ring: the W newest slots, as queries attend to them.
        cached: the slots of the rollout, from which learning will read; None if nothing will be learned.
    """

    ring: RingBuffer
    cached: CachedStates | None


class TransformerLayer(nn.Module):
    """Pre-LN attention and one dense layer with ReLU, each behind a residual.

    Fields:
        num_heads: H.
        frozen_keys: whether the slots need no gradient.
        numerics: platform and precision.
    """

    num_heads: int
    frozen_keys: bool
    numerics: Numerics

    @nn.compact
    def __call__(self, x: jax.Array, slots: jax.Array, visible: jax.Array, empty: jax.Array) -> jax.Array:
        """f32[N, Q, D] to f32[N, Q, D]; the other arguments are those of `MemoryAttention`."""
        dim = x.shape[-1]
        query = nn.LayerNorm(epsilon=LAYER_NORM_EPS, name="norm_query")(x)
        attention = MemoryAttention(self.num_heads, self.frozen_keys, self.numerics, name="attention")
        x = x + attention(query, slots, visible, empty)
        attended = nn.LayerNorm(epsilon=LAYER_NORM_EPS, name="norm_attention")(x)
        return x + nn.relu(dense(dim, dim, self.numerics, name="projection")(attended))


class TransformerXL(Core):
    """L layers over the slots of the episodic memory.

    Fields:
        num_layers: L.
        num_heads: H.
        window: W.
        positional_encoding: absolute, learned or none.
        max_episode_steps: E.
        memory_dtype: of the cached hidden states.
        numerics: platform and precision.
    """

    num_layers: int
    num_heads: int
    window: int
    positional_encoding: str
    max_episode_steps: int
    memory_dtype: str
    numerics: Numerics

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self.positions = PositionalEncoding(self.positional_encoding, self.dim, self.max_episode_steps)
        frozen = not self.prepares_with_parameters
        self.layers = [TransformerLayer(self.num_heads, frozen, self.numerics) for _ in range(self.num_layers)]

    @property
    def prepares_with_parameters(self) -> bool:
        """Whether slots depend on parameters."""
        return self.positional_encoding == "learned"

    @nn.nowrap
    def init_carry(self, num_envs: int) -> EpisodicMemory:
        """See `Core`: W empty slots of each environment."""
        return cache.init(num_envs, self.window, self.num_layers, self.dim, jnp.dtype(self.memory_dtype))

    def start(self, carry: EpisodicMemory, num_steps: int, segment_length: int = 1) -> AttentionState:
        """See `Core`."""
        ring = RingBuffer(self.encode_slots(carry.hidden, carry.position))
        return AttentionState(ring, cache.start_rollout(carry, num_steps) if num_steps else None)

    def step(
        self, x: jax.Array, state: AttentionState, t: jax.Array, episode_step: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """See `Core`: one query per environment. What is to be remembered are the layers' inputs, f32[N, L, D]."""
        visible = state.ring.visible(self.window + t, episode_step)
        y, hidden = self(x[:, None], state.ring.layers, visible)
        return jnp.squeeze(y, axis=1), jnp.squeeze(hidden, axis=1)

    def write(self, state: AttentionState, entry: jax.Array, t: jax.Array, episode_step: jax.Array) -> AttentionState:
        """See `Core`: step t is written to slot W + t."""
        slot = self.window + t
        # Rounded to the memory's precision first, acting attends to exactly what learning will attend to.
        rounded = entry[:, None].astype(self.memory_dtype)
        ring = state.ring.write(self.encode_slots(rounded, episode_step[:, None]), slot)
        cached = None if state.cached is None else cache.append(state.cached, slot, entry, episode_step)
        return AttentionState(ring, cached)

    @nn.nowrap
    def finish(self, state: AttentionState, episode_step: jax.Array) -> tuple[EpisodicMemory, CachedStates]:
        """See `Core`: the record has S = W + T slots."""
        assert state.cached is not None, "the rollout was started without recording"
        return cache.end_rollout(state.cached, self.window, episode_step), state.cached

    def prepare(self, record: CachedStates) -> Slots:
        """See `Core`."""
        return self.encode_slots(record.hidden, record.position)

    def learn(self, x: jax.Array, prepared: Slots, queries: Queries, segment_length: int = 1) -> jax.Array:
        """See `Core`."""
        query_slot, num_slots = self.window + queries.step, prepared[0].shape[2]
        if self._gathers_windows(x.shape[0] * x.shape[1], num_slots):
            return self._learn_in_windows(x, prepared, query_slot, queries.episode_step)
        visible = visible_slots(query_slot, queries.episode_step, jnp.arange(num_slots), self.window)
        return self(x, prepared, visible)[0]

    def _learn_in_windows(
        self, x: jax.Array, slots: Slots, query_slot: jax.Array, episode_step: jax.Array
    ) -> jax.Array:
        """`learn` with each of the N * Q queries as an environment with one query and W - 1 slots."""
        n, q, dim = x.shape
        window_of_query = window_slots(query_slot, self.window)
        visible = visible_slots(query_slot, episode_step, window_of_query, self.window)
        envs, heads = jnp.arange(n)[:, None, None, None], jnp.arange(self.num_heads)[:, None]
        windows = [
            layer[envs, heads, window_of_query[:, :, None]].reshape(n * q, self.num_heads, self.window - 1, -1)
            for layer in slots
        ]
        return self(x.reshape(n * q, 1, dim), windows, visible.reshape(n * q, 1, -1))[0]

    def _gathers_windows(self, num_queries: int, num_slots: int) -> bool:
        gathered = num_queries * (self.window - 1) * self.dim
        small = 0 < gathered <= _MAX_GATHERED and num_slots >= _MIN_WINDOWS * self.window
        return self.numerics.platform == "cpu" and small

    @nn.nowrap
    def weights_by_age(self, sown: Any, t: jax.Array) -> jax.Array:
        """See `Core`."""
        layers = sown["transformer"]
        weights = jnp.stack([layers[f"layers_{i}"]["attention"]["weights"][0] for i in range(self.num_layers)], axis=1)
        ages = jnp.arange(1, self.window)
        return jnp.squeeze(weights, axis=3)[..., (self.window + t - ages) % self.window]

    def encode_slots(self, hidden: jax.Array, position: jax.Array) -> Slots:
        """Adds positions to cached hidden states and normalises them: the keys and values of all layers.

        Args:
            hidden: [N, S, L, D], cached hidden states.
            position: i32[N, S].

        Returns:
            For each of the L layers [N, H, S, D / H], in the products' dtype.
        """
        chex.assert_shape(position, hidden.shape[:2])
        slots = normalise(hidden.astype(jnp.float32) + self.positions(position)[:, :, None])
        slots = slots.reshape(*hidden.shape[:3], self.num_heads, -1).astype(self.numerics.dtype)
        return [jnp.moveaxis(slots[:, :, layer], 1, 2) for layer in range(self.num_layers)]

    def __call__(self, x: jax.Array, slots: Slots, visible: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Lets Q queries per environment attend to the slots that are visible to them.

        Args:
            x: f32[N, Q, D].
            slots: for each layer [N, H, S, D / H], from `encode_slots`.
            visible: bool[N, Q, S].

        Returns:
            The last layer's output f32[N, Q, D], and every layer's input f32[N, Q, L, D], detached, for
            the memory.
        """
        # Without a visible slot the original's softmax is uniform, and its result is the mean of W empty entries.
        empty = normalise(self.positions(jnp.arange(self.window))).mean(axis=0)
        hidden = []
        for layer, layer_slots in zip(self.layers, slots, strict=True):
            hidden.append(jax.lax.stop_gradient(x))
            x = layer(x, layer_slots, visible, empty)
        return x, jnp.stack(hidden, axis=2)
