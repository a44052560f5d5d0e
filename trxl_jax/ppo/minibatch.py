"""Minibatches of a rollout: Q steps of every environment, and how the agent looks at them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trxl_jax.agent.actor_critic import ActorCritic, AgentOutput
from trxl_jax.agent.cores.attention import Slots
from trxl_jax.agent.cores.cache import visible_slots, window_slots
from trxl_jax.agent.cpu.frames import Distinct, distinct
from trxl_jax.ppo.rollout import Rollout

# A window copied for each query is read by short products of its own: 0.13 ms a layer and minibatch of Proof of Memory,
# against 0.41 for products with all slots. It pays while copies stay in cache and slots are many times the window.
_WORTHWHILE_COPIES = 2**22  # numbers of one layer
_SLOTS_A_WINDOW = 4


class SharedFrames(NamedTuple):
    """Observations as picks from a pool.

    Fields:
        pool: u8[M, 84, 84, 3].
        distinct: which of them, without repeats; `inverse` has N * Q rows.
    """

    pool: jax.Array
    distinct: Distinct


class Minibatch(NamedTuple):
    """Q steps of each of N environments.

    Fields:
        obs: [N, Q, *obs_shape]; None where `frames` serve and nothing is reconstructed.
        frames: the distinct ones among the observations, where frames are shared.
        action: i32[N, Q, A].
        log_prob: f32[N, Q, A], the behaviour policy's.
        value: f32[N, Q], the behaviour policy's.
        advantage: f32[N, Q].
        returns: f32[N, Q].
        query_slot: i32[N, Q], the slot in which each step was written.
        episode_step: i32[N, Q].
    """

    obs: jax.Array | None
    frames: SharedFrames | None
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    returns: jax.Array
    query_slot: jax.Array
    episode_step: jax.Array


def minibatch_indices(key: jax.Array, num_envs: int, num_steps: int, num_minibatches: int) -> jax.Array:
    """Permutes the T steps of each environment by itself; i32[num_minibatches, N, T / num_minibatches]."""
    permute = jax.vmap(lambda k: jax.random.permutation(k, num_steps))
    order = permute(jax.random.split(key, num_envs))
    return jnp.moveaxis(order.reshape(num_envs, num_minibatches, -1), 1, 0)


def take_minibatch(
    agent: ActorCritic, rollout: Rollout, advantage: jax.Array, returns: jax.Array, index: jax.Array
) -> Minibatch:
    """Picks steps from a time-major rollout into an environment-major minibatch.

    Args:
        agent: the model, which says whether frames are shared.
        rollout: T steps of N environments.
        advantage: f32[T, N].
        returns: f32[T, N].
        index: i32[N, Q], steps of each environment.
    """
    envs = jnp.arange(index.shape[0])[:, None]
    steps = rollout.transitions
    frames = None
    if rollout.first is not None:
        pool = steps.obs.reshape(-1, *steps.obs.shape[2:])
        frames = SharedFrames(pool, distinct(rollout.first[index, envs].reshape(-1)))
    return Minibatch(
        obs=steps.obs[index, envs] if frames is None or agent.reconstruction else None,
        frames=frames,
        action=steps.action[index, envs],
        log_prob=steps.log_prob[index, envs],
        value=steps.value[index, envs],
        advantage=advantage[index, envs],
        returns=returns[index, envs],
        query_slot=agent.window + index,
        episode_step=steps.episode_step[index, envs],
    )


def _encode(agent: ActorCritic, params: Any, batch: Minibatch) -> jax.Array:
    """f32[N, Q, D], each distinct frame encoded once where frames are shared."""
    if batch.frames is None:
        return agent.apply(params, batch.obs, method="encode")
    pool, picked = batch.frames
    features = agent.apply(params, pool, picked.places, picked.num_distinct, method="encode_places")
    return features[picked.inverse].reshape(*batch.value.shape, -1)


def look(agent: ActorCritic, params: Any, batch: Minibatch, slots: Slots) -> AgentOutput:
    """The agent's output [N, Q, ...] for a minibatch, but for `hidden`, which learning doesn't need.

    Args:
        agent: the model.
        params: its parameters.
        batch: Q steps of N environments.
        slots: for each layer f32[N, H, S, D / H], from `encode_slots`.
    """
    encoded = _encode(agent, params, batch)
    n, q = batch.value.shape
    num_slots, window = slots[0].shape[2], agent.window
    if not copies_windows(n * q, num_slots, window, agent.dim, agent.platform):
        visible = visible_slots(batch.query_slot, batch.episode_step, jnp.arange(num_slots), window)
        return agent.apply(params, encoded, slots, visible, method="decide")
    # Each query as an environment of its own, whose slots are its window.
    places = window_slots(batch.query_slot, window)
    visible = visible_slots(batch.query_slot, batch.episode_step, places, window)
    envs, heads = jnp.arange(n)[:, None, None, None], jnp.arange(slots[0].shape[1])[:, None]
    windows = [
        layer[envs, heads, places[:, :, None]].reshape(n * q, *heads.shape[:1], window - 1, -1) for layer in slots
    ]
    alone = encoded.reshape(n * q, 1, -1)
    output = agent.apply(params, alone, windows, visible.reshape(n * q, 1, -1), method="decide")
    return jax.tree.map(lambda x: x.reshape(n, q, *x.shape[2:]), output)


def copies_windows(num_queries: int, num_slots: int, window: int, dim: int, platform: str) -> bool:
    """Whether `look` copies the window of each query instead of letting all of them look at all slots."""
    copies = num_queries * (window - 1) * dim
    return platform == "cpu" and 0 < copies <= _WORTHWHILE_COPIES and num_slots >= _SLOTS_A_WINDOW * window
