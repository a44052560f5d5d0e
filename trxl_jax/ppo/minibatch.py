"""Minibatches of a rollout, and the agent's forward pass on them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trxl_jax.agent.actor_critic import ActorCritic, AgentOutput
from trxl_jax.agent.cores.base import Queries
from trxl_jax.agent.previous import Previous
from trxl_jax.ppo.minibatch_losses import Targets
from trxl_jax.ppo.observations import MinibatchObservations
from trxl_jax.ppo.rollout import Rollout


class MinibatchSteps(NamedTuple):
    """A `Minibatch` without its observations."""

    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    returns: jax.Array
    queries: Queries
    previous: Previous | None


class Minibatch(NamedTuple):
    """Q steps in each of M rows: of every environment (M = N), or of M environments that were drawn.

    Fields:
        observations: those before each step.
        action: [M, Q, C].
        log_prob: f32[M, Q, A], the behaviour policy's.
        value: f32[M, Q], the behaviour policy's.
        advantage: f32[M, Q].
        returns: f32[M, Q].
        queries: which steps they are.
        previous: what the steps before them did, fields [M, Q, ...]; None if the agent doesn't read it.
    """

    observations: MinibatchObservations
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    returns: jax.Array
    queries: Queries
    previous: Previous | None = None

    @property
    def targets(self) -> Targets:
        """What the agent's output is compared with."""
        return Targets(self.action, self.log_prob, self.value, self.advantage, self.returns)


class Segments(NamedTuple):
    """Which steps of a rollout a minibatch holds.

    Fields:
        step: i32[M, Q], segments of G consecutive steps, one after the other.
        env: i32[M], the environment of each row; None: row n is of environment n, and M = N.
    """

    step: jax.Array
    env: jax.Array | None = None

    @property
    def envs(self) -> jax.Array:
        """The environment of each row, i32[M, 1]."""
        return (jnp.arange(self.step.shape[0]) if self.env is None else self.env)[:, None]


def minibatch_segments(
    key: jax.Array, num_envs: int, num_steps: int, num_minibatches: int, segment_length: int = 1
) -> Segments:
    """Deals the segments of a rollout to minibatches, at random; arrays are [num_minibatches, M, Q] and so on.

    Each minibatch gets as many segments of every environment, whose T / G segments are permuted independently, if
    num_minibatches divides T / G; else all N T / G segments are permuted together.
    """
    num_segments = num_steps // segment_length
    if num_segments % num_minibatches == 0:
        permute = jax.vmap(lambda k: jax.random.permutation(k, num_segments))
        order = permute(jax.random.split(key, num_envs)).reshape(num_envs, num_minibatches, -1)
        return Segments(_steps_of_segments(jnp.moveaxis(order, 1, 0), segment_length))
    order = jax.random.permutation(key, num_envs * num_segments).reshape(num_minibatches, -1)
    return Segments(_steps_of_segments(order[..., None] % num_segments, segment_length), order // num_segments)


def _steps_of_segments(segment: jax.Array, segment_length: int) -> jax.Array:
    """Numbers of segments, i32[..., K], to those of their steps, i32[..., K G]."""
    if segment_length == 1:
        return segment
    steps = segment[..., None] * segment_length + jnp.arange(segment_length)
    return steps.reshape(*segment.shape[:-1], -1)


def take_minibatch(rollout: Rollout, advantage: jax.Array, returns: jax.Array, segments: Segments) -> Minibatch:
    """Gathers steps of a time-major rollout into an environment-major minibatch.

    Args:
        rollout: T steps of N environments.
        advantage: f32[T, N].
        returns: f32[T, N].
        segments: which steps.
    """
    return assemble(rollout, segments, take_steps(rollout, advantage, returns, segments))


def assemble(rollout: Rollout, segments: Segments, steps: MinibatchSteps) -> Minibatch:
    """The minibatch of these segments, whose steps have been taken, with its observations."""
    return Minibatch(rollout.observations.take(segments.step, segments.envs), *steps)


def take_steps(rollout: Rollout, advantage: jax.Array, returns: jax.Array, segments: Segments) -> MinibatchSteps:
    """As for `take_minibatch`."""
    steps, envs = segments.step, segments.envs
    transitions = rollout.transitions
    return MinibatchSteps(
        action=transitions.action[steps, envs],
        log_prob=transitions.log_prob[steps, envs],
        value=transitions.value[steps, envs],
        advantage=advantage[steps, envs],
        returns=returns[steps, envs],
        queries=Queries(steps, transitions.episode_step[steps, envs], segments.env),
        previous=jax.tree.map(lambda leaf: leaf[steps, envs], transitions.previous),
    )


def forward_minibatch(
    agent: ActorCritic, params: Any, batch: Minibatch, prepared: Any, segment_length: int = 1
) -> AgentOutput:
    """The agent's output [M, Q] for a minibatch.

    Args:
        agent: the model.
        params: its parameters.
        batch: Q steps of M environments.
        prepared: from `ActorCritic.prepare`.
        segment_length: G.
    """
    encoded = batch.observations.encode(agent, params)
    x = agent.apply(params, encoded, batch.previous, batch.queries.episode_step, method="join")
    mask = agent.mask_of(batch.observations.obs)
    return agent.apply(params, x, prepared, batch.queries, segment_length, mask, method="learn")
