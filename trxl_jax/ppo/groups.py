"""Groups of environments, which devices share among them: how an iteration computes on groups and takes sums over them.

A run's environments are divided into groups of equal size. Each group collects its own steps and contributes as many
of them to every minibatch; gradients, moments and metrics are sums over groups, taken in their order. So the number of
groups decides what a run computes, and the number of devices only who computes it: the same numbers, bit for bit.
`Whole` is a single group, `Groups` several, inside a program that `jax.shard_map` runs on each device.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from trxl_jax.ppo.losses import normalise_advantage

AXIS = "devices"
"""Name of the mesh's axis."""


class Grouping(Protocol):
    """What the update must know of groups. A *stacked* tree has arrays [g, ...], one row for each group of a device."""

    def each(self, function: Callable[..., Any], *stacked: Any) -> Any:
        """A function of one group for each of this device's, from stacked trees to a stacked tree."""
        ...

    def keys(self, key: jax.Array) -> Any:
        """Keys of this device's groups, stacked, from a key[] of all."""
        ...

    def mean(self, function: Callable[..., Any], *stacked: Any) -> Any:
        """The mean over all groups of all devices of what a function of one group returns, a tree of float32."""
        ...

    def whole(self, stacked: Any) -> Any:
        """Arrays [g, T, n, ...] of all groups of all devices as [T, N, ...]."""
        ...

    def scanned(self, stacked: Any) -> Any:
        """Arrays [g, K, ...] as [K, g, ...]."""
        ...

    def normalise(self, advantage: jax.Array) -> jax.Array:
        """`losses.normalise_advantage` over all groups, from f32[g, ...]."""
        ...


class Whole:
    """All environments in one group: a stacked tree is the group's own, without an axis. See `Grouping`."""

    def each(self, function: Callable[..., Any], *stacked: Any) -> Any:
        """What the function returns."""
        return function(*stacked)

    def keys(self, key: jax.Array) -> jax.Array:
        """The key[]."""
        return key

    def mean(self, function: Callable[..., Any], *stacked: Any) -> Any:
        """What the function returns."""
        return function(*stacked)

    def whole(self, stacked: Any) -> Any:
        """Arrays [T, N, ...] as they are."""
        return stacked

    def scanned(self, stacked: Any) -> Any:
        """Arrays [K, ...] as they are."""
        return stacked

    def normalise(self, advantage: jax.Array) -> jax.Array:
        """f32[...], normalised."""
        return normalise_advantage(advantage)


class Groups(NamedTuple):
    """Groups over the devices of a mesh whose axis is `AXIS`. See `Grouping`.

    A group's computations are the same program whichever device has it, and however many others there are on it: they
    stand in a loop whose length the compiler can't know, and what goes in is carried from round to round. (Barriers are
    for accelerators: XLA drops them on CPUs before it fuses.)

    Fields:
        num_groups: of all devices; each device has equally many.
        num_devices: devices.
        num_local: i32[], num_groups / num_devices, as an argument of the program.
    """

    num_groups: int
    num_devices: int
    num_local: jax.Array

    def each(self, function: Callable[..., Any], *stacked: Any) -> Any:
        """See `Grouping`."""
        size = self.num_groups // self.num_devices

        def inputs_of(i: jax.Array | int) -> Any:
            at = jnp.minimum(i, size - 1)
            return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, at, keepdims=False), stacked)

        # Carried from the round before, so that taking them apart isn't fused with what the function does.
        def step(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            inputs, results = carry
            result = jax.lax.optimization_barrier(function(*jax.lax.optimization_barrier(inputs)))
            put = jax.lax.dynamic_update_index_in_dim
            results = jax.tree.map(lambda all_of_them, one: put(all_of_them, one, i, 0), results, result)
            return inputs_of(i + 1), results

        first = inputs_of(0)
        shapes = jax.eval_shape(function, *first)
        empty = jax.tree.map(lambda leaf: _zeros((size, *leaf.shape), leaf.dtype), shapes)
        return jax.lax.fori_loop(0, self.num_local, step, (first, empty))[1]

    def keys(self, key: jax.Array) -> jax.Array:
        """key[g]."""
        size = self.num_groups // self.num_devices
        first = jax.lax.axis_index(AXIS) * size
        return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(size))

    def mean(self, function: Callable[..., Any], *stacked: Any) -> Any:
        """See `Grouping`: each device adds up its part of the numbers, then all parts are gathered.

        So a device sends what a reduction round a ring would, and sums have the same order everywhere.
        """
        # As one array already where it is computed: layouts of arrays differ with what is done to them, and layouts
        # decide how products add up.
        rows = self.each(lambda *inputs: ravel_pytree(function(*inputs))[0], *stacked)
        one = jax.eval_shape(function, *jax.tree.map(lambda leaf: leaf[0], stacked))
        length = rows.shape[1]
        padded = jnp.pad(rows, ((0, 0), (0, -length % self.num_groups)))
        parts = padded.reshape(len(rows), self.num_devices, -1).swapaxes(0, 1)
        mine = jax.lax.all_to_all(parts, AXIS, 0, 0).reshape(self.num_groups, -1)

        def add(i: jax.Array, total: jax.Array) -> jax.Array:
            return total + mine[i] / self.num_groups

        # In a loop like that of `each`: what would be fused with the sum depends on whether there is a gathering.
        total = jax.lax.fori_loop(0, self.num_local * self.num_devices, add, jnp.zeros_like(mine[0]))
        whole = jax.lax.all_gather(total, AXIS, tiled=True)[:length]
        return ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), one))[1](whole)

    def whole(self, stacked: Any) -> Any:
        """See `Grouping`."""

        def join(leaf: jax.Array) -> jax.Array:
            gathered = jnp.moveaxis(jax.lax.all_gather(leaf, AXIS, tiled=True), 0, 1)
            return gathered.reshape(gathered.shape[0], -1, *gathered.shape[3:])

        return jax.lax.optimization_barrier(jax.tree.map(join, stacked))

    def scanned(self, stacked: Any) -> Any:
        """See `Grouping`."""
        return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), stacked)

    def normalise(self, advantage: jax.Array) -> jax.Array:
        """See `Grouping`."""
        gathered = jax.lax.optimization_barrier(jax.lax.all_gather(advantage, AXIS, tiled=True))
        normalised = jax.lax.optimization_barrier(normalise_advantage(gathered))
        size = len(advantage)
        return jax.lax.dynamic_slice_in_dim(normalised, jax.lax.axis_index(AXIS) * size, size)


def _zeros(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Zeros, also of typed keys."""
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), shape)
    return jnp.zeros(shape, dtype)
