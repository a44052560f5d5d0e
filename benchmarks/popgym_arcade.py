"""Steps a second of popgym-arcade's tasks, in an environment of its own: see `environments.py`, which runs this.

    python -m venv arcade && arcade/bin/pip install popgym-arcade six
    arcade/bin/python benchmarks/popgym_arcade.py NavigatorEasy --batches 1024

Prints one line of JSON. Knows nothing of trxl_jax, whose gymnax isn't the one that popgym-arcade brings.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

sys.path.remove(str(Path(__file__).parent))  # where this file would pass for the package of the same name

STEPS = 4


def device_rate(name: str, num_envs: int) -> Callable[[], float]:
    """A function that plays a batch of one task, compiled and warm, and returns steps a second."""
    import popgym_arcade

    env, params = popgym_arcade.make(name, partial_obs=True, obs_size=128)
    reset, step = (jax.vmap(function, axes) for function, axes in ((env.reset, (0, None)), (env.step, (0, 0, 0, None))))

    def one_step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        state, _ = carry
        action_key, key = jax.random.split(key)
        action = jax.random.randint(action_key, (num_envs,), 0, env.action_space(params).n)
        obs, state, *_ = step(jax.random.split(key, num_envs), state, action, params)
        return (state, obs), None

    # The carry is given away, as in a longer scan: what is measured is steps, not fresh memory.
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
    """Measures and prints."""
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
