"""One iteration of PPO as a function: a rollout and the update on it."""

import ctypes
import dataclasses
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.agent.distributions import count_empty
from trxl_jax.agent.normalization import reward_scale
from trxl_jax.config import Config
from trxl_jax.envs.base import Environment
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.ppo.advantages import gae
from trxl_jax.ppo.groups import Grouping
from trxl_jax.ppo.moments import split, with_rollout
from trxl_jax.ppo.refresh import log_staleness
from trxl_jax.ppo.rollout import Rollout, RolloutState, collect_rollout, init_rollout_state
from trxl_jax.ppo.update import WHOLE, LossFn, Metrics, TrainState, make_optimizer, ppo_loss, update

EMPTY_MASKS = "charts/steps_without_valid_action"
_SMALL_MINIBATCH = 2**16  # samples times D


class TrainOutput(NamedTuple):
    """Metrics and episodes of one `train_step`.

    Fields:
        metrics: f32[] by published name.
        episode: statistics of the episodes that ended, each [T, N].
    """

    metrics: Metrics
    episode: EpisodeStats


CollectFn = Callable[[TrainState, RolloutState, jax.Array], tuple[RolloutState, Rollout]]
LearnFn = Callable[..., tuple[TrainState, Metrics]]
"""From the train state, a rollout and a key[] to the next train state and metrics; see `make_collect_and_learn`."""
TrainStep = Callable[[TrainState, RolloutState, jax.Array], tuple[TrainState, RolloutState, TrainOutput]]
SeedsStep = Callable[
    [Sequence[tuple[TrainState, RolloutState]], Sequence[jax.Array]],
    Sequence[tuple[TrainState, RolloutState, TrainOutput]],
]
"""An iteration of several runs: from the states and the key[] of each to what `TrainStep` returns for each."""


def init_states(
    config: Config,
    env: Environment,
    agent: ActorCritic,
    key: jax.Array,
    optimizer: optax.GradientTransformation | None = None,
    params: Any = None,
) -> tuple[TrainState, RolloutState]:
    """Fresh variables and environments at the start of their first episodes, from a key[].

    Collections of variables in `params` take the place of fresh ones: parameters alone get moments of their own.
    """
    params_key, env_key = jax.random.split(key)
    return init_train_state(agent, params_key, optimizer, params), init_rollout_state(env, agent, env_key)


def init_train_state(
    agent: ActorCritic, key: jax.Array, optimizer: optax.GradientTransformation | None = None, params: Any = None
) -> TrainState:
    """Fresh variables, from a key[]; `params` as for `init_states`."""
    optimizer = optimizer or make_optimizer()

    @jax.jit  # one program instead of a hundred, which would occupy 0.2 GB
    def init(key: jax.Array, params: Any) -> TrainState:
        params = agent.init_params(key) | (params or {})
        return TrainState(params=params, opt_state=optimizer.init(split(params)[0]), iteration=jnp.int32(0))

    return init(key, params)


