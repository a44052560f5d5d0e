"""Plays one episode step by step, and records what the agent observed, did and attended to, or its state."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.agent.distributions import ActionDistribution, Gaussian, MultiCategorical
from trxl_jax.config import evaluation_seed
from trxl_jax.envs.actions import ActionSpace, BoxActions, DiscreteActions
from trxl_jax.play.policy import Policy, PolicyMemory, choose
from trxl_jax.play.record import EpisodeRecord, NumberActions
from trxl_jax.play.single_env import SingleEnv


class StepRecord(NamedTuple):
    """The record of one step. All fields but reward, results and state_norm describe the situation before the step.

    Fields:
        observation: [*obs_shape], the agent's observation.
        picture: u8[height, width, 3], the whole task (ground truth); None if the task draws none.
        action: [C].
        probabilities: f32[sum(nvec)], of all choices, branches concatenated.
        mean: f32[M], of the numbers among the actions, the dimensions of all Boxes.
        std: f32[M], their standard deviations.
        entropy: f32[], summed over branches.
        value: f32[].
        attention: f32[L, H, W - 1], see `Policy.attention`; None unless requested, or if the core doesn't attend.
        state_norm: f32[], see `state_norm`, after the step; None unless requested, or if the core attends.
        reward: of the step.
        results: the episode's results after its last step, otherwise None.
    """

    observation: Any
    picture: np.ndarray | None
    action: np.ndarray
    probabilities: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    entropy: np.ndarray
    value: np.ndarray
    attention: np.ndarray | None
    state_norm: np.ndarray | None
    reward: float
    results: dict[str, float] | None


def play_episode(
    policy: Policy,
    env: SingleEnv,
    episode: int,
    *,
    deterministic: bool = False,
    attention: bool = False,
    max_steps: int | None = None,
) -> Iterator[StepRecord]:
    """Plays an episode, which is a function of the policy, the environment's seed and the episode's number.

    Args:
        policy: chooses the actions.
        env: the environment; while a record is being processed it is in the state after that step.
        episode: number of the episode.
        deterministic: take the most probable actions instead of sampling.
        attention: record the attention weights, or the norm of the state if the agent's core doesn't attend.
        max_steps: end the episode after so many steps; its results are then r and l so far, and cut 1.

    Raises:
        ConfigError: the environment doesn't fit the policy.
        EnvironmentFailure: the environment raised an exception.
    """
    policy.require(env.spec)
    key = jax.random.fold_in(jax.random.key(env.seed), episode)
    env.reset(episode)
    memory = policy.init()
    results: dict[str, float] | None = None
    step, episode_return, reward = 0, 0.0, 0.0
    while results is None:
        observation, picture = env.obs, env.picture
        step_key = jax.random.fold_in(key, step)
        decision, memory = _act(policy, observation, memory, reward, step_key, deterministic, attention)
        decision = jax.device_get(decision)
        reward, results = env.step(decision["action"])
        step, episode_return = step + 1, episode_return + reward
        if results is None and step == max_steps:
            results = {"r": episode_return, "l": float(step), "cut": 1.0}
        yield StepRecord(observation=observation, picture=picture, reward=reward, results=results, **decision)


@partial(jax.jit, static_argnames=("deterministic", "attention"))
def _act(
    policy: Policy,
    obs: Any,
    memory: PolicyMemory,
    reward: Any,
    key: jax.Array,
    deterministic: bool,
    attention: bool,
) -> tuple[dict[str, jax.Array | None], PolicyMemory]:
    """The fields of a `StepRecord` that the agent determines, and the next memory."""
    attends = policy.agent.core.attends
    output, next_memory = policy.decide(obs, memory, reward)
    action = choose(policy.agent.spec, output, key, deterministic=deterministic)
    decision = {
        "action": action,
        **_parameters(output.policy),
        "entropy": output.policy.entropy(),
        "value": output.value,
        "attention": policy.attention(obs, memory, reward) if attention and attends else None,
        "state_norm": state_norm(next_memory.core) if attention and not attends else None,
    }
    return decision, policy.remember(next_memory, action)


def _parameters(policy: ActionDistribution) -> dict[str, jax.Array]:
    """Probabilities, mean and std of a `StepRecord`."""
    choices = [part.probabilities() for part in policy.parts if isinstance(part, MultiCategorical)]
    numbers = [part for part in policy.parts if isinstance(part, Gaussian)]
    nothing = [jnp.zeros(0)]
    return {
        "probabilities": jnp.concatenate(choices or nothing),
        "mean": jnp.concatenate([part.mean for part in numbers] or nothing),
        "std": jnp.concatenate([part.std for part in numbers] or nothing),
    }


def state_norm(state: Any) -> jax.Array | None:
    """The Euclidean norm f32[] of all arrays of a core's state, those of one environment; None if there are none."""
    squares = [jnp.square(jnp.abs(leaf).astype(jnp.float32)).sum() for leaf in jax.tree.leaves(state)]
    return jnp.sqrt(sum(squares)) if squares else None


