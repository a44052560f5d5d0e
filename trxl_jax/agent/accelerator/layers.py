"""The residual layers of `cores/transformer_xl.py` for GPUs and TPUs, with a gradient written by hand.

A layer is, for its input x, normalised slots n_s (of this layer, positions added, without gain and bias) and the
parameters of `ResidualLayer` and `MemoryAttention`:

    a = g_1 LN(x) + b_1      e_s = (W_q a) . (W_k (g n_s + b)) / sqrt(D) by head      c = sum_s softmax(e)_s n_s
    x_1 = x + W_o W_v (g c + b) + b_o          y = relu(P (g_2 LN(x_1) + b_2) + p)          result x_1 + y

Three things make it few kernels:

- Products of two matrices of parameters are computed for all layers at once (`fold`), once a minibatch or rollout.
- Values of one shape are stacked before they are summed or multiplied, and split in one copy.
- A query that sees nothing gets the mean of W empty entries, as in the original. Here that mean is one more slot, the
  last, which a query sees if and only if it sees no other: its weight is then 1.
- The backward pass goes through the layers with the gradient of x only. What parameters need is kept, and at the end
  the layers' gradients are computed together: one product for all matrices of a shape, one sum for all biases. What
  follows the transformer takes part in it: a dense layer and the heads.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from trxl_jax.agent.accelerator.splitting import one

_MASKED = -1e30
_LAYER_NORM_EPS = 1e-5


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
    queries, keys, values = (jnp.stack([one[name] for one in attention]) for name in ("queries", "keys", "values"))
    out = jnp.stack([one["out"]["kernel"] for one in attention])
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
    return _fold(parameters, _product("lij,lkj->lik", parameters.queries, parameters.keys), dtype)


def _fold(parameters: Parameters, products: jax.Array, dtype: DTypeLike) -> list[Folded]:
    """`fold` with W_q W_k^T, f32[L, d, d]."""
    by_layer = products[:, None] * _slot_gain(parameters)
    outputs = jax.lax.optimization_barrier(_product("lhij,lhjk->lhik", parameters.values, parameters.out))
    outputs = outputs * one(jnp.moveaxis(_slot_gain(parameters), 2, 3))
    matrices = jax.lax.optimization_barrier(
        [[m.astype(dtype) for m in each] for each in zip(by_layer, outputs, parameters.projection, strict=True)]
    )
    vectors = parameters.of_layers
    return [
        Folded(Vectors(*(vector[i] for vector in vectors)), keys, output.reshape(projection.shape), projection)
        for i, (keys, output, projection) in enumerate(matrices)
    ]


def _slot_gain(parameters: Parameters) -> jax.Array:
    """The slots' gain divided by sqrt(D), f32[L, H, 1, d]."""
    num_layers, num_heads, head_dim, dim = parameters.out.shape
    gain = parameters.of_layers.slot_gain / np.sqrt(dim)
    return gain.reshape(num_layers, num_heads, 1, head_dim)


class _Kept(NamedTuple):
    """What the backward pass needs of a layer. R = N Q rows.

    Fields:
        queries: [R, D], what `keys` multiplies.
        weights: f32[H, N, Q, S + 1], of the softmax.
        context: f32[H, R, d].
        values: [R, D], what `output` multiplies.
        attended: f32[R, D], the residual stream after attention.
        normalised: [R, D], what `projection` multiplies.
        projected: f32[R, D], that product.
    """

    queries: jax.Array
    weights: jax.Array
    context: jax.Array
    values: jax.Array
    attended: jax.Array
    normalised: jax.Array
    projected: jax.Array


