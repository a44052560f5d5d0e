"""Attention of queries to cached hidden states, with query, key and value matrices that all heads share.

The work falls on queries, not on slots. Let n_s be the normalised slots (layer norm without gain and bias). Keys and
values are linear in kv_s = g * n_s + b, and heads share their matrices, therefore

    (W_q q) . (W_k kv_s)  =  (g * W_k^T W_q q) . n_s + a term that is equal for all slots, which softmax ignores,
    sum_s a_s W_v kv_s    =  W_v (g * sum_s a_s n_s + b).

What remains on the side of the memory, n_s, has no parameters unless positions are learned: it is computed once, not
once a query. Consecutive matrices, W_k^T W_q and, after the weighted sum, W_v and the output's, are multiplied first:
two products with queries instead of four. With relative positions W_q q + u takes the place of W_q q, and energies have
a second term, which knows no slots.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.agent.cores import segments
from trxl_jax.agent.cores.relative_positions import RelativeWeights, position_energies
from trxl_jax.agent.cores.segments import OwnEntries
from trxl_jax.agent.cores.softmax import softmax
from trxl_jax.agent.cores.visibility import Visibility
from trxl_jax.agent.initializers import torch_bias, torch_default
from trxl_jax.agent.numerics import Numerics

LAYER_NORM_EPS = 1e-5  # PyTorch's; Flax defaults to 1e-6
_MASKED = -1e30
_MIN_PRODUCTS_OF_A_LOOP = 2**15  # of one head; below, a loop costs more than it saves


def normalise(x: jax.Array) -> jax.Array:
    """Layer normalisation f32[..., D] over the last axis of [..., D], without gain and bias (Ba et al. 2016)."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + LAYER_NORM_EPS)


