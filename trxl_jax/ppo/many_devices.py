"""An iteration whose groups of environments lie on several devices, which may belong to several processes.

Parameters and the optimiser's state are the same on every device; environments, memories and rollouts lie where their
group does. Environments on the device collect and learn in one program. Those on the host are stepped by their process,
group after group, on its first device; learning then is one program for all devices.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.config import Config
from trxl_jax.envs.groups import AnyEnvironment, GroupedEnvironment, Layout
from trxl_jax.ppo.groups import AXIS, Groups
from trxl_jax.ppo.rollout import Rollout, RolloutState, init_rollout_state
from trxl_jax.ppo.train_step import (
    TrainOutput,
    compile_train_step,
    compiler_options,
    init_train_state,
    iteration_keys,
    make_collect_and_learn,
)
from trxl_jax.ppo.update import TrainState


def init_all_states(
    env: AnyEnvironment, agent: ActorCritic, key: jax.Array, params: Any = None
) -> tuple[TrainState, Any]:
    """`init_states` with the default optimiser, also of groups, see `init_rollouts`; all on one device."""
    params_key, env_key = jax.random.split(key)
    return init_train_state(agent, params_key, params=params), init_rollouts(env, agent, env_key)


def init_rollouts(env: AnyEnvironment, agent: ActorCritic, key: jax.Array) -> Any:
    """`init_rollout_state`, from a key[]; of groups stacked, or on the host a tuple of this process's."""
    if not isinstance(env, GroupedEnvironment):
        return init_rollout_state(env, agent, key)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(env.layout.num_groups))
    if env.on_host:
        local = zip(env.groups, env.layout.local_groups, strict=True)
        return tuple(init_rollout_state(group, agent, keys[i]) for group, i in local)
    return jax.jit(lambda keys: jax.lax.map(partial(init_rollout_state, env.groups[0], agent), keys))(keys)


def place(states: tuple[TrainState, Any], env: AnyEnvironment) -> tuple[TrainState, Any]:
    """Puts states, of which this process has all numbers that its devices need, onto the devices of their groups."""
    if not isinstance(env, GroupedEnvironment):
        return states
    train_state, rollouts = states
    everywhere, by_group = shardings(env.layout)
    placed = jax.tree.map(partial(_put, everywhere), train_state)
    if env.on_host:
        return placed, jax.device_put(rollouts, jax.local_devices()[0])
    return placed, jax.tree.map(partial(_put, by_group), rollouts)


def shardings(layout: Layout) -> tuple[NamedSharding, NamedSharding]:
    """Of arrays that are the same everywhere, and of stacked ones."""
    mesh = _mesh(layout)
    return NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))


def local_copy(tree: Any) -> Any:
    """Arrays that are the same on every device as arrays of this process's first one."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def compile_step(
    config: Config, env: AnyEnvironment, agent: ActorCritic, states: tuple[TrainState, Any], key: jax.Array
) -> Callable[..., tuple[TrainState, Any, TrainOutput]]:
    """`compile_train_step`, also of groups, for states as `place` returns them and a key[]."""
    if not isinstance(env, GroupedEnvironment):
        return compile_train_step(config, env, agent, states, key)
    if env.on_host:
        return _compile_on_host(config, env, agent, states, key)
    num_local = jnp.int32(env.layout.groups_per_device)
    compiled = lower_step(config, env, agent, states, key).compile(compiler_options(config, agent))
    return lambda train_state, rollouts, key: compiled(train_state, rollouts, key, num_local)


def lower_step(
    config: Config, env: GroupedEnvironment, agent: ActorCritic, states: tuple[TrainState, Any], key: jax.Array
) -> jax.stages.Lowered:
    """An iteration of groups on the device for states with these shapes and shardings and a key[], not compiled."""
    collect, learn = make_collect_and_learn(config, env.groups[0], agent)

    def step(train_state: TrainState, rollouts: Any, key: jax.Array, num_local: jax.Array) -> Any:
        groups = Groups(env.layout.num_groups, len(env.layout.devices), num_local)
        rollout_key, update_key = iteration_keys(key, train_state.iteration)
        collected: Rollout
        rollouts, collected = groups.each(partial(collect, train_state), rollouts, groups.keys(rollout_key))
        train_state, metrics = learn(train_state, collected, update_key, groups)
        return train_state, rollouts, TrainOutput(metrics, groups.whole(collected.episode))

    program = _spread(step, env.layout, (P(), P(AXIS), P(), P()), (P(), P(AXIS), P()))
    return program.lower(*states, key, jax.ShapeDtypeStruct((), jnp.int32))


def _compile_on_host(
    config: Config, env: GroupedEnvironment, agent: ActorCritic, states: tuple[TrainState, Any], key: jax.Array
) -> Callable[..., tuple[TrainState, Any, TrainOutput]]:
    layout, options = env.layout, compiler_options(config, agent)
    num_local = jnp.int32(layout.groups_per_device)
    # A program for each group: each calls its own environments.
    pairs = [make_collect_and_learn(config, group, agent) for group in env.groups]
    learn = pairs[0][1]
    acting, rollouts = local_copy(states[0]), states[1]
    lowered = [jax.jit(collect).lower(acting, rollouts[0], key) for collect, _ in pairs]
    collects = [one.compile(options) for one in lowered]

    def learn_from(train_state: TrainState, collected: Rollout, key: jax.Array, num_local: jax.Array) -> Any:
        groups = Groups(layout.num_groups, len(layout.devices), num_local)
        _, update_key = iteration_keys(key, train_state.iteration)
        train_state, metrics = learn(train_state, collected, update_key, groups)
        return train_state, TrainOutput(metrics, groups.whole(collected.episode))

    program = _spread(learn_from, layout, (P(), P(AXIS), P(), P()), (P(), P()))

    def step(train_state: TrainState, rollouts: Sequence[RolloutState], key: jax.Array) -> Any:
        acting = local_copy(train_state)
        rollout_key, _ = iteration_keys(key, acting.iteration)
        keys = [jax.random.fold_in(rollout_key, i) for i in layout.local_groups]
        results = [
            jax.block_until_ready(collect(acting, state, group_key))
            for collect, state, group_key in zip(collects, rollouts, keys, strict=True)
        ]
        collected = _stacked([of_group for _, of_group in results], layout)
        train_state, output = program(train_state, collected, key, num_local)
        return train_state, tuple(state for state, _ in results), output

    return step


def _spread(function: Any, layout: Layout, in_specs: Any, out_specs: Any) -> Any:
    # Results that are the same on every device aren't marked as such by all_gather.
    mesh = _mesh(layout)
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False))


def _mesh(layout: Layout) -> Mesh:
    return Mesh(np.array(layout.devices), (AXIS,))


def _stacked(local: Sequence[Any], layout: Layout) -> Any:
    """Trees of this process's groups as one stacked tree over all devices."""
    (_, sharding), size = shardings(layout), layout.groups_per_device
    devices = [device for device in layout.devices if device.process_index == jax.process_index()]

    def stack(*leaves: jax.Array) -> jax.Array:
        parts = [leaves[i * size : (i + 1) * size] for i in range(len(devices))]
        arrays = [jax.device_put(jnp.stack(part), device) for part, device in zip(parts, devices, strict=True)]
        shape = (layout.num_groups, *leaves[0].shape)
        return jax.make_array_from_single_device_arrays(shape, sharding, arrays)

    return jax.tree.map(stack, *local)


def _put(sharding: NamedSharding, leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _put(sharding, jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    numbers = np.asarray(leaf)
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: numbers[index])