def make_collect_and_learn(
    config: Config,
    env: Environment,
    agent: ActorCritic,
    optimizer: optax.GradientTransformation | None = None,
    loss: LossFn = ppo_loss,
) -> tuple[CollectFn, LearnFn]:
    """The two halves of an iteration, not yet compiled: collecting a rollout and learning from it.

    Args:
        config: sizes and coefficients.
        env: N environments.
        agent: the model.
        optimizer: see `make_optimizer`, which is the default.
        loss: what is minimised, of the form of `ppo_loss`, which is the default.
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
            segment_length=config.segment_length,
        )

    def advantages(collected: Rollout) -> tuple[jax.Array, jax.Array]:
        steps, discounts = collected.transitions, (config.gamma, config.gae_lambda)
        arrays = steps.reward, steps.value, steps.done, collected.last_value
        with jax.named_scope("gae"):  # by which benchmarks find its kernels
            return gae(*arrays, *discounts, in_parallel=agent.numerics.accelerator)

    def learn(
        train_state: TrainState, collected: Rollout, key: jax.Array, groups: Grouping = WHOLE
    ) -> tuple[TrainState, Metrics]:
        advantage, returns = groups.each(advantages, collected)
        acted = train_state.params
        with agent.numerics.precise():
            train_state, metrics = update(
                agent, optimizer, config, train_state, collected, advantage, returns, key, loss, groups
            )
        params = with_rollout(agent, train_state.params, collected, groups)
        train_state = dataclasses.replace(train_state, params=params)
        if agent.normalization.rewards:
            metrics |= {"charts/reward_scale": reward_scale(acted)}
        if config.log_staleness:
            iteration = train_state.iteration
            measure = partial(log_staleness, agent, train_state.params, config=config, iteration=iteration)
            metrics |= groups.mean(measure, collected)
        mask = agent.mask_of(collected.observations.obs)
        if mask is not None:
            metrics |= {EMPTY_MASKS: count_empty(groups.whole(mask), agent.spec.action)}
        advantage, returns, value = groups.whole((advantage, returns, collected.transitions.value))
        # Minus infinity, which is not logged, if all returns are equal.
        explained = 1 - (returns - value).var() / returns.var()
        explained = jnp.where(returns.var() > 0, explained, -jnp.inf)
        return train_state, metrics | {
            "losses/explained_variance": explained,
            "episode/value_mean": value.mean(),
            "episode/advantage_mean": advantage.mean(),
        }

    return collect, learn


def make_train_step(
    config: Config,
    env: Environment,
    agent: ActorCritic,
    optimizer: optax.GradientTransformation | None = None,
    loss: LossFn = ppo_loss,
) -> TrainStep:
    """One iteration of PPO: a rollout and the update on it; arguments as for `make_collect_and_learn`.

    On device environments it is one compiled program, a pure function that may be vmapped, for example over seeds.
    With host environments rollout and update are two: JAX never caches a program with host callbacks on disk.

    Returns:
        `train_step(train_state, rollout_state, key)`. The key is the run's; each iteration folds its number in.
    """
    collect, learn = make_collect_and_learn(config, env, agent, optimizer, loss)
    if env.on_host:
        return chain(jax.jit(collect), jax.jit(learn))
    return jax.jit(chain(collect, learn))


def compile_collect_and_learn(
    config: Config,
    env: Environment,
    agent: ActorCritic,
    states: tuple[TrainState, RolloutState],
    key: jax.Array,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[CollectFn, LearnFn]:
    """`make_collect_and_learn`, compiled now for states like these and a key[].

    Memory that the compiler freed is returned to the system first: 0.3 GB of the process's peak at the defaults.
    """
    collect, learn = make_collect_and_learn(config, env, agent, optimizer)
    train_state, state = states
    lowered = jax.jit(collect).lower(train_state, state, key)
    collected = lowered.out_info[1]
    options = compiler_options(config, agent)
    phases = lowered.compile(options), jax.jit(learn).lower(train_state, collected, key).compile(options)
    _release_freed_memory()
    return phases


def compile_train_step(
    config: Config,
    env: Environment,
    agent: ActorCritic,
    states: tuple[TrainState, RolloutState],
    key: jax.Array,
    optimizer: optax.GradientTransformation | None = None,
) -> TrainStep:
    """`make_train_step`, compiled now for states like these and a key[]."""
    if env.on_host:
        return chain(*compile_collect_and_learn(config, env, agent, states, key, optimizer))
    train_step = jax.jit(chain(*make_collect_and_learn(config, env, agent, optimizer))).lower(*states, key)
    compiled = train_step.compile(compiler_options(config, agent))
    _release_freed_memory()
    return compiled


def compile_seeds_step(
    config: Config,
    env: Environment,
    agent: ActorCritic,
    states: Sequence[tuple[TrainState, RolloutState]],
    keys: Sequence[jax.Array],
) -> SeedsStep:
    """An iteration of several runs at once, compiled now for states and keys like these.

    On accelerators `make_train_step` is vmapped over the runs, in one program. On CPUs each run has a thread, and all
    threads run the program of one: vmapped, it would take up to 1.6 times as long as one run after another (`python
    benchmarks/seeds.py`), and a run's digits would not be those that it has alone.

    Args:
        config: as for `make_train_step`; it counts for all runs.
        env: their environments, on the device.
        agent: their agent.
        states: of each run.
        keys: key[] of each run.
    """
    if agent.numerics.platform != "cpu":
        return compile_vmapped_step(config, env, agent, states, keys)
    program = compile_train_step(config, env, agent, states[0], keys[0])
    pool = ThreadPoolExecutor(len(keys))

    def one(states: tuple[TrainState, RolloutState], key: jax.Array) -> tuple[TrainState, RolloutState, TrainOutput]:
        return jax.block_until_ready(program(*states, key))

    return lambda states, keys: list(pool.map(one, states, keys))


def compile_vmapped_step(
    config: Config,
    env: Environment,
    agent: ActorCritic,
    states: Sequence[tuple[TrainState, RolloutState]],
    keys: Sequence[jax.Array],
) -> SeedsStep:
    """An iteration of several runs as one program; arguments as for `compile_seeds_step`."""
    train_step = chain(*make_collect_and_learn(config, env, agent))

    def step(
        states: Sequence[tuple[TrainState, RolloutState]], keys: Sequence[jax.Array]
    ) -> list[tuple[TrainState, RolloutState, TrainOutput]]:
        # Stacked inside, so that each run has its own states, as if it were alone; it costs a copy.
        train_states, rollout_states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        results = jax.vmap(train_step)(train_states, rollout_states, jnp.stack(keys))
        return [jax.tree.map(lambda leaf, i=i: leaf[i], results) for i in range(len(keys))]

    compiled = jax.jit(step).lower(states, keys).compile(compiler_options(config, agent))
    _release_freed_memory()
    return compiled


def iteration_keys(key: jax.Array, iteration: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys, each key[], of an iteration's rollout and update, from the run's key[] and the iteration, i32[]."""
    rollout_key, update_key = jax.random.split(jax.random.fold_in(key, iteration))
    return rollout_key, update_key


