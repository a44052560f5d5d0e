"""Measures steps per second of popgym-arcade's tasks, in a separate virtual environment; run by `environments.py`.

    python -m venv arcade && arcade/bin/pip install popgym-arcade six
    arcade/bin/python benchmarks/arcade.py NavigatorEasy --batches 1024

Prints one line of JSON. It doesn't import trxl_jax, which needs another version of gymnax than popgym-arcade.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

STEPS = 4


def device_rate(name: str, num_envs: int) -> Callable[[], float]:
    """Returns a function that steps a batch of one task, compiled and warmed up, and returns steps per second."""
    import popgym_arcade

    env, params = popgym_arcade.make(name, partial_obs=True, obs_size=128)
    reset, step = (jax.vmap(function, axes) for function, axes in ((env.reset, (0, None)), (env.step, (0, 0, 0, None))))

    def one_step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        state, _ = carry
        action_key, key = jax.random.split(key)
        action = jax.random.randint(action_key, (num_envs,), 0, env.action_space(params).n)
        obs, state, *_ = step(jax.random.split(key, num_envs), state, action, params)
        return (state, obs), None

    # Donating the carry avoids measuring the allocation of memory, which a longer scan would not need.
    play = jax.jit(lambda carry, key: jax.lax.scan(one_step, carry, jax.random.split(key, STEPS))[0], donate_argnums=0)
    obs, state = reset(jax.random.split(jax.random.key(0), num_envs), params)
    carry = jax.block_until_ready(play((state, obs), jax.random.key(1)))

    def rate() -> float:
        nonlocal carry
        started = time.perf_counter()
        carry = jax.block_until_ready(play(carry, jax.random.key(2)))
        return STEPS * num_envs / (time.perf_counter() - started)

    return rate


def main() -> None:
    """Measures and prints one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--batches", type=int, nargs="+", default=[1024])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for name in options.tasks:
        figures[name] = {}
        for n in options.batches:
            play = device_rate(name, n)
            figures[name][f"device {n}"] = statistics.median(play() for _ in range(options.repeats))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
