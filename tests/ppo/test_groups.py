"""An update on groups of environments is the update on all of them, where they take the same minibatch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from trxl_jax import Config, init_states, make_agent, make_env
from trxl_jax.ppo.groups import AXIS, Groups
from trxl_jax.ppo.train_step import make_collect_and_learn

CONFIG = Config(
    env_id="gymnax/ProofofMemory-v0", num_envs=6, num_steps=16, num_minibatches=1, update_epochs=2, trxl_dim=16,
    trxl_num_heads=2, trxl_num_layers=1, trxl_memory_length=6, norm_adv=True, total_timesteps=96,
)  # fmt: skip
GROUPS = 3


@pytest.mark.parametrize("changes", [{}, {"core": "gru", "normalize_observations": True, "normalize_rewards": True}])
def test_update_of_groups_is_that_of_all(changes: dict[str, Any]) -> None:
    config = CONFIG.replace(**changes)
    env = make_env(config)
    agent = make_agent(config, env.spec)
    key = jax.random.key(3)
    collect, learn = make_collect_and_learn(config, env, agent)
    train_state, state = init_states(config, env, agent, key)
    _, rollout = jax.jit(collect)(train_state, state, key)
    expected_state, expected = jax.jit(learn)(train_state, rollout, key)

    def learn_on_groups(train_state: Any, stacked: Any, key: jax.Array, count: jax.Array) -> Any:
        return learn(train_state, stacked, key, Groups(GROUPS, 1, count))

    mesh = Mesh(np.array(jax.devices()[:1]), (AXIS,))
    specs = (P(), P(AXIS), P(), P())
    program = jax.shard_map(learn_on_groups, mesh=mesh, in_specs=specs, out_specs=(P(), P()), check_vma=False)
    result, metrics = jax.jit(program)(train_state, in_groups(rollout, config), key, jnp.int32(GROUPS))

    # Both epochs hold all steps in their one minibatch, so that only the order of sums differs.
    assert metrics.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5)  # noqa: E731
    jax.tree.map(close, result.params, expected_state.params)


def in_groups(rollout: Any, config: Config) -> Any:
    """A rollout stacked: of arrays [T, N, ...] and, in the memory and at the end, [N, ...]."""

    def split(leaf: jax.Array) -> jax.Array:
        axis = leaf.shape[:2].index(config.num_envs)
        parts = leaf.reshape(*leaf.shape[:axis], GROUPS, -1, *leaf.shape[axis + 1 :])
        return jnp.moveaxis(parts, axis, 0)

    return jax.tree.map(split, rollout)
