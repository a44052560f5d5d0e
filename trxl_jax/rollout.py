"""Collects T steps from N environments with one `lax.scan`."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax import memory as episodic
from trxl_jax.agent import ActorCritic, AgentOutput
from trxl_jax.envs.base import Environment, EpisodeStats, TimeStep
from trxl_jax.frames import FrameTable, add_step, empty_table
from trxl_jax.memory import EpisodicMemory, ring_slots, visible_slots
from trxl_jax.transformer import Slots

_NEW_FRAMES_A_CHUNK = 16


class Transition(NamedTuple):
    """T steps of N environments, time-major; inside the scan one step without the leading T.

    Fields:
        obs: [T, N, *obs_shape], before the step.
        action: i32[T, N, A].
        log_prob: f32[T, N, A], of each branch's choice.
        value: f32[T, N].
        reward: f32[T, N]; with `bootstrap_truncated`, a truncated step's holds its bootstrap too.
        done: bool[T, N], terminated or truncated.
        episode_step: i32[T, N], k, counted from 0.
    """

    obs: Any
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    episode_step: jax.Array


@struct.dataclass
class RolloutState:
    """What goes on from one rollout to the next.

    Fields:
        env_state: the environments' own.
        obs: [N, *obs_shape], the next observations.
        memory: the W newest slots.
    """

    env_state: Any
    obs: jax.Array
    memory: EpisodicMemory


class Rollout(NamedTuple):
    """What one rollout hands to the update.

    Fields:
        transitions: T steps.
        memory: S = W + T slots; step t was written in slot W + t.
        last_value: f32[N], the value of the observations after the last step.
        episode: statistics of the episodes that ended, each [T, N].
        first: i32[T, N], for each observation the place t * N + n of the first equal one, where frames are shared.
    """

    transitions: Transition
    memory: EpisodicMemory
    last_value: jax.Array
    episode: EpisodeStats
    first: jax.Array | None = None


class _Carry(NamedTuple):
    state: RolloutState
    ring: Slots  # [N, H, W, D / H] a layer: the newest slots as queries see them, encoded once, when written
    table: FrameTable | None  # features of the frames seen in this rollout; None if frames aren't shared


def start(env: Environment, agent: ActorCritic, key: jax.Array, memory_dtype: str = "bfloat16") -> RolloutState:
    """Resets the environments and empties the memory."""
    env_state, obs = env.reset(key)
    memory = episodic.init(env.num_envs, agent.window, agent.num_layers, agent.dim, jnp.dtype(memory_dtype))
    return RolloutState(env_state=env_state, obs=obs, memory=memory)


def act(
    agent: ActorCritic, params: Any, encoded: jax.Array, ring: Slots, slot: jax.Array, episode_step: jax.Array
) -> AgentOutput:
    """One step in every environment: Q = 1 on the W slots before `slot`.

    Args:
        agent: the model.
        params: its parameters.
        encoded: f32[N, D], from `ActorCritic.encode`.
        ring: [N, H, W, D / H] a layer; slot s has place s modulo W.
        slot: i32[], the slot in which this step is, or would be, written; at least W.
        episode_step: i32[N].

    Returns:
        The output without the query axis: logits f32[N, ...], value f32[N], hidden f32[N, L, D].
    """
    window = agent.window
    query_slot = jnp.broadcast_to(slot, (encoded.shape[0], 1))
    visible = visible_slots(query_slot, episode_step[:, None], ring_slots(slot, window), window)
    output = agent.apply(params, encoded[:, None], ring, visible, method="decide")
    return jax.tree.map(lambda x: jnp.squeeze(x, axis=1), output)


def collect_rollout(
    agent: ActorCritic,
    params: Any,
    env: Environment,
    state: RolloutState,
    key: jax.Array,
    num_steps: int,
    *,
    gamma: float = 0.995,
    bootstrap_truncated: bool = False,
) -> tuple[RolloutState, Rollout]:
    """Acts for T = `num_steps` steps.

    Args:
        agent: the model.
        params: its parameters, the same for the whole rollout.
        env: N environments.
        state: where the last rollout ended.
        key: source of the actions.
        num_steps: T.
        gamma: discount of the bootstrap of truncated episodes.
        bootstrap_truncated: add gamma times the value of its final observation to a truncated step's reward; the
            environment must have been built with `send_final_obs`.
    """
    window = agent.window

    def encode_slots(hidden: jax.Array, position: jax.Array) -> Slots:
        return agent.apply(params, hidden, position, method="encode_slots")

    def encode(obs: jax.Array) -> jax.Array:
        return agent.apply(params, obs, method="encode")

    def encode_some(frames: jax.Array, count: jax.Array) -> jax.Array:
        places = jnp.arange(frames.shape[0])
        return agent.apply(params, frames, places, count, _NEW_FRAMES_A_CHUNK, method="encode_places")

    def bootstrap(step: TimeStep, ring: Slots, slot: jax.Array, episode_step: jax.Array) -> jax.Array:
        def value() -> jax.Array:
            assert step.final_obs is not None, "the environment was built without send_final_obs"
            return act(agent, params, encode(step.final_obs), ring, slot + 1, episode_step + 1).value

        values = jax.lax.cond(step.truncated.any(), value, lambda: jnp.zeros_like(step.reward))
        # An episode that terminated and was truncated in the same step has no value left.
        return gamma * jnp.where(step.truncated & ~step.terminated, values, 0.0)

    def one_step(carry: _Carry, inputs: tuple[jax.Array, jax.Array]) -> tuple[_Carry, tuple[Transition, EpisodeStats]]:
        t, noise = inputs
        slot = window + t
        obs, memory = carry.state.obs, carry.state.memory
        episode_step = memory.episode_step
        table = carry.table
        if table is None:
            encoded = encode(obs)
        else:
            table, encoded = add_step(table, t, obs, encode_some)
        output = act(agent, params, encoded, carry.ring, slot, episode_step)
        action = output.policy.choose(noise)

        # Hidden states don't depend on the last layer's read of the ring. If the write didn't wait for it either, XLA
        # would copy the ring in every step, 12 ms in place of 7 at the defaults.
        hidden = output.hidden + 0.0 * output.value[:, None, None]
        memory = episodic.append(memory, slot, hidden)
        # Rounded as in the memory, so that acting sees what learning will see.
        entry = encode_slots(hidden[:, None].astype(memory.hidden.dtype), episode_step[:, None])
        ring = [
            jax.lax.dynamic_update_slice_in_dim(layer, new, slot % window, axis=2)
            for layer, new in zip(carry.ring, entry, strict=True)
        ]

        env_state, step = env.step(carry.state.env_state, action)
        done = step.terminated | step.truncated
        reward = step.reward
        if bootstrap_truncated:
            reward = reward + bootstrap(step, ring, slot, episode_step)
        state = RolloutState(env_state=env_state, obs=step.obs, memory=episodic.advance(memory, done))
        transition = Transition(
            obs=obs if table is None else None,  # the table keeps them
            action=action,
            log_prob=output.policy.log_prob(action),
            value=output.value,
            reward=reward,
            done=done,
            episode_step=episode_step,
        )
        return _Carry(state, ring, table), (transition, step.episode)

    extended = episodic.start_rollout(state.memory, num_steps)
    table = empty_table(num_steps, state.obs, agent.dim) if agent.shares_frames else None
    ring = encode_slots(state.memory.hidden, state.memory.position)
    carry = _Carry(dataclasses.replace(state, memory=extended), ring, table)
    # All at once: drawn step by step, noise takes a dozen operations of a few numbers in each of them.
    draw = jax.vmap(lambda key: jax.random.gumbel(key, (env.num_envs, sum(agent.spec.action_nvec))))
    noise = draw(jax.random.split(key, num_steps))
    carry, (transitions, episode) = jax.lax.scan(one_step, carry, (jnp.arange(num_steps), noise))

    state, memory = carry.state, carry.state.memory
    first = None
    if carry.table is not None:
        transitions = transitions._replace(obs=carry.table.obs)
        first = carry.table.first.reshape(num_steps, -1)
    last = act(agent, params, encode(state.obs), carry.ring, jnp.int32(window + num_steps), memory.episode_step)
    next_state = dataclasses.replace(state, memory=episodic.end_rollout(memory, window))
    return next_state, Rollout(transitions, memory, last.value, episode, first)
