"""One iteration of PPO as a function: a rollout and the update on it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from trxl_jax import rollout
from trxl_jax.advantages import gae
from trxl_jax.agent import ActorCritic
from trxl_jax.config import Config
from trxl_jax.envs.base import Environment, EpisodeStats
from trxl_jax.ppo import Metrics, TrainState, make_optimizer, update
from trxl_jax.rollout import Rollout, RolloutState, collect_rollout


class Report(NamedTuple):
    """What one `train_step` tells.

    Fields:
        metrics: f32[] by published name.
        episode: statistics of the episodes that ended, each [T, N].
    """

    metrics: Metrics
    episode: EpisodeStats


Collect = Callable[[TrainState, RolloutState, jax.Array], tuple[RolloutState, Rollout]]
Learn = Callable[[TrainState, Rollout, jax.Array], tuple[TrainState, Metrics]]
TrainStep = Callable[[TrainState, RolloutState, jax.Array], tuple[TrainState, RolloutState, Report]]


def init_states(
    config: Config,
    env: Environment,
    agent: ActorCritic,
    key: jax.Array,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[TrainState, RolloutState]:
    """Fresh parameters, and environments at the start of their first episodes."""
    params_key, env_key = jax.random.split(key)
    params = agent.init_params(params_key)
    optimizer = optimizer or make_optimizer()
    train_state = TrainState(params=params, opt_state=optimizer.init(params), iteration=jnp.int32(0))
    return train_state, rollout.start(env, agent, env_key, config.memory_dtype)


def make_phases(
    config: Config, env: Environment, agent: ActorCritic, optimizer: optax.GradientTransformation | None = None
) -> tuple[Collect, Learn]:
    """The two halves of an iteration, not yet compiled: collecting a rollout and learning from it.

    Args:
        config: sizes and coefficients.
        env: N environments.
        agent: the model.
        optimizer: see `make_optimizer`, which is the default.
    """
    optimizer = optimizer or make_optimizer()

    def collect(train_state: TrainState, state: RolloutState, key: jax.Array) -> tuple[RolloutState, Rollout]:
        return collect_rollout(
            agent,
            train_state.params,
            env,
            state,
            key,
            config.num_steps,
            gamma=config.gamma,
            bootstrap_truncated=config.bootstrap_truncated,
        )

    def learn(train_state: TrainState, collected: Rollout, key: jax.Array) -> tuple[TrainState, Metrics]:
        steps = collected.transitions
        advantage, returns = gae(
            steps.reward, steps.value, steps.done, collected.last_value, config.gamma, config.gae_lambda
        )
        train_state, metrics = update(agent, optimizer, config, train_state, collected, advantage, returns, key)
        # NaN where the returns don't vary at all.
        explained = 1 - (returns - steps.value).var() / jnp.where(returns.var() > 0, returns.var(), jnp.nan)
        return train_state, metrics | {
            "losses/explained_variance": explained,
            "episode/value_mean": steps.value.mean(),
            "episode/advantage_mean": advantage.mean(),
        }

    return collect, learn


def make_train_step(
    config: Config, env: Environment, agent: ActorCritic, optimizer: optax.GradientTransformation | None = None
) -> TrainStep:
    """One iteration of PPO: a rollout and the update on it; arguments as for `make_phases`.

    On device environments it is one compiled program, a pure function that may be vmapped, for example over seeds.
    With host environments rollout and update are two: JAX never caches a program with host callbacks on disk.

    Returns:
        `train_step(train_state, rollout_state, key)`. The key is the run's; each iteration folds its number in.
    """
    collect, learn = make_phases(config, env, agent, optimizer)
    if env.on_host:
        collect, learn = jax.jit(collect), jax.jit(learn)

    def train_step(
        train_state: TrainState, state: RolloutState, key: jax.Array
    ) -> tuple[TrainState, RolloutState, Report]:
        rollout_key, update_key = jax.random.split(jax.random.fold_in(key, train_state.iteration))
        state, collected = collect(train_state, state, rollout_key)
        train_state, metrics = learn(train_state, collected, update_key)
        return train_state, state, Report(metrics, collected.episode)

    return train_step if env.on_host else jax.jit(train_step)
