"""Transformer-XL over cached hidden states: layers that each attend to the cached inputs of that layer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax.agent.accelerator import layers as folded_layers
from trxl_jax.agent.accelerator.folding import folded
from trxl_jax.agent.cores import cache
from trxl_jax.agent.cores.attention import normalise
from trxl_jax.agent.cores.attention_layer import AttentionOptions, LayerSlots, ResidualLayer
from trxl_jax.agent.cores.base import Core, Queries
from trxl_jax.agent.cores.cache import CachedStates, EpisodicMemory
from trxl_jax.agent.cores.gtrxl import GTrXLLayer
from trxl_jax.agent.cores.ring import RingBuffer
from trxl_jax.agent.cores.visibility import Visibility, see, visible_or_empty, visible_slots, window_slots
from trxl_jax.agent.numerics import Numerics

# Gathering the window of each query makes attention a short product per query: 0.13 ms a layer and minibatch of Proof
# of Memory, and 0.41 with all slots. It pays while the copies stay in cache and slots are many times the window.
_MAX_GATHERED = 2**22  # numbers of one layer
_MIN_WINDOWS = 4

Slots = list[LayerSlots]
"""For each layer the cached hidden states as queries attend to them; leaves are [N, H, S, D / H]."""
LAYERS: dict[str, Callable[..., nn.Module]] = {
    "residual": ResidualLayer,
    "gated": partial(ResidualLayer, gated=True),
    "gtrxl": GTrXLLayer,
}


@struct.dataclass
class AttentionState:
    """What acting attends to.

    Fields:
        ring: the W newest slots, as queries attend to them.
        cached: the slots of the rollout, from which learning will read; None if nothing will be learned.
    """

    ring: RingBuffer
    cached: CachedStates | None


class TransformerXL(Core):
    """Layers over the slots of the episodic memory.

    Fields:
        options: how the layers attend.
        num_layers: L.
        layer: residual, gated (gates in the place of residual connections) or gtrxl (as in that paper).
        see_self: whether a query sees its own step, besides the W - 1 before it.
        max_episode_steps: E.
        memory_dtype: of the cached hidden states.
        numerics: platform and precision.
    """

    options: AttentionOptions
    num_layers: int
    layer: str
    see_self: bool
    max_episode_steps: int
    memory_dtype: str
    numerics: Numerics

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self.positions = self.options.positions(self.max_episode_steps)
        self.layers = [LAYERS[self.layer](self.options, self.positions, self.numerics) for _ in range(self.num_layers)]

    @property
    def window(self) -> int:
        """W."""
        return self.options.window

    @property
    def prepares_with_parameters(self) -> bool:
        """Whether slots depend on parameters."""
        return self.options.positional_encoding == "learned" or not self._encodes_jointly

    @property
    def attends(self) -> bool:
        """See `Core`."""
        return True

    @property
    def _encodes_jointly(self) -> bool:
        """Whether slots are normalised without parameters, so that one operation does it for all layers."""
        return self.options.projects_queries and self.layer != "gtrxl"

    @property
    def _folds(self) -> bool:
        """Whether `accelerator/layers.py` computes the layers: where it holds, queries attend to an empty slot too.

        On TPUs, where starting a kernel costs little, it doesn't: stacking the layers would move a tenth more bytes in
        a minibatch (`benchmarks/tpu_aot.py`).
        """
        options = self.options
        plain = self.layer == "residual" and options.distance == "none"
        plain = plain and not self.see_self and not options.query_position
        return self.numerics.platform == "gpu" and plain and self._encodes_jointly and not self.prepares_with_parameters

    def fold(self) -> list[folded_layers.Folded] | None:
        """See `Core`."""
        if not self._folds:
            return None
        square, vector = jnp.zeros((self.dim, self.dim)), jnp.zeros(self.dim)
        unused = folded_layers.Following(square, vector, square, vector)
        return folded_layers.fold(self._parameters(unused), self.numerics.dtype)

    def _parameters(self, following: folded_layers.Following) -> folded_layers.Parameters:
        layers = [layer.variables["params"] for layer in self.layers]
        return folded_layers.parameters_of(layers, self.options.num_heads, following)

    @nn.nowrap
    def init_carry(self, num_envs: int) -> EpisodicMemory:
        """See `Core`: W empty slots of each environment."""
        return cache.init(num_envs, self.window, self.num_layers, self.dim, jnp.dtype(self.memory_dtype))

    def start(self, carry: EpisodicMemory, num_steps: int, segment_length: int = 1) -> AttentionState:
        """See `Core`."""
        if self._folds:
            ring = RingBuffer(self._with_empty(self._encode_together(carry.hidden, carry.position)), spare=1)
        else:
            ring = RingBuffer(self.encode_slots(carry.hidden, carry.position))
        return AttentionState(ring, cache.start_rollout(carry, num_steps) if num_steps else None)

    def step(
        self, x: jax.Array, state: AttentionState, t: jax.Array, episode_step: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """See `Core`: one query per environment. What is to be remembered are the layers' inputs, f32[N, L, D]."""
        slot, step = self.window + t, episode_step[:, None]
        query_slot = jnp.broadcast_to(slot, step.shape)
        shown = self.is_initializing() or self.is_mutable_collection("intermediates")
        if self._folds and not shown:
            visible = visible_or_empty(query_slot, step, state.ring.slots(slot), self.window)
            by_layer: list[Any] = _by_layer(state.ring.layers)
            y, inputs = folded_layers.apply(folded(self), x[:, None], by_layer, visible)
            return jnp.squeeze(y, axis=1), jnp.stack(inputs, axis=2)[:, 0]
        slots = self._without_empty(state.ring.layers) if self._folds else state.ring.layers
        seen = see(query_slot, step, state.ring.slots(slot)[: self.window], self.window, 1, self.see_self)
        y, hidden = self(x[:, None], slots, seen, step)
        return jnp.squeeze(y, axis=1), jnp.squeeze(hidden, axis=1)

    def write(self, state: AttentionState, entry: jax.Array, t: jax.Array, episode_step: jax.Array) -> AttentionState:
        """See `Core`: step t is written to slot W + t."""
        slot = self.window + t
        # Rounded to the memory's precision first, acting attends to exactly what learning will attend to.
        rounded = entry[:, None].astype(self.memory_dtype)
        encode = self._encode_together if self._folds else self.encode_slots
        ring = state.ring.write(encode(rounded, episode_step[:, None]), slot)
        cached = None if state.cached is None else cache.append(state.cached, slot, entry, episode_step)
        return AttentionState(ring, cached)

    @nn.nowrap
    def finish(self, state: AttentionState, episode_step: jax.Array) -> tuple[EpisodicMemory, CachedStates]:
        """See `Core`: the record has S = W + T slots."""
        assert state.cached is not None, "the rollout was started without recording"
        return cache.end_rollout(state.cached, self.window, episode_step), state.cached

    @nn.nowrap
    def carry_of(self, record: CachedStates, episode_step: jax.Array) -> EpisodicMemory:
        """See `Core`: the first W slots, of `episode_step` i32[N]."""
        return EpisodicMemory(episode_step, record.hidden[:, : self.window], record.position[:, : self.window])

    def prepare(self, record: CachedStates) -> Any:
        """See `Core`."""
        if not self._folds:
            return self.encode_slots(record.hidden, record.position)
        return _by_layer(self._with_empty(self._encode_together(record.hidden, record.position)))

    def learn(self, x: jax.Array, prepared: Slots, queries: Queries, segment_length: int = 1) -> jax.Array:
        """See `Core`."""
        if self._folds:
            folded_slots: list[Any] = list(prepared)
            prepared = self._without_empty(jnp.stack([jnp.moveaxis(layer, 1, 0) for layer in folded_slots], axis=1))
        slots = prepared if queries.env is None else jax.tree.map(lambda leaf: leaf[queries.env], prepared)
        query_slot, num_slots = self.window + queries.step, jax.tree.leaves(slots)[0].shape[2]
        small = gathers_windows(x.shape[0] * x.shape[1], num_slots, self.window, self.dim)
        if segment_length == 1 and self.numerics.platform == "cpu" and small:
            return self._learn_in_windows(x, slots, query_slot, queries.episode_step)
        numbers = jnp.arange(num_slots)
        seen = see(query_slot, queries.episode_step, numbers, self.window, segment_length, self.see_self)
        return self(x, slots, seen, queries.episode_step)[0]

    def learn_through(
        self,
        x: jax.Array,
        prepared: Any,
        queries: Queries,
        segment_length: int,
        following: folded_layers.Following,
    ) -> tuple[jax.Array, jax.Array] | None:
        """See `Core`; slots are [H, N, S + 1, d] of each layer."""
        if not self._folds or segment_length > 1 or following.heads.shape[1] > self.dim:
            return None
        folded_slots: list[Any] = list(prepared)
        slots = folded_slots if queries.env is None else [layer[:, queries.env] for layer in folded_slots]
        numbers = jnp.arange(slots[0].shape[2])
        query_slot = self.window + queries.step
        visible = visible_or_empty(query_slot, queries.episode_step, numbers, self.window, of_minibatch=True)
        return folded_layers.learn(self._parameters(following), x, slots, visible)

    def _with_empty(self, slots: jax.Array) -> jax.Array:
        """Slots [N, L, H, S, d] and, as the last, what a query that sees nothing reads: [N, L, H, S + 1, d]."""
        entries = normalise(self.positions(jnp.arange(self.window))).mean(axis=0)
        entries = entries.reshape(self.options.num_heads, 1, -1).astype(slots.dtype)
        return jnp.concatenate([slots, jnp.broadcast_to(entries, (*slots.shape[:3], *entries.shape[1:]))], axis=3)

    def _without_empty(self, slots: jax.Array) -> Slots:
        """Slots [N, L, H, S + 1, d] as those of each layer, [N, H, S, d]."""
        return [slots[:, layer, :, :-1] for layer in range(self.num_layers)]

    def _learn_in_windows(
        self, x: jax.Array, slots: Slots, query_slot: jax.Array, episode_step: jax.Array
    ) -> jax.Array:
        """`learn` with each of the N * Q queries as an environment with one query and W - 1 slots."""
        n, q, dim = x.shape
        window_of_query = window_slots(query_slot, self.window)
        visible = visible_slots(query_slot, episode_step, window_of_query, self.window).reshape(n * q, 1, -1)
        envs, heads = jnp.arange(n)[:, None, None, None], jnp.arange(self.options.num_heads)[:, None]

        def windows(layer: jax.Array) -> jax.Array:
            return layer[envs, heads, window_of_query[:, :, None]].reshape(n * q, len(heads), self.window - 1, -1)

        step = episode_step.reshape(-1, 1)
        own = jnp.ones((n * q, 1, 1), bool) if self.see_self else None
        seen = Visibility(visible, jnp.zeros_like(step), jnp.arange(1 - self.window, 0), own)
        return self(x.reshape(n * q, 1, dim), jax.tree.map(windows, slots), seen, step)[0]

    @nn.nowrap
    def weights_by_age(self, sown: Any, t: jax.Array) -> jax.Array:
        """See `Core`."""
        layers = sown[self.name or "core"]  # a module without a name has that of the agent's field
        weights = jnp.stack([layers[f"layers_{i}"]["attention"]["weights"][0] for i in range(self.num_layers)], axis=1)
        ages = jnp.arange(1, self.window)
        return jnp.squeeze(weights, axis=3)[..., (self.window + t - ages) % self.window]

    def encode_slots(self, hidden: jax.Array, position: jax.Array) -> Slots:
        """Cached hidden states as queries attend to them.

        Args:
            hidden: [N, S, L, D], cached hidden states.
            position: i32[N, S].

        Returns:
            For each of the L layers arrays [N, H, S, D / H], in the products' dtype.
        """
        chex.assert_shape(position, hidden.shape[:2])
        if not self._encodes_jointly:
            return [layer.encode_slots(hidden[:, :, i], position) for i, layer in enumerate(self.layers)]
        slots = self._normalised_slots(hidden, position)
        return [jnp.moveaxis(slots[:, :, layer], 1, 2) for layer in range(self.num_layers)]

    def _encode_together(self, hidden: jax.Array, position: jax.Array) -> jax.Array:
        """`encode_slots` with all layers in one array [N, L, H, S, D / H]."""
        return jnp.moveaxis(self._normalised_slots(hidden, position), 1, 3)

    def _normalised_slots(self, hidden: jax.Array, position: jax.Array) -> jax.Array:
        slots = normalise(hidden.astype(jnp.float32) + self.positions(position)[:, :, None])
        return slots.reshape(*hidden.shape[:3], self.options.num_heads, -1).astype(self.numerics.dtype)

    def __call__(
        self, x: jax.Array, slots: Slots, seen: Visibility, episode_step: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Lets Q queries per environment attend to what is visible to them.

        Args:
            x: f32[N, Q, D].
            slots: from `encode_slots`.
            seen: what they may attend to.
            episode_step: i32[N, Q].

        Returns:
            The last layer's output f32[N, Q, D], and every layer's input f32[N, Q, L, D], detached, for
            the memory.
        """
        hidden = []
        for layer, layer_slots in zip(self.layers, slots, strict=True):
            hidden.append(jax.lax.stop_gradient(x))
            x = layer(x, layer_slots, seen, episode_step)
        return x, jnp.stack(hidden, axis=2)


def _by_layer(slots: jax.Array) -> list[jax.Array]:
    """Slots [N, L, H, S, d] as `accelerator/layers.py` takes them: of each layer [H, N, S, d]."""
    return [jnp.moveaxis(slots[:, layer], 1, 0) for layer in range(slots.shape[1])]


def gathers_windows(num_queries: int, num_slots: int, window: int, dim: int) -> bool:
    """Whether CPUs gather the window of each query, of width D, instead of attending to all S slots."""
    gathered = num_queries * (window - 1) * dim
    return 0 < gathered <= _MAX_GATHERED and num_slots >= _MIN_WINDOWS * window