def attend(query: jax.Array, slots: jax.Array, visible: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Softmax attention in which slots are both keys and values.

    Args:
        query: f32[N, Q, H, d], scaled.
        slots: [N, H, S, d]; products are taken of its dtype and summed in float32.
        visible: bool[N, Q, S].

    Returns:
        f32[N, Q, H, d], undefined where no slot is visible, and the weights f32[N, H, Q, S].
    """
    product = partial(jnp.einsum, preferred_element_type=jnp.float32)
    energy = product("nqhd,nhsd->nhqs", query.astype(slots.dtype), slots)
    # A finite mask, so that a row without a visible slot has no NaN.
    weights = softmax(jnp.where(visible[:, None], energy, _MASKED))
    return product("nhqs,nhsd->nqhd", weights.astype(slots.dtype), slots), weights


@jax.custom_vjp
def attend_frozen_keys(query: jax.Array, slots: jax.Array, visible: jax.Array) -> jax.Array:
    """`attend` without the weights and without a gradient for the keys, one environment and head at a time.

    On a CPU plain matrix products run at about twice the rate of batched ones, an environment's weights stay in cache
    from one product to the next, and recomputing them for the gradient costs less than reading them back.

    Args:
        query: f32[N, Q, H, d], scaled.
        slots: f32[N, H, S, d].
        visible: bool[N, Q, S].

    Returns:
        f32[N, Q, H, d].
    """

    def environment(q: jax.Array, n: jax.Array, see: jax.Array) -> list[jax.Array]:
        return [_weights(h_q, h_n, see) @ h_n for h_q, h_n in zip(q, n, strict=True)]

    return _each_environment(environment, query, slots, visible)


def _attend_fwd(query: jax.Array, slots: jax.Array, visible: jax.Array) -> tuple[jax.Array, Any]:
    return attend_frozen_keys(query, slots, visible), (query, slots, visible)


def _attend_bwd(saved: Any, cotangent: jax.Array) -> tuple[jax.Array, None, None]:
    query, slots, visible = saved

    def head(query: jax.Array, slots: jax.Array, visible: jax.Array, cotangent: jax.Array) -> jax.Array:
        weights = _weights(query, slots, visible)
        d_weights = cotangent @ slots.T
        d_energy = weights * (d_weights - (weights * d_weights).sum(axis=-1, keepdims=True))
        return d_energy @ slots

    def environment(q: jax.Array, n: jax.Array, see: jax.Array, d: jax.Array) -> list[jax.Array]:
        return [head(h_q, h_n, see, h_d) for h_q, h_n, h_d in zip(q, n, jnp.moveaxis(d, 1, 0), strict=True)]

    return _each_environment(environment, query, slots, visible, cotangent), None, None


attend_frozen_keys.defvjp(_attend_fwd, _attend_bwd)


@jax.custom_vjp
def attend_single_query(query: jax.Array, slots: jax.Array, visible: jax.Array) -> jax.Array:
    """`attend_frozen_keys` for a single query per environment: f32[N, 1, H, d].

    Slots are the left factor of products over d: as the right one XLA would transpose them first.
    """
    return _attend_single_query_fwd(query, slots, visible)[0]


def _attend_single_query_fwd(query: jax.Array, slots: jax.Array, visible: jax.Array) -> tuple[jax.Array, Any]:
    energy = jnp.einsum("nhsd,nqhd->nhs", slots, query)
    weights = jax.nn.softmax(jnp.where(visible, energy, _MASKED), axis=-1)
    return jnp.einsum("nhs,nhsd->nhd", weights, slots)[:, None], (weights, slots)


def _attend_single_query_bwd(saved: Any, cotangent: jax.Array) -> tuple[jax.Array, None, None]:
    weights, slots = saved
    d_weights = jnp.einsum("nhsd,nqhd->nhs", slots, cotangent)
    d_energy = weights * (d_weights - (weights * d_weights).sum(axis=-1, keepdims=True))
    return jnp.einsum("nhs,nhsd->nhd", d_energy, slots)[:, None], None, None


attend_single_query.defvjp(_attend_single_query_fwd, _attend_single_query_bwd)


def loops_over_environments(num_queries: int, num_slots: int, head_dim: int) -> bool:
    """Whether Q queries attend to S slots with heads of size d by `attend_frozen_keys`."""
    return num_queries * num_slots * head_dim >= _MIN_PRODUCTS_OF_A_LOOP


def _weights(query: jax.Array, slots: jax.Array, visible: jax.Array) -> jax.Array:
    return jax.nn.softmax(jnp.where(visible, query @ slots.T, _MASKED), axis=-1)


def _each_environment(function: Callable[..., list[jax.Array]], query: jax.Array, *rest: jax.Array) -> jax.Array:
    """Maps a function of f32[H, Q, d] and more, which returns f32[Q, d] a head, over environments; f32[N, Q, H, d]."""

    def one(inputs: tuple[jax.Array, ...]) -> jax.Array:
        return jnp.stack(function(jnp.moveaxis(inputs[0], 1, 0), *inputs[1:]), axis=1)

    return jax.lax.map(one, (query, *rest))


def split_heads(x: jax.Array, num_heads: int) -> jax.Array:
    """[N, S, D] to [N, H, S, D / H]."""
    return jnp.moveaxis(x.reshape(*x.shape[:2], num_heads, -1), 1, 2)


class _Dense(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


class _DenseWeights(nn.Module):
    """The parameters of `initializers.dense` from D to D, without applying them."""

    dim: int

    @nn.compact
    def __call__(self) -> _Dense:
        kernel = self.param("kernel", torch_default, (self.dim, self.dim))
        return _Dense(kernel, self.param("bias", torch_bias(self.dim), (self.dim,)))


class MemoryAttention(nn.Module):
    """Attention of queries over normalised slots; all heads share one matrix each for queries, keys and values.

    Fields:
        num_heads: H, a divisor of D.
        frozen_keys: whether the slots need no gradient.
        numerics: platform and precision.
        max_distance: W, if distances enter the energy (see `relative_positions.py`); 0: they don't.
    """

    num_heads: int
    frozen_keys: bool
    numerics: Numerics
    max_distance: int = 0

    @nn.compact
    def __call__(
        self,
        query: jax.Array,
        slots: jax.Array,
        seen: Visibility,
        empty: jax.Array,
        own: OwnEntries | None = None,
    ) -> jax.Array:
        """Attends; while acting, sows the weights f32[N, H, Q, S] as `intermediates/weights`.

        Args:
            query: f32[N, Q, D], normalised.
            slots: [N, H, S, D / H], positions added, normalised without the gain and bias of their layer norm.
            seen: what the queries may attend to.
            empty: f32[D], the context of a query that sees nothing: the mean of the window's empty entries.
            own: the steps of the queries' segments, encoded as slots are, keys and values alike; their weights
                f32[N, H, Q, G] are sown as `own_weights`.

        Returns:
            f32[N, Q, D].
        """
        n, q, dim = query.shape
        s, visible = slots.shape[2], seen.slots
        head_dim = dim // self.num_heads
        chex.assert_shape([slots, visible, empty], [(n, self.num_heads, s, head_dim), (n, q, s), (dim,)])
        heads = (self.num_heads, head_dim)
        scale = self.param("kv_scale", nn.initializers.ones, (dim,)).reshape(heads)
        bias = self.param("kv_bias", nn.initializers.zeros, (dim,)).reshape(heads)
        w_query, w_key, w_value = (
            self.param(name, torch_default, (head_dim, head_dim)) for name in ("queries", "keys", "values")
        )

        to_keys = w_query @ w_key.T
        by_head = query.reshape(n, q, *heads)
        projected = self.numerics.product(by_head, to_keys) * (scale / np.sqrt(dim))
        weights_wanted = self.is_mutable_collection("intermediates")
        by_position: list[jax.Array] = []
        if self.max_distance:
            relative, root = RelativeWeights.init(self.param, dim, self.num_heads), 1 / np.sqrt(dim)
            projected += relative.content_bias @ w_key.T * (scale * root)
            queries = self.numerics.product(by_head, w_query).astype(jnp.float32) * root
            by_position = position_energies(queries, relative, seen, self.max_distance, root, self.numerics)
        if by_position or own is not None:
            context = self._attend_jointly(projected, slots, visible, own, by_position)
        elif weights_wanted or not self.frozen_keys or not self.numerics.cpu_float32:
            context, weights = attend(projected, slots, visible)
            self.sow("intermediates", "weights", weights * visible[:, None])
        elif q == 1:
            context = attend_single_query(projected, slots, visible)
        elif loops_over_environments(q, s, head_dim):
            context = attend_frozen_keys(projected, slots, visible)
        else:
            context, _ = attend(projected, slots, visible)
        anything = visible if own is None else jnp.concatenate([visible, own.visible], axis=-1)
        any_visible = anything.any(axis=-1)[..., None, None]
        context = jnp.where(any_visible, context, empty.reshape(heads))
        out = _DenseWeights(dim, name="out")()
        # One copy a head: otherwise the product comes out transposed and is copied in every step of a rollout.
        w_values = jnp.broadcast_to(w_value, (self.num_heads, head_dim, head_dim))
        combined = (w_values @ out.kernel.reshape(*heads, dim)).reshape(dim, dim)
        values = (context * scale + bias).reshape(n, q, dim)
        return self.numerics.product(values, combined) + out.bias

    def _attend_jointly(
        self,
        query: jax.Array,
        slots: jax.Array,
        visible: jax.Array,
        own: OwnEntries | None,
        added: Sequence[jax.Array],
    ) -> jax.Array:
        """Attends to slots and, with `own`, steps of the segment; `added` to the energies of both, or nothing."""
        weights = segments.joint_softmax(*segments.energies(query, slots, visible, own, added))
        self.sow("intermediates", "weights", weights[0])
        context = segments.read_slots(weights[0], slots)
        if own is None:
            return context
        self.sow("intermediates", "own_weights", weights[1])
        return context + segments.read_own(weights[1], own.values)
