"""Collects T steps from N environments with one `lax.scan`."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from trxl_jax import memory as episodic
from trxl_jax.agent import ActorCritic, AgentOutput
from trxl_jax.envs.base import Environment, EpisodeStats, InParts, TimeStep
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


class _Part(NamedTuple):
    """Some of the environments, between two of their steps."""

    obs: jax.Array
    memory: EpisodicMemory
    ring: Slots  # [n, H, W, D / H] a layer: the newest slots as queries see them, encoded once, when written


class _Decision(NamedTuple):
    """What the agent did in a step; fields as in `Transition`."""

    obs: jax.Array | None
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    episode_step: jax.Array


class _Outcome(NamedTuple):
    """What the environments made of it."""

    reward: jax.Array
    done: jax.Array
    episode: EpisodeStats


class _Carry(NamedTuple):
    env_state: Any
    parts: tuple[_Part, ...]
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


@dataclasses.dataclass(frozen=True)
class _Player:
    """The agent under the parameters of one rollout, as it plays."""

    agent: ActorCritic
    params: Any
    gamma: float
    bootstrap_truncated: bool

    def encode(self, obs: jax.Array) -> jax.Array:
        return self.agent.apply(self.params, obs, method="encode")

    def encode_slots(self, hidden: jax.Array, position: jax.Array) -> Slots:
        return self.agent.apply(self.params, hidden, position, method="encode_slots")

    def encode_some(self, frames: jax.Array, count: jax.Array) -> jax.Array:
        places = jnp.arange(frames.shape[0])
        return self.agent.apply(self.params, frames, places, count, _NEW_FRAMES_A_CHUNK, method="encode_places")

    def decide(
        self, part: _Part, table: FrameTable | None, place: jax.Array, slot: jax.Array, noise: jax.Array
    ) -> tuple[_Part, FrameTable | None, _Decision]:
        """Acts on the observations and writes the step to the memory; their frames begin at `place` in the table."""
        obs, memory, ring = part
        episode_step = memory.episode_step
        if table is None:
            encoded = self.encode(obs)
        else:
            table, encoded = add_step(table, place, obs, self.encode_some)
        output = act(self.agent, self.params, encoded, ring, slot, episode_step)
        action = output.policy.choose(noise)

        # Hidden states don't depend on the last layer's read of the ring. If the write didn't wait for it either, XLA
        # would copy the ring in every step, 12 ms in place of 7 at the defaults.
        hidden = output.hidden + 0.0 * output.value[:, None, None]
        memory = episodic.append(memory, slot, hidden)
        # Rounded as in the memory, so that acting sees what learning will see.
        entry = self.encode_slots(hidden[:, None].astype(memory.hidden.dtype), episode_step[:, None])
        ring = [
            jax.lax.dynamic_update_slice_in_dim(layer, new, slot % self.agent.window, axis=2)
            for layer, new in zip(ring, entry, strict=True)
        ]
        decision = _Decision(
            obs=obs if table is None else None,  # the table keeps them
            action=action,
            log_prob=output.policy.log_prob(action),
            value=output.value,
            episode_step=episode_step,
        )
        return _Part(obs, memory, ring), table, decision

    def observe(self, part: _Part, step: TimeStep, slot: jax.Array, is_new: ArrayLike) -> tuple[_Part, _Outcome]:
        """Takes the outcome of the step in `slot`; if it isn't new, only its observations, which are the same."""
        done = step.terminated | step.truncated
        reward = step.reward
        if self.bootstrap_truncated:
            reward = reward + self._bootstrap(part, step, slot)
        memory = episodic.advance(part.memory, done)
        episode_step = jnp.where(is_new, memory.episode_step, part.memory.episode_step)
        memory = dataclasses.replace(memory, episode_step=episode_step)
        return part._replace(obs=step.obs, memory=memory), _Outcome(reward, done, step.episode)

    def value(self, part: _Part, slot: jax.Array) -> jax.Array:
        """f32[n], of the present observations, before their step is written to `slot`."""
        encoded = self.encode(part.obs)
        return act(self.agent, self.params, encoded, part.ring, slot, part.memory.episode_step).value

    def _bootstrap(self, part: _Part, step: TimeStep, slot: jax.Array) -> jax.Array:
        def value() -> jax.Array:
            assert step.final_obs is not None, "the environment was built without send_final_obs"
            memory = episodic.advance(part.memory, jnp.zeros_like(step.truncated))
            return self.value(_Part(step.final_obs, memory, part.ring), slot + 1)

        values = jax.lax.cond(step.truncated.any(), value, lambda: jnp.zeros_like(step.reward))
        # An episode that terminated and was truncated in the same step has no value left.
        return self.gamma * jnp.where(step.truncated & ~step.terminated, values, 0.0)


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

    An environment of several parts is stepped one part after the other, each while the agent acts in the next.

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
    window, num_envs = agent.window, env.num_envs
    player = _Player(agent, params, gamma, bootstrap_truncated)
    in_parts: InParts | None = env if isinstance(env, InParts) and env.num_parts > 1 else None
    num_parts = in_parts.num_parts if in_parts else 1
    size = num_envs // num_parts

    def one_step(
        carry: _Carry, inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[_Carry, tuple[list[_Decision], list[_Outcome]]]:
        t, noise = inputs
        slot = window + t
        env_state, parts, table = carry.env_state, list(carry.parts), carry.table
        decisions: list[Any] = [None] * num_parts
        outcomes: list[Any] = [None] * num_parts
        for i in range(num_parts):
            start = i * size
            parts[i], table, decisions[i] = player.decide(
                parts[i], table, t * num_envs + start, slot, noise[start : start + size]
            )
            action = decisions[i].action
            env_state, step = in_parts.exchange(env_state, i, action) if in_parts else env.step(env_state, action)
            other = (i + 1) % num_parts
            behind = min(other, 1)  # only the first part has begun this step when others are asked for their last one
            parts[other], outcomes[other] = player.observe(parts[other], step, slot - behind, is_new=t >= behind)
        return _Carry(env_state, tuple(parts), table), (decisions, outcomes)

    extended = episodic.start_rollout(state.memory, num_steps)
    ring = player.encode_slots(state.memory.hidden, state.memory.position)
    whole = _Part(state.obs, extended, ring)
    parts = _split(whole, num_parts)
    table = empty_table(num_steps * num_envs, state.obs, agent.dim) if agent.shares_frames else None
    # All at once: drawn step by step, noise takes a dozen operations of a few numbers in each of them.
    draw = jax.vmap(lambda key: jax.random.gumbel(key, (num_envs, sum(agent.spec.action_nvec))))
    noise = draw(jax.random.split(key, num_steps))
    carry = _Carry(state.env_state, tuple(parts), table)
    carry, (decisions, outcomes) = jax.lax.scan(one_step, carry, (jnp.arange(num_steps), noise))

    end = jnp.int32(window + num_steps)
    env_state, last_parts = carry.env_state, list(carry.parts)
    for i in range(1, num_parts):
        assert in_parts
        env_state, step = in_parts.receive(env_state, i)
        last_parts[i], last = player.observe(last_parts[i], step, end - 1, is_new=True)
        # What it was observed to bring in the first step of the scan belongs to the rollout before.
        outcomes[i] = jax.tree.map(lambda x, y: jnp.concatenate([x[1:], y[None]]), outcomes[i], last)
    decision, outcome = _join(decisions, axis=1), _join(outcomes, axis=1)
    first = None
    if carry.table is not None:
        first = carry.table.first.reshape(num_steps, num_envs)
        decision = decision._replace(obs=carry.table.obs.reshape(num_steps, *state.obs.shape))
    transitions = Transition(**decision._asdict(), reward=outcome.reward, done=outcome.done)
    last_value = _join([player.value(part, end) for part in last_parts], axis=0)
    obs, memory = (_join(list(x), axis=0) for x in zip(*((part.obs, part.memory) for part in last_parts), strict=True))
    next_state = RolloutState(env_state=env_state, obs=obs, memory=episodic.end_rollout(memory, window))
    return next_state, Rollout(transitions, memory, last_value, outcome.episode, first)


def _split(tree: Any, num_parts: int) -> list[Any]:
    """A tree of all environments to one of each part."""
    return [jax.tree.map(lambda x, i=i: jnp.split(x, num_parts)[i], tree) for i in range(num_parts)]


def _join(parts: list[Any], axis: int) -> Any:
    """Trees of some environments each to one of all."""
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=axis), *parts)
