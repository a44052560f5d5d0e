"""Attention whose keys and values are formed from the slots, for what the algebra of `attention.py` doesn't cover.

A matrix for each head would make that algebra's query as wide as D in each of them. Rotary positions turn keys, so that
a query can't be projected to the slots' side once for all of them.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.agent.cores import segments
from trxl_jax.agent.cores.distances import turn
from trxl_jax.agent.cores.relative_positions import RelativeWeights, position_energies
from trxl_jax.agent.cores.segments import Energies, KeysValues, OwnEntries
from trxl_jax.agent.cores.visibility import Visibility
from trxl_jax.agent.initializers import Linear, dense, torch_default, torch_default_by_head
from trxl_jax.agent.numerics import Numerics


class ProjectedAttention(nn.Module):
    """Multi-head attention over normalised entries, with keys and values.

    Fields:
        dim: D.
        num_heads: H, a divisor of D.
        heads: shared (all heads have the same matrices, energies are divided by sqrt(D)), or full (each has its own,
            and sqrt(D / H)).
        distance: how distances enter the energy: none, relative (Dai et al. 2019, section 3.3) or rotary (Su et al.
            2021).
        window: W; relative distances are less.
        bias: whether the last product has a bias; the others have none.
        numerics: platform and precision.
    """

    dim: int
    num_heads: int
    heads: str
    distance: str
    window: int
    bias: bool
    numerics: Numerics

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        head_dim = self.dim // self.num_heads
        by_head = (self.dim, self.num_heads, head_dim)
        shared = self.heads == "shared"
        shape, init = ((head_dim, head_dim), torch_default) if shared else (by_head, torch_default_by_head)
        self.queries, self.keys, self.values = (self.param(name, init, shape) for name in ("queries", "keys", "values"))
        self.scale = 1 / np.sqrt(self.dim if shared else head_dim)
        if self.distance == "relative":
            self.relative = RelativeWeights.init(self.param, self.dim, self.num_heads)
        self.out = dense(self.dim, self.dim, self.numerics) if self.bias else Linear(self.dim, self.numerics)

    def encode(self, entries: jax.Array, position: jax.Array) -> KeysValues:
        """Keys and values of normalised entries f32[N, S, D], written at the episode steps i32[N, S]."""
        keys = self._project(entries, self.keys)
        if self.distance == "rotary":
            keys = turn(keys, position[..., None])
        values = self._project(entries, self.values)
        return KeysValues(*(jnp.moveaxis(x, 1, 2).astype(self.numerics.dtype) for x in (keys, values)))

    def __call__(
        self,
        query: jax.Array,
        position: jax.Array,
        slots: KeysValues,
        seen: Visibility,
        own: OwnEntries | None,
        empty: jax.Array | None,
    ) -> jax.Array:
        """Attends; sows the weights f32[N, H, Q, S] of slots as `intermediates/weights`, of own steps as `own_weights`.

        Args:
            query: f32[N, Q, D], normalised.
            position: i32[N, Q], the episode steps of the queries.
            slots: of S cached slots, from `encode`.
            seen: what the queries may attend to.
            own: the steps of the queries' segments, from `encode`, where `seen` has some.
            empty: f32[D], the mean of the normalised empty entries, whose value a query that sees nothing gets; None:
                it gets zeros.

        Returns:
            f32[N, Q, D].
        """
        n, q, dim = query.shape
        chex.assert_shape([seen.slots, position], [(n, q, slots.keys.shape[2]), (n, q)])
        queries = self._project(query, self.queries).astype(jnp.float32) * self.scale
        if self.distance == "rotary":
            queries = turn(queries, position[..., None])
        weights = segments.joint_softmax(*self._energies(queries, slots, seen, own))
        self.sow("intermediates", "weights", weights[0])
        context = segments.read_slots(weights[0], slots.values)
        anything = seen.slots.any(axis=-1)
        if own is not None:
            self.sow("intermediates", "own_weights", weights[1])
            context = context + segments.read_own(weights[1], own.values)
            anything |= own.visible.any(axis=-1)
        if empty is not None:
            instead = self._project(empty[None, None], self.values).astype(jnp.float32)
            context = jnp.where(anything[..., None, None], context, instead)
        return self.out(context.reshape(n, q, dim))

    def _energies(
        self, queries: jax.Array, slots: KeysValues, seen: Visibility, own: OwnEntries | None
    ) -> list[Energies]:
        if self.distance != "relative":
            return segments.energies(queries, slots.keys, seen.slots, own)
        by_position = position_energies(queries, self.relative, seen, self.window, self.scale, self.numerics)
        content = queries + self.relative.content_bias * self.scale
        return segments.energies(content, slots.keys, seen.slots, own, by_position)

    def _project(self, x: jax.Array, weight: jax.Array) -> jax.Array:
        """[N, S, D] to [N, S, H, D / H]."""
        heads = (*x.shape[:2], self.num_heads, self.dim // self.num_heads)
        if self.heads == "shared":
            return self.numerics.product(x.reshape(heads), weight)
        return self.numerics.product(x, weight.reshape(self.dim, self.dim)).reshape(heads)
