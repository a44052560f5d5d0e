"""Collects T steps from N environments with one `lax.scan`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.agent.cores import cache as episodic
from trxl_jax.agent.cores.cache import EpisodicMemory
from trxl_jax.agent.cpu.frames import FrameTable, empty_table
from trxl_jax.envs.base import Environment, EpisodeStats, InParts
from trxl_jax.ppo.acting import Decision, Outcome, Part, Player


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
    env_state: Any
    parts: tuple[Part, ...]
    table: FrameTable | None  # features of the frames seen in this rollout; None if frames aren't shared


def init_rollout_state(
    env: Environment, agent: ActorCritic, key: jax.Array, memory_dtype: str = "bfloat16"
) -> RolloutState:
    """Resets the environments and empties the memory."""
    env_state, obs = env.reset(key)
    memory = episodic.init(env.num_envs, agent.window, agent.num_layers, agent.dim, jnp.dtype(memory_dtype))
    return RolloutState(env_state=env_state, obs=obs, memory=memory)


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
    player = Player(agent, params, gamma, bootstrap_truncated)
    in_parts: InParts | None = env if isinstance(env, InParts) and env.num_parts > 1 else None
    num_parts = in_parts.num_parts if in_parts else 1
    size = num_envs // num_parts

    def one_step(carry: _Carry, inputs: tuple[jax.Array, jax.Array]) -> tuple[_Carry, tuple[Decision, list[Outcome]]]:
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
        return _Carry(env_state, tuple(parts), table), (_join(decisions, axis=0), outcomes)

    extended = episodic.start_rollout(state.memory, num_steps)
    ring = player.encode_slots(state.memory.hidden, state.memory.position)
    whole = Part(state.obs, extended, ring)
    parts = _split(whole, num_parts)
    table = empty_table(num_steps * num_envs, state.obs, agent.dim) if agent.shares_frames else None
    # All at once: drawn step by step, noise takes a dozen operations of a few numbers in each of them.
    draw = jax.vmap(lambda key: jax.random.gumbel(key, (num_envs, sum(agent.spec.action_nvec))))
    noise = draw(jax.random.split(key, num_steps))
    carry = _Carry(state.env_state, tuple(parts), table)
    carry, (decision, outcomes) = jax.lax.scan(one_step, carry, (jnp.arange(num_steps), noise))

    end = jnp.int32(window + num_steps)
    env_state, last_parts = carry.env_state, list(carry.parts)
    for i in range(1, num_parts):
        assert in_parts
        env_state, step = in_parts.receive(env_state, i)
        last_parts[i], last = player.observe(last_parts[i], step, end - 1, is_new=True)
        # What it was observed to bring in the first step of the scan belongs to the rollout before.
        outcomes[i] = jax.tree.map(lambda x, y: jnp.concatenate([x[1:], y[None]]), outcomes[i], last)
    outcome = _join(outcomes, axis=1)
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
