"""What follows the core: one layer, and all heads in one product."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from trxl_jax.agent.accelerator.activations import bias_relu, bias_rows


@struct.dataclass
class FoldedHeads:
    """Weights as products take them.

    Fields:
        post: [D, D] in the products' dtype.
        post_bias: from `bias_rows`.
        heads: f32[D, K], those of all heads side by side.
        heads_bias: f32[K].
        sizes: outputs of each head; they add up to K.
    """

    post: jax.Array
    post_bias: jax.Array
    heads: jax.Array
    heads_bias: jax.Array
    sizes: tuple[int, ...] = struct.field(pytree_node=False)

    def for_acting(self) -> "FoldedHeads":
        """Without what only gradients need."""
        return self.replace(post_bias=self.post_bias[:1])  # type: ignore[attr-defined]


def fold_heads(
    post: Mapping[str, jax.Array], heads: Sequence[Mapping[str, jax.Array]], dtype: DTypeLike
) -> FoldedHeads:
    """From "kernel" [in, out] and "bias" [out] of each dense layer, f32; the critic is the last head."""
    return FoldedHeads(
        post=post["kernel"].astype(dtype),
        post_bias=bias_rows([post["bias"]])[0],
        heads=jnp.concatenate([head["kernel"] for head in heads], axis=1),
        heads_bias=jnp.concatenate([head["bias"] for head in heads]),
        sizes=tuple(head["bias"].size for head in heads),
    )


def post_features(weights: FoldedHeads, y: jax.Array) -> jax.Array:
    """Features f32[..., D] of the core's result, f32[..., D]."""
    return bias_relu((y.astype(weights.post.dtype) @ weights.post).astype(jnp.float32), weights.post_bias)


def apply_heads(weights: FoldedHeads, features: jax.Array) -> tuple[list[jax.Array], jax.Array]:
    """Outputs of the actor's heads for features f32[..., D], and values f32[...]."""
    return split_heads(weights, features @ weights.heads + weights.heads_bias)


def split_heads(weights: FoldedHeads, outputs: jax.Array) -> tuple[list[jax.Array], jax.Array]:
    """What all heads give, f32[..., K], as outputs of the actor's heads, and values f32[...]."""
    ends = [sum(weights.sizes[: i + 1]) for i in range(len(weights.sizes) - 1)]
    *logits, value = jnp.split(outputs, ends, axis=-1)
    return logits, value[..., 0]
