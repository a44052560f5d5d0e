"""Trees of parameters as one array, for optimisers on GPUs and TPUs.

An optimiser step on forty small arrays starts hundreds of kernels; on one array it is three.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Elementwise(optax.GradientTransformation):
    """An optimiser that treats each number by itself, so that it may be given all parameters as one array.

    Mark one of your own so if that is true of it: `Elementwise(*optimizer)`. Others are given the tree everywhere.
    """


class AdamW(Elementwise):
    """optax's AdamW as `update.make_optimizer` makes it, whose steps on one array are written out here.

    optax computes the corrections of its moments from a count in each step: two kernels for two numbers. Here those of
    many steps are computed at once.
    """

    B1, B2, EPS, DECAY = 0.9, 0.999, 1e-8, 0.01

    @classmethod
    def make(cls) -> "AdamW":
        """With PyTorch's defaults and decay on every parameter; steps are to be multiplied by -learning rate."""
        moments = optax.scale_by_adam(b1=cls.B1, b2=cls.B2, eps=cls.EPS)
        return cls(*optax.chain(moments, optax.add_decayed_weights(cls.DECAY)))

    def corrections(self, state: Any, num_steps: int) -> jax.Array:
        """What the moments are divided by in each of the next steps, f32[num_steps, 2]."""
        count = state[0].count + 1 + jnp.arange(num_steps)
        return jnp.stack([1 - self.B1**count, 1 - self.B2**count], axis=1)

    def step(
        self, params: jax.Array, state: Any, grads: jax.Array, learning_rate: jax.Array, corrections: jax.Array
    ) -> tuple[jax.Array, Any]:
        """Parameters f32[P] and state after a step, with its count as it was.

        Args:
            params: f32[P].
            state: of parameters in one array.
            grads: f32[P].
            learning_rate: f32[].
            corrections: f32[2], a row of `corrections`.
        """
        adam, *rest = state
        mu = (1 - self.B1) * grads + self.B1 * adam.mu
        nu = (1 - self.B2) * (grads**2) + self.B2 * adam.nu
        direction = (mu / corrections[0]) / (jnp.sqrt(nu / corrections[1]) + self.EPS) + self.DECAY * params
        return params + -learning_rate * direction, (adam._replace(mu=mu, nu=nu), *rest)

    def count(self, state: Any, num_steps: int) -> Any:
        """The state after so many calls of `step`, with its count i32[] too."""
        adam, *rest = state
        return (adam._replace(count=adam.count + num_steps), *rest)


class Flat(NamedTuple):
    """How a tree of arrays is one array f32[P].

    Fields:
        treedef: the tree's structure.
        shapes: of its leaves.
    """

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tree: Any) -> "Flat":
        """The form of a tree."""
        leaves, treedef = jax.tree.flatten(tree)
        return cls(treedef, tuple(leaf.shape for leaf in leaves))

    def flatten(self, tree: Any) -> jax.Array:
        """f32[P]."""
        return jnp.concatenate([_turn(leaf).ravel() for leaf in jax.tree.leaves(tree)])

    def unflatten(self, flat: jax.Array, one: jax.Array | float = 1.0) -> Any:
        """Inverse of `flatten`, from f32[P]; `one`, f32[], may be `splitting.one` of something."""
        flat, leaves, first = flat * one, [], 0
        for shape in self.shapes:
            size = math.prod(shape)
            leaves.append(_turn_back(flat[first : first + size], shape))
            first += size
        return self.treedef.unflatten(leaves)

    def flatten_state(self, state: Any) -> Any:
        """An optimiser's state with every tree like this one as one array."""
        return jax.tree.map(lambda part: self.flatten(part) if self._like(part) else part, state, is_leaf=self._like)

    def unflatten_state(self, flat: Any, state: Any) -> Any:
        """Inverse of `flatten_state`; `state` shows the structure."""
        like = jax.tree.map(self._like, state, is_leaf=self._like)
        return jax.tree.map(lambda is_tree, part: self.unflatten(part) if is_tree else part, like, flat)

    def _like(self, part: Any) -> bool:
        return jax.tree.structure(part) == self.treedef


def _turn(leaf: jax.Array) -> jax.Array:
    """Kernels of convolutions [h, w, in, out] as GPUs take them, [out, h, w, in]; others as they are."""
    return leaf.transpose(3, 0, 1, 2) if leaf.ndim == 4 else leaf


def _turn_back(numbers: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Inverse of `_turn`, from f32[size]."""
    if len(shape) != 4:
        return numbers.reshape(shape)
    return numbers.reshape(shape[3], *shape[:3]).transpose(1, 2, 3, 0)


class AsTree:
    """In place of `Flat`: everything stays as it is, whatever arrays [...] there are."""

    def flatten(self, tree: Any) -> Any:
        """The tree."""
        return tree

    def unflatten(self, tree: Any, one: Any = 1.0) -> Any:
        """The tree."""
        return tree

    def flatten_state(self, state: Any) -> Any:
        """The state."""
        return state

    def unflatten_state(self, flat: Any, state: Any) -> Any:
        """The first argument."""
        return flat
