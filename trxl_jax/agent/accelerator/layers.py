"""The residual layers of `cores/transformer_xl.py` for GPUs, with a gradient written by hand.

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

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from trxl_jax.agent.accelerator.layer_weights import (
    Folded,
    Following,
    Parameters,
    Vectors,
    fold,
    fold_with,
    parameters_of,
    product,
    slot_gain_of,
)

__all__ = ["Folded", "Following", "Parameters", "apply", "fold", "learn", "parameters_of"]

_MASKED = -1e30
_LAYER_NORM_EPS = 1e-5


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
    products = product("lij,lkj->lik", weights.queries, weights.keys)
    folded, kept = fold_with(weights, products, slots[0].dtype), []
    rows = first = x.reshape(-1, x.shape[-1])
    for layer, layer_slots in zip(folded, slots, strict=True):
        kept.append(_forward_layer(layer, rows, layer_slots, visible))
        rows = _output(layer, kept[-1])
    last = product("ri,ij->rj", rows.astype(slots[0].dtype), weights.last.astype(slots[0].dtype))
    features, heads_bias = jnp.maximum(last + weights.vectors[-2], 0), weights.vectors[-1, : weights.heads.shape[1]]
    outputs = product("ri,ik->rk", features, weights.heads) + heads_bias
    results = features.reshape(x.shape), outputs.reshape(*x.shape[:2], -1)
    return results, (weights, products, folded, slots, first, kept, last)


def _forward_layer(weights: Folded, x: jax.Array, slots: jax.Array, visible: jax.Array) -> _Kept:
    """One layer on rows f32[R, D]."""
    num_heads, n, num_slots, head_dim = slots.shape
    rows, dim = x.shape
    dtype, vectors = slots.dtype, weights.vectors
    chex.assert_shape(visible, (n, rows // n, num_slots))

    queries = (normalise(x) * vectors.query_gain + vectors.query_bias).astype(dtype)
    by_head = product("rhi,hij->hrj", queries.reshape(rows, num_heads, head_dim), weights.keys).astype(dtype)
    energy = product("hnqd,hnsd->hnqs", by_head.reshape(num_heads, n, -1, head_dim), slots)
    attention = jax.nn.softmax(jnp.where(visible, energy, _MASKED), axis=-1)
    context = product("hnqs,hnsd->hnqd", attention.astype(dtype), slots).reshape(num_heads, rows, head_dim)
    by_row = jnp.moveaxis(context, 0, 1).reshape(rows, dim)
    values = (by_row * vectors.slot_gain + vectors.slot_bias).astype(dtype)
    attended = x + product("ri,ij->rj", values, weights.output) + vectors.output_bias
    normalised = (normalise(attended) * vectors.norm_gain + vectors.norm_bias).astype(dtype)
    projected = product("ri,ij->rj", normalised, weights.projection)
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
    to_features = to_features + product("rk,ik->ri", to_outputs, weights.heads)
    to_last = jnp.where(last + weights.vectors[-2] > 0, to_features, 0)
    to_x = product("rj,ij->ri", to_last.astype(dtype), weights.last.astype(dtype))
    gradients: list[Any] = []
    for layer, of_layer, x, of_forward in reversed([*zip(folded, slots, inputs[:-1], kept, strict=True)]):
        to_x, found = _backward_layer(layer, of_layer, x, of_forward, to_x)
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
    to_normalised = product("rj,ij->ri", to_update.astype(dtype), weights.projection)
    to_attended = gradient + _normalise_backward(kept.attended, to_normalised * vectors.norm_gain)
    to_values = product("rj,ij->ri", to_attended.astype(dtype), weights.output).reshape(rows, num_heads, head_dim)
    to_values = jnp.moveaxis(to_values, 1, 0)
    to_context = to_values * vectors.slot_gain.reshape(num_heads, 1, head_dim)
    # The sum over slots of weights times their gradient, as one over the d numbers of the context (Dao et al. 2022).
    along = (to_context * kept.context).sum(axis=-1).reshape(num_heads, n, -1, 1)
    to_context = to_context.astype(dtype).reshape(num_heads, n, -1, head_dim)
    to_energy = kept.weights * (product("hnqd,hnsd->hnqs", to_context, slots) - along)
    to_projected = product("hnqs,hnsd->hnqd", to_energy.astype(dtype), slots).reshape(num_heads, rows, head_dim)
    to_queries = product("hrj,hij->rhi", to_projected.astype(dtype), weights.keys).reshape(rows, dim)
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
        products: f32[L, d, d], as for `fold_with`.
        inputs: f32[R, D] of each layer.
        kept: from the forward pass.
        gradients: of each layer.
        after: of what follows the layers.
        dtype: of products' factors.
    """
    num_layers, num_heads, head_dim, dim = weights.out.shape
    matrices, heads, biases = _of_matrices(kept, gradients, after, dtype)
    output, projection = matrices[:num_layers].reshape(weights.out.shape), matrices[num_layers : 2 * num_layers]
    query_gain, norm_gain, query_bias, norm_bias = _of_norms(inputs, kept, gradients)

    values = jnp.stack([g.values for g in gradients] * 2)
    values = values * jnp.stack([k.context for k in kept] + [jnp.ones_like(k.context) for k in kept])
    through_values, slot_bias = jnp.split(values.sum(axis=2).reshape(2 * num_layers, dim), 2)

    queries = jnp.stack([k.queries for k in kept]).reshape(num_layers, -1, num_heads, head_dim)
    projected = jnp.stack([g.projected for g in gradients]).astype(dtype)
    keys = product("lrhi,lhrj->lhij", queries, projected)
    through_keys = (keys * products[:, None]).sum(axis=2).reshape(num_layers, dim) / np.sqrt(dim)
    to_product = (keys * slot_gain_of(weights)).sum(axis=1)
    vectors = Vectors(
        query_gain=query_gain,
        query_bias=query_bias,
        slot_gain=through_keys + through_values,
        slot_bias=slot_bias,
        output_bias=biases[:num_layers],
        norm_gain=norm_gain,
        norm_bias=norm_bias,
        projection_bias=biases[num_layers : 2 * num_layers],
    )
    return Parameters(
        vectors=jnp.concatenate([*vectors, biases[-2:]]),
        queries=product("lik,lkj->lij", to_product, weights.keys),
        keys=product("lik,lij->lkj", to_product, weights.queries),
        values=product("lhik,lhjk->lhij", output, weights.out),
        out=product("lhij,lhik->lhjk", weights.values, output),
        projection=[*projection],
        last=matrices[2 * num_layers],
        heads=heads,
    )


