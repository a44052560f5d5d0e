"""Distributions over actions, the layers that parametrise them, and the noise that samples them.

For another kind of action: its space in `envs/actions.py`, how an environment's own actions are made of it in
`envs/native_actions.py`, and here a distribution like `Gaussian` and a case in each of the three functions at the end.
Nothing else in the agent or in PPO knows what an action is, except the inputs of `previous.py`.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trxl_jax.agent.initializers import ACTOR_GAIN, orthogonal_dense
from trxl_jax.agent.numerics import Numerics
from trxl_jax.envs.actions import ActionSpace, BoxActions, DiscreteActions, MixedActions

_MOST_ONE_BY_ONE = 16
_INVALID = -1e9
"""Logit of an invalid choice. Its probability is 0; minus infinity would make NaN of products with it."""


@struct.dataclass
class MultiCategorical:
    """Independent categorical distributions, one for each action branch.

    Fields:
        logits: f32[..., sum(nvec)], the logits of all branches, concatenated.
        nvec: number of choices of each of the A branches.
        mask: bool[..., sum(nvec)], the valid choices; of the others, `make_distribution` has replaced the logits.
            None: all are valid.
        one_by_one: few logits are normalised and compared without reductions: no kernels of their own on accelerators.
    """

    logits: jax.Array
    nvec: tuple[int, ...] = struct.field(pytree_node=False)
    mask: jax.Array | None = None
    one_by_one: bool = struct.field(pytree_node=False, default=False)

    @property
    def parts(self) -> "list[MultiCategorical]":
        """Itself; see `Joint`."""
        return [self]

    def branches(self) -> list[jax.Array]:
        """Normalised logits of each branch, f32[..., nvec[a]]."""
        return [self._normalise(part) for part in self._split(self.logits)]

    def probabilities(self) -> jax.Array:
        """Of all choices, branches concatenated, f32[..., sum(nvec)]."""
        return jnp.exp(jnp.concatenate(self.branches(), axis=-1))

    def _takes_apart(self, logits: jax.Array) -> bool:
        return self.one_by_one and logits.shape[-1] <= _MOST_ONE_BY_ONE

    def _normalise(self, logits: jax.Array) -> jax.Array:
        if not self._takes_apart(logits):
            return jax.nn.log_softmax(logits, axis=-1)
        return jnp.stack(_normalise_columns([*jnp.moveaxis(logits, -1, 0)]), axis=-1)

    def _argmax(self, x: jax.Array) -> jax.Array:
        if not self._takes_apart(x):
            return x.argmax(axis=-1)
        largest, found = x[..., 0], jnp.zeros(x.shape[:-1], jnp.int32)
        for i in range(1, x.shape[-1]):
            found = jnp.where(x[..., i] > largest, i, found)
            largest = jnp.maximum(largest, x[..., i])
        return found

    def _split(self, x: jax.Array) -> list[jax.Array]:
        return jnp.split(x, np.cumsum(self.nvec)[:-1], axis=-1)

    def sample(self, noise: jax.Array) -> jax.Array:
        """Samples i32[..., A] by the Gumbel-max trick, from `sampling_noise` shaped like the logits."""
        return jnp.stack([self._argmax(part) for part in self._split(self.logits + noise)], axis=-1)

    def mode(self) -> jax.Array:
        """The most probable choices, i32[..., A]."""
        return jnp.stack([part.argmax(axis=-1) for part in self._split(self.logits)], axis=-1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probabilities f32[..., A] of actions i32[..., A], one a branch."""
        chex.assert_shape(action, (*self.logits.shape[:-1], len(self.nvec)))
        branches = [
            jnp.take_along_axis(branch, action[..., i : i + 1], axis=-1) for i, branch in enumerate(self.branches())
        ]
        return jnp.concatenate(branches, axis=-1)

    def entropy(self) -> jax.Array:
        """f32[...], summed over branches."""
        return jnp.sum(jnp.stack([-(jnp.exp(b) * b).sum(axis=-1) for b in self.branches()]), axis=0)

    def by_column(self) -> "ColumnCategorical | MultiCategorical":
        """For losses on accelerators: the same with an array for each logit, if there are few."""
        if not self._takes_apart(self.logits):
            return self
        return ColumnCategorical(tuple(jnp.moveaxis(self.logits, -1, 0)), self.nvec)

    def kl_divergence(self, other: "MultiCategorical") -> jax.Array:
        """KL(self || other), f32[...], summed over branches; choices that are invalid in `self` add nothing."""

        def divergence(p: jax.Array, q: jax.Array, valid: jax.Array | None) -> jax.Array:
            # p log(p / q), and q - p, which adds up to nothing: no term is negative, and small divergences aren't
            # differences of large numbers.
            ratio = q - p if valid is None else jnp.where(valid, q - p, 0.0)
            return (jnp.exp(p) * (jnp.expm1(ratio) - ratio)).sum(axis=-1)

        valid = [None] * len(self.nvec) if self.mask is None else self._split(self.mask)
        return jnp.sum(jnp.stack([*map(divergence, self.branches(), other.branches(), valid)]), axis=0)


