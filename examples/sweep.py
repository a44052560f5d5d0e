"""Sweeps learning rates and seeds of Proof of Memory in one vmapped program: `python examples/sweep.py`.

Each pair of a learning rate and a seed is one lane of the batch: an independent training run, whose result doesn't
depend on the other lanes. Rates and coefficients of the configuration can be swept in this way, but not array sizes
(N, T, W, ...).
"""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from trxl_jax import PRESETS, Config, init_states, make_agent, make_env, make_train_step
from trxl_jax.cli import run_command

CONFIG = PRESETS["proof-of-memory"].replace(env_id="gymnax/ProofofMemory-v0")


def train_lane(init_lr: jax.Array, seed: jax.Array, config: Config = CONFIG) -> jax.Array:
    """One training run.

    Args:
        init_lr: f32[], initial learning rate.
        seed: u32[], seed of all random numbers.
        config: all other settings.

    Returns:
        f32[iterations], mean return of the episodes that ended in each iteration; NaN if none did.
    """
    # Puts a traced number into the configuration, which is only used inside this program.
    config = config.replace(init_lr=init_lr)
    env = make_env(config)
    agent = make_agent(config, env.spec)
    train_step = make_train_step(config, env, agent)
    init_key, key = jax.random.split(jax.random.key(seed))

    def iterate(states: tuple[Any, Any], _: None) -> tuple[Any, jax.Array]:
        train_state, rollout_state, output = train_step(*states, key)
        ended = output.episode.done
        return (train_state, rollout_state), (output.episode.episode_return * ended).sum() / ended.sum()

    states = init_states(config, env, agent, init_key)
    return jax.lax.scan(iterate, states, length=config.num_iterations)[1]


def main(flags: Sequence[str]) -> int:
    """Prints each learning rate's mean return in the last three updates: over all seeds, and of the worst seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--init_lr", type=float, nargs="+", default=[3e-5, 1e-4, 3e-4, 1e-3, 3e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--total_timesteps", type=float, default=CONFIG.total_timesteps, help="steps of each run")
    given = parser.parse_args(flags)

    config = CONFIG.replace(total_timesteps=given.total_timesteps)
    for init_lr, seed in itertools.product(given.init_lr, given.seeds):
        config.replace(init_lr=init_lr, seed=seed)  # checks them: traced numbers can't be
    lanes = list(itertools.product(given.init_lr, given.seeds))
    rates, seeds = jnp.array([rate for rate, _ in lanes]), jnp.array([seed for _, seed in lanes], jnp.uint32)
    print(f"{len(lanes)} runs of {config.num_iterations * config.batch_size:,} steps", flush=True)
    started = time.perf_counter()
    run = jax.jit(jax.vmap(lambda init_lr, seed: train_lane(init_lr, seed, config)))
    returns = jax.block_until_ready(run(rates, seeds))
    print(f"took {time.perf_counter() - started:.0f} s, including compilation")
    print("init_lr   mean   worst")
    last = returns[:, -3:].mean(axis=1).reshape(len(given.init_lr), len(given.seeds))
    for init_lr, over_seeds in zip(given.init_lr, last, strict=True):
        print(f"{init_lr:<8g} {over_seeds.mean():6.2f} {over_seeds.min():6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