def _of_matrices(
    kept: Sequence[_Kept], gradients: Sequence[_Gradients], after: _AfterLayers, dtype: DTypeLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of outputs, projections and the last dense layer f32[2 L + 1, D, D]; of the heads; and of all biases.

    They have one shape, and the heads are made to have it: 2 L + 2 products in one.
    """
    dim, num_outputs = after.y.shape[1], after.to_outputs.shape[1]
    padded = jnp.pad(after.to_outputs, ((0, 0), (0, dim - num_outputs)))
    factors = [k.values for k in kept] + [k.normalised for k in kept] + [after.y.astype(dtype), after.features]
    results = jnp.stack([g.attended for g in gradients] + [g.update for g in gradients] + [after.to_last, padded])
    biases = results.sum(axis=1)
    if after.features.dtype == dtype:
        matrices = product("lri,lrj->lij", jnp.stack(factors), results)
        return matrices[:-1], matrices[-1, :, :num_outputs], biases
    # The heads' product is float32 in any case.
    matrices = product("lri,lrj->lij", jnp.stack(factors[:-1]), results[:-1].astype(dtype))
    return matrices, product("ri,rk->ik", after.features, after.to_outputs), biases


def _of_norms(inputs: Sequence[jax.Array], kept: Sequence[_Kept], gradients: Sequence[_Gradients]) -> list[jax.Array]:
    """Gradients f32[L, D] of the layer norms' gains, before and after attention, and of their biases."""
    normalised = jax.lax.optimization_barrier(normalise(jnp.stack([*inputs, *(k.attended for k in kept)])))
    affine = jnp.stack([g.queries for g in gradients] + [g.normalised for g in gradients])
    return jnp.split(jnp.concatenate([affine * normalised, affine]).sum(axis=1), 4)


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