def apply(
    weights: Sequence[Folded], x: jax.Array, slots: Sequence[jax.Array], visible: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """The last layer's output f32[N, Q, D], and each layer's input, f32[N, Q, D].

    Args:
        weights: of each layer.
        x: f32[N, Q, D].
        slots: of each layer [H, N, S + 1, d], the last one the mean of the empty entries.
        visible: bool[N, Q, S + 1], at least one of each query.
    """
    rows, inputs = x.reshape(-1, x.shape[-1]), []
    for layer, layer_slots in zip(weights, slots, strict=True):
        inputs.append(rows.reshape(x.shape))
        kept = _forward_layer(layer, rows, layer_slots, visible)
        rows = _output(layer, kept)
    return rows.reshape(x.shape), inputs


@jax.custom_vjp
def learn(
    weights: Parameters, x: jax.Array, slots: Sequence[jax.Array], visible: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What the heads get, f32[N, Q, D], and give, f32[N, Q, K]; differentiable in weights and x.

    Other arguments as for `apply`. The heads' products are float32 in any case.
    """
    return _learn_forward(weights, x, slots, visible)[0]


def _learn_forward(weights: Parameters, x: jax.Array, slots: Sequence[jax.Array], visible: jax.Array) -> Any:
    weights = jax.lax.optimization_barrier(weights)
    products = _product("lij,lkj->lik", weights.queries, weights.keys)
    folded, kept = _fold(weights, products, slots[0].dtype), []
    rows = first = x.reshape(-1, x.shape[-1])
    for layer, layer_slots in zip(folded, slots, strict=True):
        kept.append(_forward_layer(layer, rows, layer_slots, visible))
        rows = _output(layer, kept[-1])
    last = _product("ri,ij->rj", rows.astype(slots[0].dtype), weights.last.astype(slots[0].dtype))
    features, heads_bias = jnp.maximum(last + weights.vectors[-2], 0), weights.vectors[-1, : weights.heads.shape[1]]
    outputs = _product("ri,ik->rk", features, weights.heads) + heads_bias
    results = features.reshape(x.shape), outputs.reshape(*x.shape[:2], -1)
    return results, (weights, products, folded, slots, first, kept, last)


def _forward_layer(weights: Folded, x: jax.Array, slots: jax.Array, visible: jax.Array) -> _Kept:
    """One layer on rows f32[R, D]."""
    num_heads, n, num_slots, head_dim = slots.shape
    rows, dim = x.shape
    dtype, vectors = slots.dtype, weights.vectors
    chex.assert_shape(visible, (n, rows // n, num_slots))

    queries = (normalise(x) * vectors.query_gain + vectors.query_bias).astype(dtype)
    by_head = _product("rhi,hij->hrj", queries.reshape(rows, num_heads, head_dim), weights.keys).astype(dtype)
    energy = _product("hnqd,hnsd->hnqs", by_head.reshape(num_heads, n, -1, head_dim), slots)
    attention = jax.nn.softmax(jnp.where(visible, energy, _MASKED), axis=-1)
    context = _product("hnqs,hnsd->hnqd", attention.astype(dtype), slots).reshape(num_heads, rows, head_dim)
    by_row = jnp.moveaxis(context, 0, 1).reshape(rows, dim)
    values = (by_row * vectors.slot_gain + vectors.slot_bias).astype(dtype)
    attended = x + _product("ri,ij->rj", values, weights.output) + vectors.output_bias
    normalised = (normalise(attended) * vectors.norm_gain + vectors.norm_bias).astype(dtype)
    projected = _product("ri,ij->rj", normalised, weights.projection)
    return _Kept(queries, attention, context, values, attended, normalised, projected)


def _output(weights: Folded, kept: _Kept) -> jax.Array:
    """The result of a layer, f32[R, D]."""
    return kept.attended + jnp.maximum(kept.projected + weights.vectors.projection_bias, 0)


class _Gradients(NamedTuple):
    """Gradients at places of a layer: products' results, and what they multiply.

    Fields:
        update: f32[R, D], of the projection's result, before ReLU.
        normalised: f32[R, D], of what it multiplies.
        attended: f32[R, D], of the residual stream after attention, which is that of attention's result.
        values: f32[H, R, d], of what `output` multiplies.
        projected: f32[H, R, d], of the keys' result.
        queries: f32[R, D], of what `keys` multiplies.
    """

    update: jax.Array
    normalised: jax.Array
    attended: jax.Array
    values: jax.Array
    projected: jax.Array
    queries: jax.Array


def _learn_backward(saved: Any, cotangents: tuple[jax.Array, jax.Array]) -> Any:
    weights, products, folded, slots, first, kept, last = saved
    dtype = slots[0].dtype
    # Without the barrier XLA would keep what is computed again from the forward pass, in kernels of their own.
    streams = [(layer.attended, layer.projected) for layer in kept]
    first, streams, last, cotangents = jax.lax.optimization_barrier((first, streams, last, cotangents))
    to_features, to_outputs = (gradient.reshape(-1, gradient.shape[-1]) for gradient in cotangents)
    kept = [layer._replace(attended=a, projected=p) for layer, (a, p) in zip(kept, streams, strict=True)]
    inputs = [first, *(_output(*layer) for layer in zip(folded, kept, strict=True))]
    to_features = to_features + _product("rk,ik->ri", to_outputs, weights.heads)
    to_last = jnp.where(last + weights.vectors[-2] > 0, to_features, 0)
    to_x, gradients = _product("rj,ij->ri", to_last.astype(dtype), weights.last.astype(dtype)), []
    for layer in reversed([*zip(folded, slots, inputs[:-1], kept, strict=True)]):
        to_x, found = _backward_layer(*layer, to_x)
        gradients.insert(0, found)
    features = jnp.maximum(last + weights.vectors[-2], 0)
    following = _AfterLayers(inputs[-1], to_last, features, to_outputs)
    to_weights = _weight_gradients(weights, products, inputs[:-1], kept, gradients, following, dtype)
    return to_weights, to_x.reshape(*cotangents[0].shape), None, None


learn.defvjp(_learn_forward, _learn_backward)


def _backward_layer(
    weights: Folded, slots: jax.Array, x: jax.Array, kept: _Kept, gradient: jax.Array
) -> tuple[jax.Array, _Gradients]:
    """The gradient of a layer's input x, f32[R, D], from that of its output, and what the parameters' need."""
    num_heads, n, _, head_dim = slots.shape
    rows, dim = gradient.shape
    dtype, vectors = slots.dtype, weights.vectors

    to_update = jnp.where(kept.projected + vectors.projection_bias > 0, gradient, 0)
    to_normalised = _product("rj,ij->ri", to_update.astype(dtype), weights.projection)
    to_attended = gradient + _normalise_backward(kept.attended, to_normalised * vectors.norm_gain)
    to_values = _product("rj,ij->ri", to_attended.astype(dtype), weights.output).reshape(rows, num_heads, head_dim)
    to_values = jnp.moveaxis(to_values, 1, 0)
    to_context = to_values * vectors.slot_gain.reshape(num_heads, 1, head_dim)
    # The sum over slots of weights times their gradient, as one over the d numbers of the context (Dao et al. 2022).
    along = (to_context * kept.context).sum(axis=-1).reshape(num_heads, n, -1, 1)
    to_context = to_context.astype(dtype).reshape(num_heads, n, -1, head_dim)
    to_energy = kept.weights * (_product("hnqd,hnsd->hnqs", to_context, slots) - along)
    to_projected = _product("hnqs,hnsd->hnqd", to_energy.astype(dtype), slots).reshape(num_heads, rows, head_dim)
    to_queries = _product("hrj,hij->rhi", to_projected.astype(dtype), weights.keys).reshape(rows, dim)
    to_queries = jax.lax.optimization_barrier(to_queries)  # else its shape would split the layer norm's kernel
    to_x = to_attended + _normalise_backward(x, to_queries * vectors.query_gain)
    return to_x, _Gradients(to_update, to_normalised, to_attended, to_values, to_projected, to_queries)


class _AfterLayers(NamedTuple):
    """What the gradients of `Following` need.

    Fields:
        y: f32[R, D], the last layer's output.
        to_last: f32[R, D], the gradient of the dense layer's result before ReLU.
        features: f32[R, D], what the heads multiply.
        to_outputs: f32[R, K], the gradient of their result.
    """

    y: jax.Array
    to_last: jax.Array
    features: jax.Array
    to_outputs: jax.Array


def _weight_gradients(
    weights: Parameters,
    products: jax.Array,
    inputs: Sequence[jax.Array],
    kept: Sequence[_Kept],
    gradients: Sequence[_Gradients],
    after: _AfterLayers,
    dtype: DTypeLike,
) -> Parameters:
    """Those of all layers together.

    Args:
        weights: what they are of.
        products: f32[L, d, d], as for `_fold`.
        inputs: f32[R, D] of each layer.
        kept: from the forward pass.
        gradients: of each layer.
        after: of what follows the layers.
        dtype: of products' factors.
    """
    num_layers, num_heads, head_dim, dim = weights.out.shape

    # Output, projection and the last layer have one shape, and the heads may: 2 L + 2 products in one.
    num_outputs = weights.heads.shape[1]
    padded = jnp.pad(after.to_outputs, ((0, 0), (0, dim - num_outputs)))
    factors = [k.values for k in kept] + [k.normalised for k in kept] + [after.y.astype(dtype), after.features]
    results = [g.attended for g in gradients] + [g.update for g in gradients] + [after.to_last, padded]
    together = len(factors) if after.features.dtype == dtype else len(factors) - 1  # the heads' are float32
    stacked = jnp.stack(results)
    matrices = _product("lri,lrj->lij", jnp.stack(factors[:together]), stacked[:together].astype(dtype))
    output, projection = matrices[:num_layers].reshape(weights.out.shape), matrices[num_layers : 2 * num_layers]
    heads = (
        matrices[-1, :, :num_outputs]
        if together == len(factors)
        else _product("ri,rk->ik", after.features, after.to_outputs)
    )
    biases = stacked.sum(axis=1)
    output_bias, projection_bias = biases[:num_layers], biases[num_layers : 2 * num_layers]

    # Gains and biases of layer norms, likewise.
    normalised = jax.lax.optimization_barrier(normalise(jnp.stack([*inputs, *(k.attended for k in kept)])))
    affine = jnp.stack([g.queries for g in gradients] + [g.normalised for g in gradients])
    affine = jnp.concatenate([affine * normalised, affine])
    query_gain, norm_gain, query_bias, norm_bias = jnp.split(affine.sum(axis=1), 4)

    values = jnp.stack([g.values for g in gradients] * 2)
    values = values * jnp.stack([k.context for k in kept] + [jnp.ones_like(k.context) for k in kept])
    through_values, slot_bias = jnp.split(values.sum(axis=2).reshape(2 * num_layers, dim), 2)

    queries = jnp.stack([k.queries for k in kept]).reshape(num_layers, -1, num_heads, head_dim)
    projected = jnp.stack([g.projected for g in gradients]).astype(dtype)
    keys = _product("lrhi,lhrj->lhij", queries, projected)
    through_keys = (keys * products[:, None]).sum(axis=2).reshape(num_layers, dim) / np.sqrt(dim)
    to_product = (keys * _slot_gain(weights)).sum(axis=1)
    vectors = Vectors(
        query_gain, query_bias, through_keys + through_values, slot_bias, output_bias, norm_gain, norm_bias,
        projection_bias,
    )  # fmt: skip
    return Parameters(
        vectors=jnp.concatenate([*vectors, biases[-2:]]),
        queries=_product("lik,lkj->lij", to_product, weights.keys),
        keys=_product("lik,lij->lkj", to_product, weights.queries),
        values=_product("lhik,lhjk->lhij", output, weights.out),
        out=_product("lhij,lhik->lhjk", weights.values, output),
        projection=[*projection],
        last=matrices[2 * num_layers],
        heads=heads,
    )


def normalise(x: jax.Array) -> jax.Array:
    """Layer normalisation f32[..., D] over the last axis, without gain and bias."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + _LAYER_NORM_EPS)


def _normalise_backward(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """The gradient of the input of `normalise` from that of its result, all f32[R, D]."""
    centred = x - x.mean(axis=-1, keepdims=True)
    factor = jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + _LAYER_NORM_EPS)
    normalised = centred * factor
    along = (gradient * normalised).mean(axis=-1, keepdims=True)
    return factor * (gradient - gradient.mean(axis=-1, keepdims=True) - normalised * along)


def _product(dimensions: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """f32 of factors of one dtype."""
    return jnp.einsum(dimensions, left, right, preferred_element_type=jnp.float32)
