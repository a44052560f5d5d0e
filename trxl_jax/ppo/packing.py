"""Small arrays of many environments in one, for GPUs and TPUs.

A loop carries and records dozens of arrays of N numbers: the fields of the environments' states, rewards, flags, log-
probabilities. Copying or writing each one starts a kernel. Packed they are one array u32[K, N], K words an environment;
floats keep their bits.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_MOST_WORDS = 64  # of a leaf and environment: what is larger travels by itself


class _Leaf(NamedTuple):
    """How a leaf is packed: where, and what it was."""

    first: int
    shape: tuple[int, ...]
    dtype: Any
    key_impl: Any  # None: it is no random key


class Packing(NamedTuple):
    """How trees of one structure are packed.

    Fields:
        treedef: the structure.
        leaves: how each leaf is packed; None: not at all.
    """

    treedef: Any
    leaves: tuple[_Leaf | None, ...]

    @classmethod
    def of(cls, tree: Any, num_envs: int) -> "Packing":
        """That of a tree of arrays: [N, ...], and others, such as one key for all environments, which aren't packed."""
        leaves, treedef = jax.tree.flatten(tree)
        first, packed = 0, []
        for leaf in leaves:
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            data, impl = (jax.random.key_data(leaf), jax.random.key_impl(leaf)) if is_key else (leaf, None)
            size = math.prod(data.shape[1:])
            of_each = leaf.shape[:1] == (num_envs,)
            fits = of_each and size <= _MOST_WORDS and np.dtype(data.dtype).name in _PACKED
            packed.append(_Leaf(first, data.shape[1:], leaf.dtype, impl) if fits else None)
            first += size if fits else 0
        return cls(treedef, tuple(packed))

    def pack(self, tree: Any) -> tuple[jax.Array | None, list[Any]]:
        """Words u32[K, N] (None if there are none) and the leaves that are not packed."""
        words, others = [], []
        for leaf, how in zip(self.treedef.flatten_up_to(tree), self.leaves, strict=True):
            if how is None:
                others.append(leaf)
            else:
                words.append(_to_words(leaf, how))
        return (jnp.concatenate(words) if words else None), others

    def unpack(self, words: jax.Array | None, others: list[Any]) -> Any:
        """Inverse of `pack`, for words u32[..., K, N] with any axes in front."""
        rest = iter(others)
        leaves = [next(rest) if how is None else _from_words(words, how) for how in self.leaves]
        return self.treedef.unflatten(leaves)


_PACKED = ("bool", "int32", "uint32", "float32", "uint8", "int8", "uint16", "int16")


def _to_words(leaf: Any, how: _Leaf) -> jax.Array:
    data = leaf if how.key_impl is None else jax.random.key_data(leaf)
    if data.dtype == jnp.float32:
        data = jax.lax.bitcast_convert_type(data, jnp.uint32)
    return data.reshape(data.shape[0], -1).T.astype(jnp.uint32)


def _from_words(words: Any, how: _Leaf) -> Any:
    own = jnp.moveaxis(words[..., how.first : how.first + math.prod(how.shape), :], -2, -1)
    own = own.reshape(*own.shape[:-1], *how.shape)
    if how.key_impl is not None:
        return jax.random.wrap_key_data(own, impl=how.key_impl)
    if how.dtype == jnp.float32:
        return jax.lax.bitcast_convert_type(own, jnp.float32)
    return own != 0 if how.dtype == bool else own.astype(how.dtype)


def scan_packed(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, inputs: Any, num_envs: int) -> tuple[Any, Any]:
    """`jax.lax.scan` over T steps, in which arrays [N, ...] of the carry and the outputs are packed.

    Inputs are arrays [T, ...]; the step gets its number, i32[], and its inputs. Outputs get an axis T in front.
    """
    carried = Packing.of(carry, num_envs)
    recorded: list[Packing] = []

    def packed_step(state: Any, now: Any) -> tuple[Any, Any]:
        t, packed = state  # carried: from an array of numbers XLA would copy it in every step
        carry, outputs = step(carried.unpack(*packed), (t, now))
        recorded[:] = [Packing.of(outputs, num_envs)]
        return (t + 1, carried.pack(carry)), recorded[0].pack(outputs)

    (_, packed), outputs = jax.lax.scan(packed_step, (jnp.int32(0), carried.pack(carry)), inputs)
    return carried.unpack(*packed), recorded[0].unpack(*outputs)


def scan_stacked(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, inputs: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` over T steps whose outputs, a tree of f32[], are recorded in one array; they are f32[T]."""
    shapes = jax.eval_shape(step, carry, jax.tree.map(lambda x: x[0], inputs))[1]
    treedef: Any = jax.tree.structure(shapes)

    def stacked_step(carry: Any, now: Any) -> tuple[Any, jax.Array]:
        carry, outputs = step(carry, now)
        return carry, jnp.stack(jax.tree.leaves(outputs))

    carry, outputs = jax.lax.scan(stacked_step, carry, inputs)
    return carry, treedef.unflatten([*jnp.moveaxis(outputs, 1, 0)])