@struct.dataclass
class ColumnCategorical:
    """`MultiCategorical` with an array for each logit, for losses on accelerators.

    All its numbers are arrays [...], which one kernel computes; sums over choices and indices would be others.

    Fields:
        columns: f32[...] each, the logits of all branches.
        nvec: as in `MultiCategorical`.
    """

    columns: tuple[jax.Array, ...]
    nvec: tuple[int, ...] = struct.field(pytree_node=False)

    def _branches(self) -> list[list[jax.Array]]:
        ends = [0, *np.cumsum(self.nvec)]
        return [_normalise_columns([*self.columns[a:b]]) for a, b in itertools.pairwise(ends)]

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probabilities f32[..., A] of actions i32[..., A], one a branch."""
        selected = [
            functools.reduce(jnp.add, [jnp.where(action[..., i] == choice, x, 0.0) for choice, x in enumerate(branch)])
            for i, branch in enumerate(self._branches())
        ]
        return jnp.stack(selected, axis=-1)

    def entropy(self) -> jax.Array:
        """f32[...], summed over branches."""
        return -functools.reduce(jnp.add, [jnp.exp(x) * x for branch in self._branches() for x in branch])


def _normalise_columns(columns: list[jax.Array]) -> list[jax.Array]:
    """Logarithms of probabilities f32[...] from logits."""
    largest = jax.lax.stop_gradient(functools.reduce(jnp.maximum, columns))
    shifted = [x - largest for x in columns]
    log_total = jnp.log(functools.reduce(jnp.add, [jnp.exp(x) for x in shifted]))
    return [x - log_total for x in shifted]


@struct.dataclass
class Gaussian:
    """Independent normal distributions of K numbers, which are one branch.

    Fields:
        mean: f32[..., K].
        log_std: f32[..., K], logarithms of the standard deviations.
    """

    mean: jax.Array
    log_std: jax.Array

    @property
    def parts(self) -> "list[Gaussian]":
        """Itself; see `Joint`."""
        return [self]

    @property
    def std(self) -> jax.Array:
        """Standard deviations f32[..., K]."""
        return jnp.exp(self.log_std)

    def sample(self, noise: jax.Array) -> jax.Array:
        """Samples f32[..., K] from `sampling_noise` of that shape."""
        return self.mean + self.std * noise

    def mode(self) -> jax.Array:
        """The mean, f32[..., K]."""
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Logarithms of densities f32[..., 1] of actions f32[..., K]."""
        chex.assert_equal_shape([action, self.mean])
        z = (action - self.mean) / self.std
        return (-0.5 * jnp.square(z) - self.log_std - 0.5 * math.log(2 * math.pi)).sum(axis=-1, keepdims=True)

    def entropy(self) -> jax.Array:
        """f32[...], summed over the numbers; may be negative."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(axis=-1)

    def kl_divergence(self, other: "Gaussian") -> jax.Array:
        """KL(self || other), f32[...], summed over the numbers."""
        wider = 2 * (self.log_std - other.log_std)
        apart = jnp.square((self.mean - other.mean) / other.std)
        return 0.5 * (apart + jnp.expm1(wider) - wider).sum(axis=-1)  # no term is negative


@struct.dataclass
class Joint:
    """Independent distributions of the parts of `MixedActions`.

    Fields:
        parts: one a part.
        space: of the actions f32[..., C].
    """

    parts: list[MultiCategorical | Gaussian]
    space: MixedActions = struct.field(pytree_node=False)

    def sample(self, noise: jax.Array) -> jax.Array:
        """Samples f32[..., C] from `sampling_noise`."""
        widths = [sum(part.nvec) or part.num_columns for part in self.space.parts]
        noises = jnp.split(noise, np.cumsum(widths)[:-1], axis=-1)
        return self._join(part.sample(noise) for part, noise in zip(self.parts, noises, strict=True))

    def mode(self) -> jax.Array:
        """The most probable choices and the means, f32[..., C]."""
        return self._join(part.mode() for part in self.parts)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probabilities, or logarithms of densities, f32[..., A] of actions f32[..., C], one a branch."""
        columns = self.space.split(action)
        branches = [part.log_prob(own) for part, own in zip(self.parts, columns, strict=True)]
        return jnp.concatenate(branches, axis=-1)

    def entropy(self) -> jax.Array:
        """f32[...], summed over parts."""
        return jnp.sum(jnp.stack([part.entropy() for part in self.parts]), axis=0)

    def kl_divergence(self, other: "Joint") -> jax.Array:
        """KL(self || other), f32[...], summed over parts."""
        parts: Any = zip(self.parts, other.parts, strict=True)
        return jnp.sum(jnp.stack([ours.kl_divergence(theirs) for ours, theirs in parts]), axis=0)

    def _join(self, columns: Iterable[jax.Array]) -> jax.Array:
        return jnp.concatenate([own.astype(self.space.dtype) for own in columns], axis=-1)


