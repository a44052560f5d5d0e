"""Normalised training: what moves the moments and what doesn't. `test_reference.py` has its numbers from NumPy."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import trxl_jax
from tests.support.runs import make_run
from trxl_jax import Config, Policy, evaluate, init_states, make_agent, make_env, make_train_step
from trxl_jax.agent.normalization import Normalization
from trxl_jax.errors import CheckpointError
from trxl_jax.ppo.advantages import discounted_returns
from trxl_jax.ppo.minibatch import Segments, forward_minibatch, minibatch_segments, take_minibatch
from trxl_jax.ppo.rollout import Rollout, collect_rollout
from trxl_jax.ppo.update import make_optimizer, update

FLAGS = {"normalize_observations": True, "normalize_rewards": True}
SIZES = {"num_envs": 4, "num_steps": 16, "num_minibatches": 2, "update_epochs": 1, "total_timesteps": 10_000,
         "trxl_dim": 16, "trxl_num_heads": 2, "trxl_num_layers": 1, "trxl_memory_length": 6, "memory_dtype": "float32",
         "env_id": "gymnax/ProofofMemory-v0"}  # fmt: skip
CONFIG = Config(**SIZES, **FLAGS)


@cache
def after_one_iteration(config: Config) -> tuple[Any, Any, Rollout]:
    """An agent, its state after an iteration, and the rollout that follows."""
    env = make_env(config)
    agent = make_agent(config, env.spec)
    states = init_states(config, env, agent, jax.random.key(0))
    train_state, state, _ = make_train_step(config, env, agent)(*states, jax.random.key(1))
    collect = jax.jit(
        partial(collect_rollout, agent, env=env, num_steps=config.num_steps, segment_length=config.segment_length)
    )
    return agent, train_state, collect(train_state.params, state=state, key=jax.random.key(2))[1]


def test_discounted_returns() -> None:
    """In parts, against a loop over each environment."""
    rng = np.random.default_rng(0)
    reward, done = rng.normal(size=(20, 3)).astype(np.float32), rng.random((20, 3)) < 0.2
    expected = np.zeros((20, 3))
    for n in range(3):
        earned = 0.0
        for t in range(20):
            expected[t, n] = earned = 0.9 * earned + reward[t, n]
            earned *= not done[t, n]
    before, parts = jnp.zeros(3), []
    for part in (slice(0, 7), slice(7, 8), slice(8, 20)):
        returns, before = discounted_returns(reward[part], done[part], before, 0.9)
        parts.append(returns)
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5)
    np.testing.assert_allclose(before, expected[-1] * ~done[-1], atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"core": "gru", "segment_length": 4, "previous_reward": True}], ids=str)
def test_ratios_are_1_under_moved_moments(options: dict[str, Any]) -> None:
    config = CONFIG.replace(**options)
    agent, train_state, rollout = after_one_iteration(config)
    params = train_state.params
    assert params["normalization"]["observations"]["count"] == config.batch_size
    zeros = jnp.zeros_like(rollout.transitions.reward)
    minibatches = minibatch_segments(jax.random.key(3), config.num_envs, config.num_steps, 2, config.segment_length)

    @jax.jit
    def compare(segments: Segments) -> tuple[jax.Array, jax.Array]:
        batch = take_minibatch(rollout, zeros, zeros, segments)
        prepared = agent.apply(params, rollout.memory, method="prepare")
        output = forward_minibatch(agent, params, batch, prepared, config.segment_length)
        return output.policy.log_prob(batch.action) - batch.log_prob, output.value - batch.value

    for i in range(2):
        log_ratio, error = compare(jax.tree.map(lambda leaf, i=i: leaf[i], minibatches))
        np.testing.assert_allclose(jnp.exp(log_ratio), 1.0, atol=1e-5)
        np.testing.assert_allclose(error, 0.0, atol=1e-5)


def test_rewards_are_divided_by_the_scale_and_read_as_they_are() -> None:
    _, train_state, rollout = after_one_iteration(CONFIG.replace(previous_reward=True, core="gru"))
    steps, scale = rollout.transitions, np.sqrt(train_state.params["normalization"]["rewards"]["variance"] + 1e-8)
    assert abs(scale - 1) > 0.05
    read = np.where(steps.done[:-1], 0, steps.previous.reward[1:])
    np.testing.assert_allclose(np.where(steps.done[:-1], 0, steps.reward[:-1]) * scale, read, rtol=1e-5)
    assert set(np.unique(read).round(4)) == {np.float32(-0.1), 0}


def test_an_update_changes_parameters_only() -> None:
    """Neither gradients nor weight decay reach moments, and the optimiser keeps nothing for them."""
    agent, train_state, rollout = after_one_iteration(CONFIG)
    zeros, optimizer = jnp.ones_like(rollout.transitions.reward), make_optimizer()
    new, _ = jax.jit(partial(update, agent, optimizer, CONFIG))(train_state, rollout, zeros, zeros, jax.random.key(4))
    old = train_state.params
    jax.tree.map(np.testing.assert_array_equal, new.params["normalization"], old["normalization"])
    changed = jax.tree.map(lambda x, y: bool((x != y).any()), new.params["params"], old["params"])
    assert all(jax.tree.leaves(changed))
    expected = jax.eval_shape(optimizer.init, {"params": old["params"]})
    assert jax.tree.structure(new.opt_state) == jax.tree.structure(expected)


def test_without_the_flags_nothing_is_kept() -> None:
    agent, train_state, rollout = after_one_iteration(Config(**SIZES))
    assert set(train_state.params) == {"params"}
    assert not agent.normalization
    assert rollout.discounted_return is None


@pytest.mark.slow
def test_each_seed_has_moments_of_its_own() -> None:
    """Vmapped seeds are the seeds alone."""
    env = make_env(CONFIG)
    agent = make_agent(CONFIG, env.spec)
    train_step = make_train_step(CONFIG, env, agent)

    def run(seed: jax.Array) -> Any:
        init_key, key = jax.random.split(jax.random.key(seed))
        states = init_states(CONFIG, env, agent, init_key)
        for _ in range(2):
            *states, output = train_step(*states, key)
        return states[0].params, states[1].env_state.discounted_return, output.metrics["charts/reward_scale"]

    together = jax.jit(jax.vmap(run))(jnp.arange(3))
    for seed in range(3):
        row = jax.tree.map(lambda x, seed=seed: x[seed], together)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), jax.jit(run)(seed), row)
    assert len(np.unique(together[2])) == 3
    assert len(np.unique(together[0]["normalization"]["observations"]["mean"][:, 0])) == 3


def test_a_loaded_policy_has_the_moments_of_training_and_keeps_them(tmp_path: Path) -> None:
    run_dir = make_run(
        tmp_path / "run", env_id="ProofofMemory-v0", keep_best=True, eval_every=1, eval_episodes=2, **FLAGS
    )
    policy = trxl_jax.load(run_dir)
    moments = jax.device_get(policy.params["normalization"])
    assert moments["observations"]["count"] == moments["rewards"]["count"] == 32
    obs = np.array([0.3, -0.6, 1.0], np.float32)
    standardised = (obs - moments["observations"]["mean"]) / np.sqrt(moments["observations"]["variance"] + 1e-8)
    plain = Policy(policy.params, policy.agent.clone(normalization=Normalization()), policy.config)
    ours, _ = policy.decide(obs, policy.init())
    expected, _ = plain.decide(standardised, plain.init())
    other, _ = plain.decide(obs, plain.init())
    np.testing.assert_allclose(ours.value, expected.value, rtol=1e-5)
    assert abs(ours.value - other.value) > 1e-4
    played = [evaluate(policy, 4, num_envs=2).episodes for _ in range(2)]
    assert played[0] == played[1]
    jax.tree.map(np.testing.assert_array_equal, policy.params["normalization"], moments)
    best = trxl_jax.load(run_dir / "best")
    jax.tree.map(np.testing.assert_array_equal, best.params, policy.params)


def test_a_run_without_its_moments_is_refused(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", env_id="gymnax/ProofofMemory-v0")
    config = Config.from_json((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(config.replace(normalize_observations=True).to_json())
    with pytest.raises(CheckpointError, match=r"does not fit .*config\.json"):
        trxl_jax.load(run_dir)


def test_imported_parameters_get_moments_of_their_own() -> None:
    env = make_env(CONFIG)
    agent = make_agent(CONFIG, env.spec)
    given = {"params": jax.jit(agent.init_params)(jax.random.key(5))["params"]}
    train_state, _ = init_states(CONFIG, env, agent, jax.random.key(0), params=given)
    jax.tree.map(np.testing.assert_array_equal, train_state.params["params"], given["params"])
    assert train_state.params["normalization"]["rewards"]["count"] == 0
