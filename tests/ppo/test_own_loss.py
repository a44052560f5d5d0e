"""A loss of one's own takes the place of PPO's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.config import Config
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import ConfigError
from trxl_jax.ppo.train_step import init_states, make_train_step

CONFIG = Config(env_id="gymnax/ProofofMemory-v0", num_envs=2, num_steps=8, num_minibatches=2, update_epochs=3,
                total_timesteps=16, trxl_num_layers=1, trxl_num_heads=1, trxl_dim=8, trxl_memory_length=4,
                anneal_steps=0, init_lr=0.1)  # fmt: skip


def test_it_is_what_is_minimised() -> None:
    """Of a constant, nothing is left of an update but the weight decay of each of its optimiser steps."""

    def constant(*arguments: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        batch = arguments[2]
        return jnp.float32(0), {"losses/mine": jnp.float32(batch.advantage.size)}

    env = make_env(CONFIG)
    agent = make_agent(CONFIG, env.spec)
    states = init_states(CONFIG, env, agent, jax.random.key(0))
    train_step = make_train_step(CONFIG, env, agent, loss=constant)
    after, _, output = train_step(*states, jax.random.key(1))
    shrunk = (1 - 0.1 * 0.01) ** (CONFIG.update_epochs * CONFIG.num_minibatches)
    expected = jax.tree.map(lambda leaf: leaf * shrunk, states[0].params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after.params, expected)
    assert output.metrics["losses/mine"] == CONFIG.batch_size / CONFIG.num_minibatches
    assert "losses/policy_loss" not in output.metrics


def test_without_approx_kl_it_does_not_go_with_target_kl() -> None:
    def constant(*arguments: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        return jnp.float32(0), {"losses/mine": jnp.float32(arguments[2].advantage.size)}

    config = CONFIG.replace(target_kl=0.5)
    env = make_env(config)
    agent = make_agent(config, env.spec)
    states = jax.eval_shape(lambda key: init_states(config, env, agent, key), jax.random.key(0))
    with pytest.raises(ConfigError, match=r"^--target_kl 0\.5: the loss returns no metric losses/approx_kl; .*leave"):
        jax.eval_shape(make_train_step(config, env, agent, loss=constant), *states, jax.random.key(1))
