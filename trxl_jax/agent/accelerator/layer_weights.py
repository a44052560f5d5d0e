"""The parameters of the residual layers, stacked by shape, and the weights that are made of them; see `layers.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from trxl_jax.agent.accelerator.splitting import one


class Vectors(NamedTuple):
    """Gains and biases, f32[D] of one layer or f32[L, D] of all."""

    query_gain: jax.Array
    query_bias: jax.Array
    slot_gain: jax.Array
    slot_bias: jax.Array
    output_bias: jax.Array
    norm_gain: jax.Array
    norm_bias: jax.Array
    projection_bias: jax.Array


class Following(NamedTuple):
    """The parameters of what follows the transformer, f32: a dense layer with ReLU, and the heads side by side.

    Fields:
        kernel: [D, D].
        bias: [D].
        heads: [D, K], K at most D.
        heads_bias: [K].
    """

    kernel: jax.Array
    bias: jax.Array
    heads: jax.Array
    heads_bias: jax.Array


class Parameters(NamedTuple):
    """The parameters of L layers and of what follows, f32; see `parameters_of`.

    Fields:
        vectors: [8 L + 2, D], in the order of `Vectors`, and the two biases of `Following`, with zeros after K.
        queries: [L, d, d], W_q.
        keys: [L, d, d], W_k.
        values: [L, H, d, d], W_v once a head: otherwise products come out transposed, and are copied.
        out: [L, H, d, D], W_o.
        projection: P of each layer, [D, D].
        last: [D, D], the kernel of the dense layer that follows.
        heads: [D, K].
    """

    vectors: jax.Array
    queries: jax.Array
    keys: jax.Array
    values: jax.Array
    out: jax.Array
    projection: list[jax.Array]
    last: jax.Array
    heads: jax.Array

    @property
    def of_layers(self) -> Vectors:
        """The layers' vectors, f32[L, D] each."""
        return Vectors(*self.vectors[:-2].reshape(len(Vectors._fields), -1, self.vectors.shape[1]))


class Folded(NamedTuple):
    """The weights of one layer; matrices in the products' dtype.

    Fields:
        vectors: f32[D] each.
        keys: [H, d, d], of each head W_q W_k^T g / sqrt(D).
        output: [D, D], W_v W_o.
        projection: [D, D], P.
    """

    vectors: Vectors
    keys: jax.Array
    output: jax.Array
    projection: jax.Array


def parameters_of(layers: Sequence[Mapping[str, Any]], num_heads: int, following: Following) -> Parameters:
    """Those of `ResidualLayer`s, f32 by name, and of what follows."""

    def vectors(layer: Mapping[str, Any]) -> Vectors:
        attention, query, norm = (layer[name] for name in ("attention", "norm_query", "norm_attention"))
        return Vectors(
            query_gain=query["scale"],
            query_bias=query["bias"],
            slot_gain=attention["kv_scale"],
            slot_bias=attention["kv_bias"],
            output_bias=attention["out"]["bias"],
            norm_gain=norm["scale"],
            norm_bias=norm["bias"],
            projection_bias=layer["projection"]["bias"],
        )

    by_name = [vectors(layer) for layer in layers]
    attention = [layer["attention"] for layer in layers]
    queries, keys, values = (jnp.stack([each[name] for each in attention]) for name in ("queries", "keys", "values"))
    out = jnp.stack([each["out"]["kernel"] for each in attention])
    num_layers, dim, _ = out.shape
    head_dim = dim // num_heads
    heads_bias = jnp.pad(following.heads_bias, (0, dim - following.heads_bias.size))
    in_order = [vector for same in zip(*by_name, strict=True) for vector in same]
    return Parameters(
        vectors=jnp.stack([*in_order, following.bias, heads_bias]),
        queries=queries,
        keys=keys,
        values=jnp.broadcast_to(values[:, None], (num_layers, num_heads, head_dim, head_dim)),
        out=out.reshape(num_layers, num_heads, head_dim, dim),
        projection=[layer["projection"]["kernel"] for layer in layers],
        last=following.kernel,
        heads=following.heads,
    )


def fold(parameters: Parameters, dtype: DTypeLike) -> list[Folded]:
    """The weights of each layer, with matrices in `dtype`."""
    # The barriers make one kernel each of stacking, and of splitting all matrices of a shape.
    parameters = jax.lax.optimization_barrier(parameters)
    return fold_with(parameters, product("lij,lkj->lik", parameters.queries, parameters.keys), dtype)


def fold_with(parameters: Parameters, products: jax.Array, dtype: DTypeLike) -> list[Folded]:
    """`fold` with products W_q W_k^T, f32[L, d, d]."""
    by_layer = products[:, None] * slot_gain_of(parameters)
    outputs = jax.lax.optimization_barrier(product("lhij,lhjk->lhik", parameters.values, parameters.out))
    outputs = outputs * one(jnp.moveaxis(slot_gain_of(parameters), 2, 3))
    matrices = jax.lax.optimization_barrier(
        [[m.astype(dtype) for m in each] for each in zip(by_layer, outputs, parameters.projection, strict=True)]
    )
    vectors = parameters.of_layers
    return [
        Folded(Vectors(*(vector[i] for vector in vectors)), keys, output.reshape(projection.shape), projection)
        for i, (keys, output, projection) in enumerate(matrices)
    ]


def slot_gain_of(parameters: Parameters) -> jax.Array:
    """The slots' gain divided by sqrt(D), f32[L, H, 1, d]."""
    num_layers, num_heads, head_dim, dim = parameters.out.shape
    gain = parameters.of_layers.slot_gain / np.sqrt(dim)
    return gain.reshape(num_layers, num_heads, 1, head_dim)


def product(dimensions: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """f32[...] of factors [...] of one dtype; dimensions as for `jnp.einsum`."""
    return jnp.einsum(dimensions, left, right, preferred_element_type=jnp.float32)
