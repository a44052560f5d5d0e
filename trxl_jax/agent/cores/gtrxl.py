"""The layer of GTrXL, the gated Transformer-XL, as in its paper."""

import flax.linen as nn
import jax

from trxl_jax.agent.cores.attention_layer import AttentionLayer, LayerSlots, layer_norm
from trxl_jax.agent.cores.gates import Gate
from trxl_jax.agent.cores.visibility import Visibility
from trxl_jax.agent.initializers import Linear


class GTrXLLayer(AttentionLayer):
    """Attention and two dense layers, each normalised before and gated after (Parisotto et al. 2019, section 3).

    One layer norm serves queries and memory. No product has a bias, as in RLlib; the paper says nothing of them.
    In the paper attention is relative with `full` heads, and each query sees itself.

    Fields:
        inner: the width between the two dense layers; 0: D.
    """

    inner: int = 0

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        options, numerics = self.options, self.numerics
        self.norm = layer_norm()
        self.norm_query = self.norm_memory = self.norm
        self.attention = options.attention(bias=False, numerics=numerics)
        self.norm_attention = layer_norm()
        self.dense1 = Linear(self.inner or options.dim, numerics)
        self.dense2 = Linear(options.dim, numerics)
        self.gate1, self.gate2 = Gate(numerics), Gate(numerics)

    def __call__(self, x: jax.Array, slots: LayerSlots, seen: Visibility, episode_step: jax.Array) -> jax.Array:
        """f32[N, Q, D] to f32[N, Q, D]; for the arguments see `attend`."""
        x = self.gate1(x, nn.relu(self.attend(x, slots, seen, episode_step)))
        update = nn.relu(self.dense1(self.norm_attention(x)))
        return self.gate2(x, nn.relu(self.dense2(update)))
