"""Evaluates a policy: plays many episodes at once and collects their results."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.envs.base import Environment, original_errors
from trxl_jax.envs.registry import make_env, require_no_import
from trxl_jax.envs.results import EpisodeResult, mean_results
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.play.policy import Policy, PolicyMemory, choose

_STEPS_A_CHUNK = 64  # steps between two checks of which episodes have ended


class Evaluation(NamedTuple):
    """Results of the episodes of an evaluation.

    Fields:
        episodes: the result of each: r (return), l (length) and the environment's own numbers.
        means: the mean of each number over the episodes that have it.
    """

    episodes: list[EpisodeResult]
    means: EpisodeResult


class _Carry(NamedTuple):
    env_state: Any
    obs: Any
    reward: jax.Array
    memory: PolicyMemory


Evaluator = Callable[..., Evaluation | None]


def evaluate(
    policy: Policy,
    episodes: int = 100,
    *,
    num_envs: int = 16,
    seed: int = 1,
    deterministic: bool = False,
    env: Any = None,
    env_options: dict[str, Any] | None = None,
    max_steps: int | None = None,
    allow_import: bool = False,
) -> Evaluation:
    """Plays episodes with seeds that training never uses.

    Each environment plays a number of episodes that is fixed beforehand: stopping as soon as enough episodes have ended
    would favour short ones.

    Args:
        policy: from `load`.
        episodes: how many, distributed over the environments as evenly as possible.
        num_envs: number of environments.
        seed: of the episodes and of the actions.
        deterministic: take the most probable actions instead of sampling.
        env: an environment object to use instead of `policy.config.env_id`; see `make_env`.
        env_options: options of the task, added to those of `policy.config`.
        max_steps: length at which an episode is cut, 0: never; None: `policy.config.eval_max_steps`. If episodes were
            cut, the number `cut` is 1 in their results and 0 in the others'.
        allow_import: whether to import the module of an `env_id` such as `module:id`, which a file may have chosen.

    Raises:
        UserError: the environment can't be made, failed, or doesn't fit this policy.
    """
    if env is None:
        require_no_import(policy.config, allow_import=allow_import)
    config = policy.config.for_evaluation(
        min(num_envs, episodes), seed, policy.config.eval_max_steps if max_steps is None else max_steps
    )
    batch = make_env(config.replace(env_options=config.env_options | (env_options or {})), env)
    evaluation = make_evaluator(batch, episodes, seed=config.seed, deterministic=deterministic)(policy)
    assert evaluation is not None
    return evaluation


def make_evaluator(env: Environment, num_episodes: int, *, seed: int, deterministic: bool = False) -> Evaluator:
    """Makes a function that plays the same episodes in each call and is compiled once.

    Args:
        env: N environments that nothing else uses.
        num_episodes: how many episodes to play in total.
        seed: of a device environment and of the actions.
        deterministic: take the most probable actions instead of sampling.

    Returns:
        `evaluator(policy, stopped=...)`: an `Evaluation`, or None if `stopped()` became true meanwhile.
    """
    beginning = env.snapshot()
    share = np.full(env.num_envs, num_episodes // env.num_envs)
    share[: num_episodes % env.num_envs] += 1
    play = jax.jit(partial(_play, env, deterministic=deterministic))
    env_key, action_key = jax.random.split(jax.random.key(seed))

    def evaluator(policy: Policy, stopped: Callable[[], bool] = lambda: False) -> Evaluation | None:
        policy.require(env.spec)
        played: list[list[EpisodeResult]] = [[] for _ in share]
        env.restore(beginning)
        try:
            with original_errors(env):
                env_state, obs = env.reset(env_key)
                carry = _Carry(env_state, obs, jnp.zeros(env.num_envs), policy.init(env.num_envs))
                chunk = 0
                while any(len(results) < count for results, count in zip(played, share, strict=True)):
                    if stopped():
                        return None
                    carry, episode = play(policy, carry, jax.random.fold_in(action_key, chunk))
                    _collect(played, share, episode, env)
                    chunk += 1
        finally:
            env.close()
        results = [result for results in played for result in results]
        if not any(result.get("cut") for result in results):
            results = [{name: value for name, value in result.items() if name != "cut"} for result in results]
        return Evaluation(results, mean_results(results))

    return evaluator


def _play(
    env: Environment, policy: Policy, carry: _Carry, key: jax.Array, *, deterministic: bool
) -> tuple[_Carry, EpisodeStats]:
    """Plays a chunk of steps in every environment; returns the statistics of the episodes that ended, each [T, N]."""

    def one_step(carry: _Carry, key: jax.Array) -> tuple[_Carry, EpisodeStats]:
        output, memory = policy.decide(carry.obs, carry.memory, carry.reward)
        action = choose(env.spec, output, key, deterministic=deterministic)
        env_state, step = env.step(carry.env_state, action)
        memory = policy.reset(policy.remember(memory, action), step.terminated | step.truncated)
        return _Carry(env_state, step.obs, step.reward, memory), step.episode

    return jax.lax.scan(one_step, carry, jax.random.split(key, _STEPS_A_CHUNK))


def _collect(played: list[list[EpisodeResult]], share: np.ndarray, episode: EpisodeStats, env: Environment) -> None:
    """Adds the results of a chunk to those of each environment, up to the environment's share."""
    _, ended_in = np.nonzero(np.asarray(episode.done))
    for i, result in zip(ended_in, env.pop_episode_results(episode), strict=True):
        if len(played[i]) < share[i]:
            played[i].append({name: value for name, value in result.items() if name != "t"})
