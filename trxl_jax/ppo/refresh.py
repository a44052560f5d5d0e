"""The memory of a rollout under other parameters than those that acted, and how far the two are apart.

Learning attends to what acting left. Each minibatch changes the parameters, and the memory stays: it is stale.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.agent.cores.base import Queries
from trxl_jax.config import Config
from trxl_jax.ppo.acting import ordered_after
from trxl_jax.ppo.minibatch import Segments, minibatch_segments
from trxl_jax.ppo.rollout import Rollout

Staleness = dict[str, jax.Array]
"""f32[] by the name of the metric."""


def recompute_memory(agent: ActorCritic, params: Any, rollout: Rollout, config: Config) -> Any:
    """The record that acting would have left under these parameters, from the same observations and actions.

    What was carried into the rollout stays as it is: the observations before it are gone.

    Args:
        agent: the model; its core has `carry_of`.
        params: its parameters.
        rollout: T steps of N environments.
        config: sizes.

    Returns:
        Arrays as those of `rollout.memory`.
    """
    return _act_again(agent, params, rollout, _core_inputs(agent, params, rollout, config), config)


def measure_staleness(agent: ActorCritic, params: Any, rollout: Rollout, config: Config) -> Staleness:
    """How far the memory that acting left is from that of these parameters.

    Arguments as for `recompute_memory`.

    Returns:
        `staleness/kl`: KL(policy with the recomputed memory || policy with the cached one), both under `params` and as
        learning computes them, summed over action branches, mean over the N T steps.
        `staleness/hidden_distance`: see `hidden_distance`.
    """
    num_steps, num_envs = rollout.transitions.reward.shape
    x = _core_inputs(agent, params, rollout, config)
    recomputed = _act_again(agent, params, rollout, x, config)
    memories = [agent.apply(params, record, method="prepare") for record in (recomputed, rollout.memory)]

    def divergence(segments: Segments) -> jax.Array:
        at = segments.step, segments.envs
        queries = Queries(segments.step, rollout.transitions.episode_step[at], segments.env)
        mask = agent.mask_of(rollout.observations.take(*at).obs)
        new, cached = (
            agent.apply(params, x[at], memory, queries, config.segment_length, mask, method="learn").policy
            for memory in memories
        )
        return new.kl_divergence(cached).mean()

    # As many steps at once as in a minibatch; which ones doesn't matter.
    chunks = minibatch_segments(jax.random.key(0), num_envs, num_steps, config.num_minibatches, config.segment_length)
    return {
        "staleness/kl": jax.lax.map(divergence, chunks).mean(),
        "staleness/hidden_distance": hidden_distance(recomputed, rollout.memory, num_steps),
    }


def log_staleness(agent: ActorCritic, params: Any, rollout: Rollout, config: Config, iteration: jax.Array) -> Staleness:
    """`measure_staleness` every `config.log_staleness` updates, and minus infinity, which is not logged, in others.

    In a program that is vmapped over seeds every update has the cost.

    Args:
        agent: the model.
        params: its parameters after the update.
        rollout: from which it has learned.
        config: sizes.
        iteration: i32[], updates done.
    """
    measure = partial(measure_staleness, agent, params, rollout, config)
    absent = jax.tree.map(lambda _: jnp.float32(-jnp.inf), jax.eval_shape(measure))
    return jax.lax.cond(iteration % config.log_staleness == 0, measure, lambda: absent)


def hidden_distance(recomputed: Any, cached: Any, num_steps: int) -> jax.Array:
    """||recomputed - cached|| / ||cached|| over what a rollout of T steps wrote into its record, f32[].

    Args:
        recomputed: a record of arrays [N, K, ...]; the last T of K, or all if there are fewer, are the rollout's.
        cached: another one.
        num_steps: T.

    Returns:
        Minus infinity if the cached record is zero.
    """

    def written(record: Any) -> list[jax.Array]:
        floating = [leaf for leaf in jax.tree.leaves(record) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return [leaf[:, -num_steps:].astype(jnp.float32) for leaf in floating]

    old = written(cached)
    moved = sum(jnp.square(x - y).sum() for x, y in zip(written(recomputed), old, strict=True))
    size = jnp.asarray(sum(jnp.square(y).sum() for y in old))
    return jnp.where(size > 0, jnp.sqrt(moved / jnp.where(size > 0, size, 1.0)), -jnp.inf)


def _core_inputs(agent: ActorCritic, params: Any, rollout: Rollout, config: Config) -> jax.Array:
    """What the core gets in each step, f32[T, N, D]; as many observations are encoded at once as in a minibatch."""
    num_steps, num_envs = rollout.transitions.reward.shape
    envs = jnp.arange(num_envs)[:, None]

    def encode(steps: jax.Array) -> jax.Array:
        steps = jnp.broadcast_to(steps, (num_envs, steps.size))
        return rollout.observations.take(steps, envs).encode(agent, params)

    chunks = jnp.arange(num_steps).reshape(config.num_minibatches, -1)
    encoded = jnp.swapaxes(jax.lax.map(encode, chunks), 1, 2).reshape(num_steps, num_envs, -1)
    transitions = rollout.transitions
    return agent.apply(params, encoded, transitions.previous, transitions.episode_step, method="join")


def _act_again(agent: ActorCritic, params: Any, rollout: Rollout, x: jax.Array, config: Config) -> Any:
    """The record of T steps of acting whose core gets `x`, f32[T, N, D]."""
    params = agent.with_folded(params)
    episode_step = rollout.transitions.episode_step
    carry = agent.core.carry_of(rollout.memory, episode_step[0])
    state = agent.apply(params, carry, len(x), config.segment_length, method="start")

    def step(state: Any, now: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Any, None]:
        x, *time = now
        output, entry = agent.apply(params, x, state, *time, method="decide")
        if not agent.numerics.accelerator:
            entry = jax.tree.map(partial(ordered_after, output.value), entry)
        return agent.apply(params, state, entry, *time, method="write"), None

    state, _ = jax.lax.scan(step, state, (x, jnp.arange(len(x)), episode_step))
    _, record = agent.core.finish(state, episode_step[-1] + 1)
    return record
