"""Transformer-XL over cached hidden states: pre-LN layers, each attending to the cached inputs of that layer."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from trxl_jax.agent.cores.attention import LAYER_NORM_EPS, MemoryAttention, Slots, normalise
from trxl_jax.agent.cores.positions import PositionalEncoding
from trxl_jax.agent.initializers import dense
from trxl_jax.agent.numerics import Numerics


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


class TransformerXL(nn.Module):
    """L layers over the slots of the episodic memory.

    Fields:
        num_layers: L.
        num_heads: H.
        dim: D.
        window: W.
        positional_encoding: absolute, learned or none.
        max_episode_steps: E.
        numerics: platform and precision.
    """

    num_layers: int
    num_heads: int
    dim: int
    window: int
    positional_encoding: str
    max_episode_steps: int
    numerics: Numerics

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self.positions = PositionalEncoding(self.positional_encoding, self.dim, self.max_episode_steps)
        frozen = self.positional_encoding != "learned"
        self.layers = [TransformerLayer(self.num_heads, frozen, self.numerics) for _ in range(self.num_layers)]

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