def chain(collect: CollectFn, learn: LearnFn) -> TrainStep:
    """One iteration: collect a rollout, then learn from it."""

    def train_step(
        train_state: TrainState, state: RolloutState, key: jax.Array
    ) -> tuple[TrainState, RolloutState, TrainOutput]:
        rollout_key, update_key = iteration_keys(key, train_state.iteration)
        state, collected = collect(train_state, state, rollout_key)
        train_state, metrics = learn(train_state, collected, update_key)
        return train_state, state, TrainOutput(metrics, collected.episode)

    return train_step


def compiler_options(config: Config, agent: ActorCritic) -> dict[str, str | bool]:
    """For small minibatches on CPUs: no YNNPACK, which takes 40 us or more even for the smallest product.

    An update of Proof of Memory takes 112 ms without it, 119 with YNNPACK for products only and 217 with YNNPACK
    wherever XLA would use it; one of MiniGrid, whose minibatches are larger, 1.55 s without and 1.31 with it. The
    option is experimental: it is set only for releases of JAX that are known to have it, and nothing depends on it.
    """
    numbers = config.batch_size // config.num_minibatches * config.trxl_dim
    if agent.numerics.platform != "cpu" or numbers > _SMALL_MINIBATCH or jax.__version_info__[:2] != (0, 10):
        return {}
    return {"xla_cpu_experimental_ynn_fusion_type": ""}


def _release_freed_memory() -> None:
    """Glibc keeps freed memory for later small allocations, which XLA's large arrays can't use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
