"""Compares Proof of Memory's learning curve on the device with the original's, ten seeds each; takes about a minute.

    python benchmarks/learning_curve.py [--seeds 10]

The original's curves, in `proof_of_memory_original.csv`, are those of its PyTorch implementation with the same
configuration. Returns are means over the last 100 finished episodes.
"""

import argparse
import csv
import sys
from collections import defaultdict, deque
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from trxl_jax import PRESETS, init_states, make_agent, make_env
from trxl_jax.ppo.train_step import compile_train_step

ORIGINAL = Path(__file__).with_name("proof_of_memory_original.csv")


def curves(num_seeds: int) -> np.ndarray:
    """Trains and returns the mean return after each update, f64[seeds, updates]."""
    config = PRESETS["proof-of-memory"].replace(env_id="gymnax/ProofofMemory-v0")
    env = make_env(config)
    agent = make_agent(config, env.spec)
    train_step = None
    rows = []
    for seed in range(num_seeds):
        init_key, key = jax.random.split(jax.random.key(seed))
        states = init_states(config, env, agent, init_key)
        train_step = train_step or compile_train_step(config, env, agent, states, key)
        last: deque[float] = deque(maxlen=100)
        row = []
        for _ in range(config.num_iterations):
            train_state, rollout_state, output = train_step(*states, key)
            states = train_state, rollout_state
            last.extend(np.asarray(output.episode.episode_return)[np.asarray(output.episode.done)].tolist())
            row.append(np.mean(last))
        rows.append(row)
    return np.array(rows)


def main() -> None:
    """Trains and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    ours = curves(parser.parse_args().seeds)
    original = defaultdict(list)
    for row in csv.DictReader(ORIGINAL.open()):
        original[int(row["global_step"])].append(float(row["return_mean"]))
    table = Table(title="mean return ± standard deviation over seeds")
    for column in ("steps", "original", "ours"):
        table.add_column(column, justify="right")
    for step, mine in zip(sorted(original), ours.T, strict=False):
        theirs = np.array(original[step])
        table.add_row(f"{step:,}", *(f"{x.mean():.2f} ± {x.std():.2f}" for x in (theirs, mine)))
    Console().print(table)


if __name__ == "__main__":
    main()