ActionDistribution = MultiCategorical | Gaussian | Joint


class GaussianHead(nn.Module):
    """The parameters of a `Gaussian`: a dense layer's means, and standard deviations that don't depend on the state.

    Fields:
        size: K.
        dim: D.
        numerics: platform and precision.
    """

    size: int
    dim: int
    numerics: Numerics

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """f32[..., D] to means and logarithms of standard deviations, f32[..., 2 K]."""
        mean = orthogonal_dense(self.size, self.dim, ACTOR_GAIN, self.numerics, name="mean")(features)
        log_std = self.param("log_std", nn.initializers.zeros_init(), (self.size,))
        return jnp.concatenate([mean, jnp.broadcast_to(log_std, mean.shape)], axis=-1)


def make_heads(action: ActionSpace, dim: int, numerics: Numerics) -> list[nn.Module]:
    """Layers from features f32[..., D] to the parameters of a distribution over actions, one a branch."""
    heads: list[nn.Module] = []
    for part in action.parts:
        if isinstance(part, DiscreteActions):
            heads += [orthogonal_dense(n, dim, ACTOR_GAIN, numerics) for n in part.nvec]
        else:
            heads.append(GaussianHead(part.num_columns, dim, numerics))
    return heads


def make_distribution(
    action: ActionSpace,
    outputs: Sequence[jax.Array],
    mask: jax.Array | None = None,
    *,
    one_by_one: bool = False,
) -> ActionDistribution:
    """The distribution over [...] whose parameters are the outputs of the heads.

    Args:
        action: the space.
        outputs: of each head, f32[..., nvec[a]] or f32[..., 2 K].
        mask: bool[..., sum(nvec)], the valid choices of all branches that have choices, at least one of each. Invalid
            ones are never sampled nor the mode, and have no part in log-probabilities, entropy and divergence. None:
            all are valid.
        one_by_one: see `MultiCategorical`.
    """
    parts: list[MultiCategorical | Gaussian] = []
    branch = choice = 0
    for part in action.parts:
        own = jnp.concatenate(outputs[branch : branch + part.num_branches], axis=-1)
        branch += part.num_branches
        if isinstance(part, DiscreteActions):
            valid = None
            if mask is not None:
                valid = jnp.broadcast_to(mask[..., choice : choice + sum(part.nvec)], own.shape)
                own = jnp.where(valid, own, _INVALID)
            choice += sum(part.nvec)
            parts.append(MultiCategorical(own, part.nvec, valid, one_by_one))
        else:
            parts.append(Gaussian(*jnp.split(own, 2, axis=-1)))
    return Joint(parts, action) if isinstance(action, MixedActions) else parts[0]


def count_empty(mask: jax.Array, action: ActionSpace) -> jax.Array:
    """In how many steps of a mask bool[..., sum(nvec)] a branch has no valid choice, f32[]."""
    branches = jnp.split(mask, np.cumsum(action.nvec)[:-1], axis=-1)
    return (~jnp.stack([branch.any(axis=-1) for branch in branches]).all(axis=0)).sum().astype(jnp.float32)


def sampling_noise(action: ActionSpace, key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Noise for `sample`, f32[*shape, columns]: standard Gumbel for each choice, standard normal for each number."""
    if isinstance(action, DiscreteActions):
        return jax.random.gumbel(key, (*shape, sum(action.nvec)))
    if isinstance(action, BoxActions):
        return jax.random.normal(key, (*shape, action.num_columns))
    keys = jax.random.split(key, len(action.parts))
    return jnp.concatenate([sampling_noise(*own, shape) for own in zip(action.parts, keys, strict=True)], axis=-1)
