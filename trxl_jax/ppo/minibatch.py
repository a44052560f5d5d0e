"""Minibatches of a rollout, Q steps of every environment, and the agent's forward pass on them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trxl_jax.agent.actor_critic import ActorCritic, AgentOutput
from trxl_jax.agent.cores.attention import Slots
from trxl_jax.agent.cores.visibility import visible_slots, window_slots
from trxl_jax.ppo.observations import MinibatchObservations
from trxl_jax.ppo.rollout import Rollout

# Gathering the window of each query makes attention a short product per query: 0.13 ms a layer and minibatch of Proof
# of Memory, and 0.41 with all slots. It pays while the copies stay in cache and slots are many times the window.
_MAX_GATHERED = 2**22  # numbers of one layer
_MIN_WINDOWS = 4


class Minibatch(NamedTuple):
    """Q steps of each of N environments.

    Fields:
        observations: those before each step.
        action: [N, Q, A].
        log_prob: f32[N, Q, A], the behaviour policy's.
        value: f32[N, Q], the behaviour policy's.
        advantage: f32[N, Q].
        returns: f32[N, Q].
        query_slot: i32[N, Q], the slot to which each step was written.
        episode_step: i32[N, Q].
    """

    observations: MinibatchObservations
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    returns: jax.Array
    query_slot: jax.Array
    episode_step: jax.Array


def minibatch_indices(key: jax.Array, num_envs: int, num_steps: int, num_minibatches: int) -> jax.Array:
    """Permutes the T steps of each environment independently; i32[num_minibatches, N, T / num_minibatches]."""
    permute = jax.vmap(lambda k: jax.random.permutation(k, num_steps))
    order = permute(jax.random.split(key, num_envs))
    return jnp.moveaxis(order.reshape(num_envs, num_minibatches, -1), 1, 0)


def take_minibatch(
    rollout: Rollout, advantage: jax.Array, returns: jax.Array, steps: jax.Array, window: int
) -> Minibatch:
    """Gathers steps of a time-major rollout into an environment-major minibatch.

    Args:
        rollout: T steps of N environments.
        advantage: f32[T, N].
        returns: f32[T, N].
        steps: i32[N, Q], which steps of each environment.
        window: W.
    """
    envs = jnp.arange(steps.shape[0])[:, None]
    transitions = rollout.transitions
    return Minibatch(
        observations=rollout.observations.take(steps),
        action=transitions.action[steps, envs],
        log_prob=transitions.log_prob[steps, envs],
        value=transitions.value[steps, envs],
        advantage=advantage[steps, envs],
        returns=returns[steps, envs],
        query_slot=window + steps,
        episode_step=transitions.episode_step[steps, envs],
    )


def forward_minibatch(agent: ActorCritic, params: Any, batch: Minibatch, slots: Slots) -> AgentOutput:
    """The agent's output [N, Q, ...] for a minibatch, except `hidden`, which learning doesn't need.

    Args:
        agent: the model.
        params: its parameters.
        batch: Q steps of N environments.
        slots: for each layer f32[N, H, S, D / H], from `encode_slots`.
    """
    encoded = batch.observations.encode(agent, params)
    if gathers_windows(agent, encoded.shape[0] * encoded.shape[1], slots[0].shape[2]):
        return _forward_windows(agent, params, batch, encoded, slots)
    visible = visible_slots(batch.query_slot, batch.episode_step, jnp.arange(slots[0].shape[2]), agent.window)
    return agent.apply(params, encoded, slots, visible, method="decide")


def _forward_windows(
    agent: ActorCritic, params: Any, batch: Minibatch, encoded: jax.Array, slots: Slots
) -> AgentOutput:
    """`forward_minibatch` with each of the N * Q queries as an environment with one query and W - 1 slots."""
    n, q = batch.value.shape
    window_of_query = window_slots(batch.query_slot, agent.window)
    visible = visible_slots(batch.query_slot, batch.episode_step, window_of_query, agent.window)
    envs, heads = jnp.arange(n)[:, None, None, None], jnp.arange(slots[0].shape[1])[:, None]
    windows = [
        layer[envs, heads, window_of_query[:, :, None]].reshape(n * q, heads.shape[0], agent.window - 1, -1)
        for layer in slots
    ]
    queries = encoded.reshape(n * q, 1, -1)
    output = agent.apply(params, queries, windows, visible.reshape(n * q, 1, -1), method="decide")
    return jax.tree.map(lambda x: x.reshape(n, q, *x.shape[2:]), output)


def gathers_windows(agent: ActorCritic, num_queries: int, num_slots: int) -> bool:
    """Whether `forward_minibatch` gathers the window of each query instead of attending to all slots."""
    gathered = num_queries * (agent.window - 1) * agent.dim
    small = 0 < gathered <= _MAX_GATHERED and num_slots >= _MIN_WINDOWS * agent.window
    return agent.numerics.platform == "cpu" and small
