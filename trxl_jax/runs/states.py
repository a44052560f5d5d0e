"""The states of all processes of a run, which a checkpoint holds, and the part of them that one process needs.

States are a `TrainState`, the same for all, and those of rollouts: for environments on the device arrays over all
devices, for environments on the host a tuple with one for each group of this process.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from trxl_jax.envs.groups import AnyEnvironment, GroupedEnvironment
from trxl_jax.ppo.many_devices import local_copy
from trxl_jax.ppo.update import TrainState

States = tuple[TrainState, Any]


def blank(shapes: Any) -> Any:
    """Zeros in a tree of shapes."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def blank_of_all(states: States, env: AnyEnvironment) -> States:
    """Zeros in the shapes of what `gather_states` returns."""
    train_state, rollouts = states
    if isinstance(rollouts, tuple):
        assert isinstance(env, GroupedEnvironment)
        rollouts = tuple(rollouts[:1]) * env.layout.num_groups
    return blank((train_state, rollouts))


def own_part(states: States, env: AnyEnvironment) -> States:
    """Of states of all processes what this one needs."""
    train_state, rollouts = states
    if isinstance(rollouts, tuple):
        assert isinstance(env, GroupedEnvironment)
        local = env.layout.local_groups
        rollouts = rollouts[local.start : local.stop]
    return train_state, rollouts


def gather_states(states: States) -> States:
    """The states of all processes, of several in NumPy with keys as integers; all processes must call it."""
    train_state, rollouts = states
    if jax.process_count() == 1:
        return states
    gather = _gather_groups if isinstance(rollouts, tuple) else _gather_shards
    return _in_numpy(local_copy(train_state)), gather(rollouts)


def _gather_groups(groups: tuple[Any, ...]) -> tuple[Any, ...]:
    """Trees of arrays, one for each group of a process, as those of all processes, in NumPy."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *map(_in_numpy, groups))
    joined = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), multihost_utils.process_allgather(stacked))
    count = len(jax.tree.leaves(joined)[0])
    return tuple(jax.tree.map(lambda leaf, i=i: leaf[i], joined) for i in range(count))


def _gather_shards(tree: Any) -> Any:
    """A tree of arrays over all devices with all their numbers, in NumPy, keys as integers."""
    return multihost_utils.process_allgather(jax.tree.map(_key_data, tree), tiled=True)


def _in_numpy(tree: Any) -> Any:
    """A tree of arrays of this process in NumPy, keys as integers."""
    return jax.tree.map(lambda leaf: np.asarray(_key_data(leaf)), tree)


def _key_data(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
