"""A rollout's memory under other parameters; `test_reference.py` holds its numbers against NumPy."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.probes import Pictures
from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.agent.cores.base import Core
from trxl_jax.agent.distributions import MultiCategorical
from trxl_jax.config import Config
from trxl_jax.envs.host.environment import HostEnvironment
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import ConfigError
from trxl_jax.ppo.minibatch import Segments, forward_minibatch, take_minibatch
from trxl_jax.ppo.refresh import hidden_distance, measure_staleness, recompute_memory
from trxl_jax.ppo.rollout import collect_rollout, init_rollout_state

SIZES = {"num_envs": 4, "num_steps": 12, "num_minibatches": 2, "total_timesteps": 10_000, "trxl_dim": 16,
         "trxl_num_heads": 2, "trxl_num_layers": 2, "trxl_memory_length": 6, "memory_dtype": "float32",
         "env_id": "gymnax/ProofofMemory-v0"}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "trxl": {},
    "bfloat16, slots that depend on parameters, window longer than the rollout": {
        "memory_dtype": "bfloat16", "trxl_positional_encoding": "learned", "trxl_memory_length": 14,
        "previous_action": True, "previous_reward": True},
    "gtrxl, segments of some environments": {"core": "gtrxl", "segment_length": 4},
    "gru": {"core": "gru"},
    "lstm in segments": {"core": "lstm", "segment_length": 3},
    "lru": {"core": "lru"},
}  # fmt: skip
EVERY_DAY = {"trxl", "lstm in segments"}


def second_rollout(config: Config, env: Any, platform: str | None = None) -> tuple[Any, Any, Any]:
    """An agent, its random parameters and its second rollout, which starts inside of episodes."""
    agent = make_agent(config, env.spec, platform)
    params = jax.jit(agent.init_params)(jax.random.key(0))
    collect = jax.jit(
        partial(collect_rollout, agent, params, env, num_steps=config.num_steps, segment_length=config.segment_length)
    )
    state = init_rollout_state(env, agent, jax.random.key(1))
    for i in range(2):
        state, rollout = collect(state=state, key=jax.random.key(2 + i))
    assert (rollout.transitions.episode_step == 0).any()
    assert (rollout.transitions.episode_step[0] > 0).any()
    return agent, params, rollout


def log_probabilities(config: Config, agent: Any, params: Any, rollout: Any, memory: Any) -> jax.Array:
    """Of both actions in all steps, as learning computes them from a memory."""
    zeros = jnp.zeros_like(rollout.transitions.reward)
    every = Segments(jnp.tile(jnp.arange(config.num_steps), (config.num_envs, 1)))
    batch = take_minibatch(rollout, zeros, zeros, every)
    prepared = agent.apply(params, memory, method="prepare")
    return forward_minibatch(agent, params, batch, prepared, config.segment_length).policy.branches()[0]


def assert_same(again: Any, record: Any) -> None:
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(record), strict=True):
        assert ours.dtype == theirs.dtype
        rtol = 1e-2 if ours.dtype == jnp.bfloat16 else 0  # one more or less in the last place
        np.testing.assert_allclose(ours.astype(float), theirs.astype(float), rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in EVERY_DAY else [pytest.mark.slow]) for n in CASES])
def test_staleness_is_what_parameters_changed(name: str) -> None:
    config = Config(**SIZES | CASES[name])
    agent, params, rollout = second_rollout(config, make_env(config))

    @jax.jit
    def look(params: Any) -> Any:
        again = recompute_memory(agent, params, rollout, config)
        policies = [log_probabilities(config, agent, params, rollout, memory) for memory in (again, rollout.memory)]
        return again, policies, measure_staleness(agent, params, rollout, config)

    (again, _, fresh), (_, (new, cached), stale) = look(params), look(jax.tree.map(lambda leaf: 1.5 * leaf, params))
    assert_same(again, rollout.memory)
    new, cached = np.asarray(new, float), np.asarray(cached, float)
    divergence = (np.exp(new) * (new - cached)).sum(axis=-1).mean()
    assert stale["staleness/kl"] == pytest.approx(divergence, rel=1e-3, abs=1e-7)
    for metric, least in ("staleness/kl", 1e-7), ("staleness/hidden_distance", 0.1):
        assert 0 <= fresh[metric] < 1e-3 * stale[metric]
        assert stale[metric] > least


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cpu", "gpu"])  # frames shared and not
def test_pictures_of_double_buffered_environments(platform: str) -> None:
    env = HostEnvironment(Pictures, 4)
    assert env.num_buffers == 2
    config = Config(**SIZES | {"num_steps": 8})
    agent, params, rollout = second_rollout(config, env, platform)
    again = jax.jit(lambda params: recompute_memory(agent, params, rollout, config))(params)
    assert_same(again, rollout.memory)
    env.close()


def test_distance_is_of_what_the_rollout_wrote() -> None:
    cached = {"hidden": jnp.array([[9.0, 3.0, 4.0]]), "position": jnp.array([[1, 2, 3]])}
    recomputed = {"hidden": jnp.array([[9.0, 3.0, 5.0]]), "position": jnp.array([[1, 2, 3]])}
    assert hidden_distance(recomputed, cached, 2) == pytest.approx(1 / 5)
    assert hidden_distance(recomputed, cached, 5) == pytest.approx(1 / np.sqrt(81 + 25))
    zeros = jax.tree.map(jnp.zeros_like, cached)
    assert hidden_distance(zeros, zeros, 2) == -np.inf


def test_kl_divergence_sums_over_branches() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)
    p, q = (MultiCategorical(jnp.asarray(x), (2, 3)) for x in logits)

    def probabilities(x: np.ndarray) -> list[np.ndarray]:
        parts = [np.exp(part.astype(float)) for part in np.split(x, [2], axis=-1)]
        return [part / part.sum(axis=-1, keepdims=True) for part in parts]

    pairs = zip(*map(probabilities, logits), strict=True)
    expected = sum((a * np.log(a / b)).sum(axis=-1) for a, b in pairs)
    np.testing.assert_allclose(p.kl_divergence(q), expected, rtol=1e-5)


def test_a_core_of_ones_own_must_say_how_a_rollout_began() -> None:
    config = Config(log_staleness=1, **SIZES)
    with pytest.raises(ConfigError, match=r"--log_staleness 1: the core Core .*carry_of"):
        make_agent(config, make_env(config).spec, core=Core(dim=16))
