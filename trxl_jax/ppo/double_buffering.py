"""Double buffering: while one group of host environments is stepped by a thread, the agent acts in the next group.

Within step t of the scan, for each group i in turn: act in group i, start its step, then receive the next group's
answer. Group 0's was started in this step of the scan, every other group's in the previous one.

    scan step t:  act 0, start 0, receive 1 (of t - 1) | act 1, start 1, receive 0 (of t)

Results of all groups but the first therefore arrive one scan step late; what arrives for them in step 0 belongs to the
rollout before, and their last step is received after the scan.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trxl_jax.envs.base import DoubleBuffered, TimeStep
from trxl_jax.ppo.acting import ActorState, ActorStep, RolloutActor, StepResult
from trxl_jax.ppo.observations import Recorder
from trxl_jax.ppo.steps import CollectedSteps


class _Carry(NamedTuple):
    env_state: Any
    groups: tuple[ActorState, ...]
    recorded: Any


def collect_double_buffered(
    actor: RolloutActor,
    recorder: Recorder,
    env: DoubleBuffered,
    env_state: Any,
    state: ActorState,
    noise: jax.Array,
) -> CollectedSteps:
    """Acts for T steps in N environments that are stepped group by group.

    Args:
        actor: the agent.
        recorder: of the observations.
        env: N environments in `env.num_buffers` groups of neighbours.
        env_state: their state.
        state: observations of all N, and what is remembered of them.
        noise: [T, N, ...], from `distributions.sampling_noise`.
    """
    count = env.num_buffers
    num_steps, num_envs = noise.shape[:2]
    size = num_envs // count

    def one_step(
        carry: _Carry, inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[_Carry, tuple[Any, ActorStep, list[StepResult]]]:
        t, step_noise = inputs
        env_state, groups, recorded = carry.env_state, list(carry.groups), carry.recorded
        observations: list[Any] = [None] * count
        actions: list[Any] = [None] * count
        results: list[Any] = [None] * count
        for i in range(count):
            first = i * size
            recorded, encoded, observations[i] = recorder.record(recorded, t, first, groups[i].obs)
            groups[i], actions[i] = actor.act(groups[i], encoded, t, step_noise[first : first + size])
            env_state, step = env.send_and_receive(env_state, i, actions[i].action)
            other = (i + 1) % count
            late = min(other, 1)
            groups[other], results[other] = _observe(actor, groups[other], step, t - late, is_new=t >= late)
        joined = _concatenate(observations, axis=0), _concatenate(actions, axis=0)
        return _Carry(env_state, tuple(groups), recorded), (*joined, results)

    carry = _Carry(env_state, tuple(_split(state, count)), recorder.start())
    carry, (observations, actions, results) = jax.lax.scan(one_step, carry, (jnp.arange(num_steps), noise))

    end = jnp.int32(num_steps)
    env_state, groups = carry.env_state, list(carry.groups)
    for i in range(1, count):
        env_state, step = env.receive(env_state, i)
        groups[i], last = _observe(actor, groups[i], step, end - 1, is_new=True)
        results[i] = jax.tree.map(lambda x, y: jnp.concatenate([x[1:], y[None]]), results[i], last)
    return CollectedSteps(
        env_state=env_state,
        state=_concatenate(groups, axis=0),
        observations=recorder.finish(carry.recorded, observations),
        actions=actions,
        results=_concatenate(results, axis=1),
        last_value=_concatenate([actor.value(group, end) for group in groups], axis=0),
    )


def _observe(
    actor: RolloutActor, state: ActorState, step: TimeStep, t: jax.Array, *, is_new: Any
) -> tuple[ActorState, StepResult]:
    """`RolloutActor.observe`; a step that isn't new only repeats observations, and no time passes."""
    next_state, result = actor.observe(state, step, t)
    old, new = (state.episode_step, state.previous), (next_state.episode_step, next_state.previous)
    episode_step, previous = jax.tree.map(lambda before, after: jnp.where(is_new, after, before), old, new)
    return next_state._replace(episode_step=episode_step, previous=previous), result


def _split(tree: Any, count: int) -> list[Any]:
    """A tree of arrays [N, ...] as one tree for each group."""
    return [jax.tree.map(lambda x, i=i: jnp.split(x, count)[i], tree) for i in range(count)]


def _concatenate(trees: list[Any], axis: int) -> Any:
    """Inverse of `_split`, along any axis."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=axis), *trees)
