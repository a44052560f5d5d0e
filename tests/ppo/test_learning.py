"""It learns: tasks with a known answer, kept short; five seeds on the device are an example of the README."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.device_probes import Magnified
from trxl_jax import PRESETS, Config, init_states, make_agent, make_env, make_train_step
from trxl_jax.runs.trainer import train

pytestmark = pytest.mark.optimised


def returns_over_seeds(config: Config, seeds: int, episodes: int = 100, env: Any = None) -> np.ndarray:
    """Mean return of the last episodes of each seed, all seeds in one program."""
    env = make_env(config, env)
    agent = make_agent(config, env.spec)
    train_step = make_train_step(config, env, agent)

    def run(seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        init_key, key = jax.random.split(jax.random.key(seed))
        states = init_states(config, env, agent, init_key)

        def iterate(states, _):  # noqa: ANN202 - a scan's body
            train_state, rollout_state, output = train_step(*states, key)
            return (train_state, rollout_state), output.episode

        _, episode = jax.lax.scan(iterate, states, length=config.num_iterations)
        return episode.done, episode.episode_return

    done, episode_return = jax.jit(jax.vmap(run))(jnp.arange(1, seeds + 1))
    return np.array(
        [np.asarray(r)[np.asarray(d)][-episodes:].mean() for d, r in zip(done, episode_return, strict=True)]
    )


@pytest.mark.slow
def test_proof_of_memory_without_memory_is_not_solved() -> None:
    config = PRESETS["proof-of-memory"].replace(env_id="gymnax/ProofofMemory-v0", trxl_memory_length=1)
    # The best memoryless policy earns 0.34: its one informed step, the third, leaves a trace in the position. A
    # return's standard deviation is about 1.4, so that 100 episodes would pass 0.5 now and then; 1,000 don't.
    returns = returns_over_seeds(config, 5, episodes=1000)
    assert (returns < 0.5).all(), returns


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.slow
def test_proof_of_memory_on_the_host_is_solved(seed: int, tmp_path: Path) -> None:
    outcome = train(PRESETS["proof-of-memory"].replace(seed=seed, run_dir=str(tmp_path / "run")))
    assert outcome.metrics["episode/r_mean"] >= 1.1


@pytest.mark.slow
def test_memory_chain_is_learned() -> None:
    """One bit shown at the start decides the last step's reward, 6 steps later: 1 with memory, 0 by guessing."""
    config = Config(
        env_id="gymnax/MemoryChain-bsuite",
        total_timesteps=80_000,
        num_envs=32,
        num_steps=64,
        num_minibatches=4,
        update_epochs=4,
        init_lr=1e-3,
        final_lr=1e-3,
        init_ent_coef=0.01,
        gamma=0.95,
        trxl_num_layers=1,
        trxl_num_heads=2,
        trxl_dim=32,
        trxl_memory_length=8,
        clip_coef=0.2,
    )
    assert returns_over_seeds(config, 1)[0] >= 0.95
    blind = returns_over_seeds(config.replace(trxl_memory_length=1, total_timesteps=20_480), 1)[0]
    assert abs(blind) < 0.4


@pytest.mark.slow
def test_numbers_of_any_scale_are_learned_from_when_normalised() -> None:
    """Guessing earns a quarter of 8,000. Otherwise the first policies are certain, and nothing moves them."""
    config = Config(
        core="none", num_envs=16, num_steps=32, num_minibatches=4, update_epochs=4, total_timesteps=16 * 32 * 24,
        trxl_dim=32, init_lr=3e-3, final_lr=3e-3, init_ent_coef=0.01, final_ent_coef=0.01, gamma=0.9,
    )  # fmt: skip
    normalised = config.replace(normalize_observations=True, normalize_rewards=True)
    assert (returns_over_seeds(normalised, 3, episodes=50, env=Magnified()) > 7_600).all()
    assert (returns_over_seeds(config, 3, episodes=50, env=Magnified()) < 5_000).all()
