"""Collects T steps from N environments with one `lax.scan`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.agent.distributions import sampling_noise
from trxl_jax.agent.previous import Previous
from trxl_jax.envs.base import DoubleBuffered, Environment
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.ppo.acting import ActorState, ActorStep, RolloutActor, StepResult
from trxl_jax.ppo.advantages import discounted_returns
from trxl_jax.ppo.double_buffering import collect_double_buffered
from trxl_jax.ppo.observations import Recorder, RolloutObservations, make_recorder
from trxl_jax.ppo.packing import scan_packed
from trxl_jax.ppo.redrawing import Redrawing
from trxl_jax.ppo.steps import CollectedSteps


class Transition(NamedTuple):
    """T steps of N environments, time-major.

    Fields:
        action: [T, N, C].
        log_prob: f32[T, N, A], of each branch.
        value: f32[T, N].
        reward: f32[T, N], normalised if the agent normalises rewards; with `bootstrap_truncated` that of a truncated
            step includes its bootstrap.
        done: bool[T, N], terminated or truncated.
        episode_step: i32[T, N], k, counted from 0.
        previous: what the step before did, fields [T, N, ...]; None if the agent doesn't read it.
    """

    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    episode_step: jax.Array
    previous: Previous | None = None


@struct.dataclass
class RolloutState:
    """What is carried from one rollout to the next.

    Fields:
        env_state: the environments' own state; if the agent normalises rewards, an `AccountedState`.
        obs: [N, *obs_shape], the next observations.
        memory: the core's carry.
    """

    env_state: Any
    obs: Any
    memory: Any

    @classmethod
    def make(cls, env_state: Any, obs: Any, memory: Any, previous: Previous | None) -> "RolloutState":
        """The state of an agent that reads what the step before did, [N, ...], or of one that doesn't (None)."""
        if previous is None:
            return cls(env_state, obs, memory)
        return _ReadingState(env_state, obs, memory, previous)

    @property
    def last_step(self) -> Previous | None:
        """What the last step did, if the agent reads it, fields [N, ...]."""
        return self.previous if isinstance(self, _ReadingState) else None


@struct.dataclass
class _ReadingState(RolloutState):
    """With one more field; in `RolloutState`, even if it were None, Orbax would miss it in older checkpoints."""

    previous: Previous


class AccountedState(NamedTuple):
    """The state of environments whose discounted returns are counted.

    Fields:
        env_state: their own.
        discounted_return: f32[N], `before` of `advantages.discounted_returns`.
    """

    env_state: Any
    discounted_return: jax.Array


class Rollout(NamedTuple):
    """What one rollout hands to the update.

    Fields:
        observations: those before each step.
        transitions: T steps.
        memory: the core's record of them, from which it will learn.
        last_value: f32[N], the value of the observations after the last step.
        episode: statistics of the episodes that ended, each [T, N].
        discounted_return: f32[T, N], see `advantages.discounted_returns`; None unless rewards are normalised.
    """

    observations: RolloutObservations
    transitions: Transition
    memory: Any
    last_value: jax.Array
    episode: EpisodeStats
    discounted_return: jax.Array | None = None


def init_rollout_state(env: Environment, agent: ActorCritic, key: jax.Array) -> RolloutState:
    """Resets the environments with a key[], and empties the memory."""
    env_state, obs = env.reset(key)
    num_envs = env.num_envs
    if agent.normalization.rewards:
        env_state = AccountedState(env_state, jnp.zeros(num_envs))
    return RolloutState.make(env_state, obs, agent.core.init_carry(num_envs), agent.init_previous(num_envs))


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
    segment_length: int = 1,
) -> tuple[RolloutState, Rollout]:
    """Acts for T = `num_steps` steps; fields of the result are [T, N, ...].

    Args:
        agent: the model.
        params: its parameters, the same for the whole rollout.
        env: N environments.
        state: where the last rollout ended.
        key: source of the actions' randomness.
        num_steps: T.
        gamma: discount of the bootstrap of truncated episodes.
        bootstrap_truncated: add gamma times the value of its final observation to a truncated step's reward; the
            environment must have been built with `send_final_obs`.
        segment_length: G, the number of consecutive steps through which learning's gradients will flow.
    """
    params = agent.with_folded(params)
    actor = RolloutActor(agent, params, gamma, bootstrap_truncated)
    recorder = make_recorder(agent, params, state.obs, num_steps)
    actor_state = actor.start(state.obs, state.memory, state.last_step, num_steps, segment_length)
    # Drawn at once: a dozen operations on a few numbers in every step would take longer.
    draw = jax.vmap(lambda step_key: sampling_noise(agent.spec.action, step_key, (env.num_envs,)))
    noise = draw(jax.random.split(key, num_steps))

    env_state, earned_before = state.env_state, None
    if isinstance(env_state, AccountedState):
        env_state, earned_before = env_state
    if isinstance(env, DoubleBuffered) and env.num_buffers > 1:
        steps = collect_double_buffered(actor, recorder, env, env_state, actor_state, noise)
    else:
        steps = _collect(actor, recorder, env, env_state, actor_state, noise)
    env_state, earned = steps.env_state, None
    if earned_before is not None:
        assert steps.results.raw_reward is not None, "the agent doesn't normalise rewards"
        earned, earned_before = discounted_returns(
            steps.results.raw_reward, steps.results.done, earned_before, gamma, in_parallel=agent.numerics.accelerator
        )
        env_state = AccountedState(env_state, earned_before)
    memory, record = agent.core.finish(steps.state.core, steps.state.episode_step)
    rollout = Rollout(
        observations=steps.observations,
        transitions=Transition(**steps.actions._asdict(), reward=steps.results.reward, done=steps.results.done),
        memory=record,
        last_value=steps.last_value,
        episode=steps.results.episode,
        discounted_return=earned,
    )
    return RolloutState.make(env_state, steps.state.obs, memory, steps.state.previous), rollout


class _Carry(NamedTuple):
    env_state: Any
    state: ActorState
    recorded: Any


def _collect(
    actor: RolloutActor,
    recorder: Recorder,
    env: Environment,
    env_state: Any,
    state: ActorState,
    noise: jax.Array,
) -> CollectedSteps:
    """Act, step, observe, T times; noise [T, N, ...]."""
    num_steps = noise.shape[0]
    redrawing = Redrawing.of(env, env_state) if actor.agent.numerics.accelerator else None

    def one_step(
        carry: _Carry, inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[_Carry, tuple[Any, ActorStep, StepResult]]:
        t, step_noise = inputs
        recorded, encoded, obs = recorder.record(carry.recorded, t, 0, carry.state.obs)
        obs = obs if redrawing is None else redrawing.words(carry.env_state)
        state, actions = actor.act(carry.state, encoded, t, step_noise)
        env_state, step = env.step(carry.env_state, actions.action)
        state, result = actor.observe(state, step, t)
        return _Carry(env_state, state, recorded), (obs, actions, result)

    carry = _Carry(env_state, state, recorder.start())
    if actor.agent.numerics.accelerator:
        carry, (obs, actions, results) = scan_packed(one_step, carry, noise, env.num_envs)
    else:
        carry, (obs, actions, results) = jax.lax.scan(one_step, carry, (jnp.arange(num_steps), noise))
    return CollectedSteps(
        env_state=carry.env_state,
        state=carry.state,
        observations=recorder.finish(carry.recorded, obs) if redrawing is None else redrawing.observations(obs),
        actions=actions,
        results=results,
        last_value=actor.value(carry.state, jnp.int32(num_steps)),
    )
