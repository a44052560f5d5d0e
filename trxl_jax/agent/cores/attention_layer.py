"""Layers that attend to their own cached inputs: what they share, and the project's, residual or gated."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from trxl_jax.agent.cores.attention import LAYER_NORM_EPS, MemoryAttention, normalise, split_heads
from trxl_jax.agent.cores.distances import require_even
from trxl_jax.agent.cores.gates import Gate
from trxl_jax.agent.cores.positions import PositionalEncoding
from trxl_jax.agent.cores.projected_attention import ProjectedAttention
from trxl_jax.agent.cores.segments import KeysValues, OwnEntries
from trxl_jax.agent.cores.visibility import Visibility
from trxl_jax.agent.initializers import dense
from trxl_jax.agent.numerics import Numerics

DISTANCES = ("relative", "rotary")
LayerSlots = jax.Array | KeysValues
"""The cached slots of one layer: for `MemoryAttention` [N, H, S, D / H], else keys and values of that shape."""


@dataclasses.dataclass(frozen=True)
class AttentionOptions:
    """How the layers of a transformer attend to their memory.

    Fields:
        dim: D.
        num_heads: H.
        window: W.
        heads: shared or full; see `ProjectedAttention`.
        positional_encoding: absolute, learned, none, relative or rotary.
        query_position: whether a query has its step's encoding too; absolute and learned ones.
        empty_entries: whether a query that sees nothing gets the mean of W empty entries, as in the original; or zeros.

    Raises:
        ConfigError: relative or rotary positions don't go with D and H.
    """

    dim: int
    num_heads: int
    window: int
    heads: str = "shared"
    positional_encoding: str = "absolute"
    query_position: bool = False
    empty_entries: bool = True

    def __post_init__(self) -> None:
        require_even(self.distance, self.dim, self.num_heads)

    @property
    def projects_queries(self) -> bool:
        """Whether the algebra of `MemoryAttention` holds, so that keys and values need not be formed."""
        return self.heads == "shared" and self.distance != "rotary" and self.empty_entries

    @property
    def distance(self) -> str:
        """What `ProjectedAttention` makes of distances."""
        return self.positional_encoding if self.positional_encoding in DISTANCES else "none"

    def positions(self, max_episode_steps: int) -> PositionalEncoding:
        """The encodings that are added to hidden states; one module for all layers."""
        kind = "none" if self.positional_encoding in DISTANCES else self.positional_encoding
        return PositionalEncoding(kind, self.dim, max_episode_steps)

    def attention(self, bias: bool, numerics: Numerics) -> ProjectedAttention:
        """Attention that forms keys and values."""
        return ProjectedAttention(self.dim, self.num_heads, self.heads, self.distance, self.window, bias, numerics)


def layer_norm() -> nn.LayerNorm:
    """Layer normalisation of [..., D] with PyTorch's epsilon."""
    return nn.LayerNorm(epsilon=LAYER_NORM_EPS)


class AttentionLayer(nn.Module):
    """From the layer's input to what its attention reads; subclasses say what becomes of it.

    In `setup` they set `norm_query`, `norm_memory` and `attention`.

    Fields:
        options: how to attend.
        positions: `options.positions(E)`, one for all layers.
        numerics: platform and precision.
    """

    options: AttentionOptions
    positions: PositionalEncoding
    numerics: Numerics

    def encode_slots(self, hidden: jax.Array, position: jax.Array) -> LayerSlots:
        """Cached inputs [N, S, D] of this layer, written at the episode steps i32[N, S], as queries attend to them."""
        return self._encode(hidden.astype(jnp.float32) + self.positions(position), position)

    def attend(self, x: jax.Array, slots: LayerSlots, seen: Visibility, episode_step: jax.Array) -> jax.Array:
        """What Q queries per environment read, f32[N, Q, D].

        Args:
            x: f32[N, Q, D], the layer's input.
            slots: of S cached slots, from `encode_slots`.
            seen: what the queries may attend to.
            episode_step: i32[N, Q], that of each query.
        """
        encoded = x + self.positions(episode_step)
        query = self.norm_query(encoded if self.options.query_position else x)
        own = None
        if seen.own is not None:
            entries = self._encode(encoded, episode_step)
            keys, values = entries if isinstance(entries, KeysValues) else (entries, entries)
            own = OwnEntries(keys, values, seen.own)
        # Without anything visible the original's softmax is uniform, and its result is the mean of W empty entries.
        empty = self.norm_memory(self.positions(jnp.arange(self.options.window))).mean(axis=0)
        if isinstance(self.attention, MemoryAttention):
            return self.attention(query, slots, seen, empty, own)
        return self.attention(query, episode_step, slots, seen, own, empty if self.options.empty_entries else None)

    def _encode(self, entries: jax.Array, position: jax.Array) -> LayerSlots:
        normalised = self.norm_memory(entries)
        if isinstance(self.attention, MemoryAttention):
            return split_heads(normalised, self.options.num_heads).astype(self.numerics.dtype)
        return self.attention.encode(normalised, position)


class ResidualLayer(AttentionLayer):
    """Attention and one dense layer with ReLU, each behind a residual connection or a gate.

    Fields:
        gated: gates in the place of residual connections.
    """

    gated: bool = False

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        options, numerics = self.options, self.numerics
        self.norm_query = layer_norm()
        if options.projects_queries:
            self.norm_memory = normalise  # gain and bias are the attention's
            frozen = options.positional_encoding != "learned"
            max_distance = options.window if options.distance == "relative" else 0
            self.attention = MemoryAttention(options.num_heads, frozen, numerics, max_distance)
        else:
            self.norm_memory = layer_norm()
            self.attention = options.attention(bias=True, numerics=numerics)
        self.norm_attention = layer_norm()
        self.projection = dense(options.dim, options.dim, numerics)
        if self.gated:
            self.gate1, self.gate2 = Gate(numerics), Gate(numerics)

    def __call__(self, x: jax.Array, slots: LayerSlots, seen: Visibility, episode_step: jax.Array) -> jax.Array:
        """f32[N, Q, D] to f32[N, Q, D]; for the arguments see `attend`."""
        read = self.attend(x, slots, seen, episode_step)
        x = self.gate1(x, nn.relu(read)) if self.gated else x + read
        update = nn.relu(self.projection(self.norm_attention(x)))
        return self.gate2(x, update) if self.gated else x + update