def make_record(env: SingleEnv, episode: int, steps: list[StepRecord]) -> EpisodeRecord:
    """The record of a whole episode that was played with `attention`, in an environment made `for_evaluation`."""
    results = steps[-1].results
    assert results is not None, "the episode has not ended"

    def stack(name: str, dtype: Any = None) -> Any:
        if getattr(steps[0], name) is None:
            return None
        return np.stack([np.asarray(getattr(step, name), dtype) for step in steps])

    choices, taken = split_action(env.spec.action, stack("action"))
    return EpisodeRecord(
        env_id=env.env_id,
        seed=evaluation_seed(env.seed),
        episode=episode,
        observations=jax.tree.map(lambda *rows: np.stack(rows), *(step.observation for step in steps)),
        observation_space=env.spec.obs,
        pictures=stack("picture"),
        actions=choices,
        action_nvec=env.spec.action.nvec,
        probabilities=stack("probabilities"),
        entropies=stack("entropy"),
        values=stack("value"),
        rewards=stack("reward", np.float32),
        attention=stack("attention"),
        results=results,
        action_names=env.action_names,
        state_norm=stack("state_norm"),
        numbers=_numbers(env, taken, stack("mean"), stack("std")),
        branch_names=_names(env, DiscreteActions),
    )


def split_action(space: ActionSpace, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The choices i32[..., A] in actions [..., C], and the numbers f32[..., M], inside their bounds."""
    columns = list(zip(space.parts, space.split(action), strict=True))
    choices = [own for part, own in columns if isinstance(part, DiscreteActions)]
    numbers = [part.clip(own) for part, own in columns if isinstance(part, BoxActions)]
    nothing = np.zeros((*action.shape[:-1], 0))
    return (
        np.concatenate(choices or [nothing.astype(np.int32)], axis=-1),
        np.concatenate(numbers or [nothing.astype(np.float32)], axis=-1),
    )


def _numbers(env: SingleEnv, taken: np.ndarray, mean: np.ndarray, std: np.ndarray) -> NumberActions | None:
    boxes = [part for part in env.spec.action.parts if isinstance(part, BoxActions)]
    if not boxes:
        return None
    low, high = (tuple(x for box in boxes for x in getattr(box, end)) for end in ("low", "high"))
    names = _names(env, BoxActions) or (tuple(map(str, range(len(low)))) if len(low) > 1 else ("action",))
    return NumberActions(names, low, high, taken, mean, std)


def _names(env: SingleEnv, kind: type) -> tuple[str, ...] | None:
    """The names of the columns of one kind."""
    if env.column_names is None:
        return None
    of_columns = [isinstance(part, kind) for part in env.spec.action.parts for _ in range(part.num_columns)]
    return tuple(itertools.compress(env.column_names, of_columns))
