"""Trains every core on small memory tasks on the device, several seeds in one program, and prints their last returns.

    python benchmarks/core_returns.py [CORE ...] [--tasks TASK ...] [--seeds 1 2 3] [--out benchmarks/core_returns]

All cores get the same settings, those of the task; recurrent ones and "trxl, segments" learn through segments. Nothing
was tuned. The return is the mean over the episodes that end in the last three updates, for each seed. Writes OUT.json
and OUT.md; what is measured replaces figures of an earlier call.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parent.parent))

from cores import CORES
from names import check_names

from trxl_jax import init_states, make_agent, make_env, make_train_step
from trxl_jax.cli import run_command
from trxl_jax.commands.train import parse
from trxl_jax.config import Config
from trxl_jax.files import write_text_atomically

_HERE = Path(__file__).parent
_CHAIN = ["--env_id", "gymnax/MemoryChain-bsuite", "--num_envs", "32", "--num_steps", "128", "--num_minibatches", "8",
          "--update_epochs", "4", "--trxl_num_layers", "1", "--trxl_num_heads", "1", "--trxl_dim", "64", "--init_lr",
          "1e-3", "--final_lr", "1e-3", "--anneal_steps", "0", "--init_ent_coef", "0.01", "--final_ent_coef", "0.01",
          "--max_grad_norm", "0.5", "--clip_coef", "0.2", "--total_timesteps", "204800"]  # fmt: skip
TASKS: dict[str, tuple[list[str], str]] = {
    "proof-of-memory": (["proof-of-memory", "--backend", "device"], "16"),
    "memory-chain-20": ([*_CHAIN, "--env_options", '{"memory_length": 20}', "--trxl_memory_length", "32"], "64"),
    "memory-chain-60": ([*_CHAIN, "--env_options", '{"memory_length": 60}', "--trxl_memory_length", "80"], "128"),
}
"""Flags of each task, and the length of segments of cores that learn through them."""


def returns(config: Config, seeds: Sequence[int]) -> list[float]:
    """Mean return in the last three updates, for each seed."""
    env = make_env(config)
    agent = make_agent(config, env.spec)
    train_step = make_train_step(config, env, agent)

    def train(seed: jax.Array) -> jax.Array:
        init_key, key = jax.random.split(jax.random.key(seed))

        def iterate(states: tuple[Any, Any], _: None) -> Any:
            train_state, rollout_state, output = train_step(*states, key)
            ended = output.episode.done
            return (train_state, rollout_state), jnp.stack(
                [(output.episode.episode_return * ended).sum(), ended.sum().astype(jnp.float32)]
            )

        states = init_states(config, env, agent, init_key)
        total, count = jax.lax.scan(iterate, states, length=config.num_iterations)[1][-3:].sum(axis=0)
        return total / count

    return [float(value) for value in jax.jit(jax.vmap(train))(jnp.array(seeds, jnp.uint32))]


def table(measured: dict[str, Any]) -> str:
    """A Markdown table: for each core and task the returns of all seeds."""
    tasks = [task for task in TASKS if any(task in row for row in measured.values())]
    lines = [f"| core | {' | '.join(tasks)} |", "|" + "---|" * (1 + len(tasks))]
    for core in CORES:
        if core in measured:
            cells = (", ".join(f"{value:.2f}" for value in measured[core].get(task, [])) for task in tasks)
            lines.append(f"| {core} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(flags: Sequence[str]) -> int:
    """Trains and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cores", nargs="*", metavar="CORE", help="default: all")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=_HERE / "core_returns", help="files without suffix (%(default)s)")
    given = parser.parse_args(flags)
    check_names("core", given.cores, CORES)
    path = given.out.with_suffix(".json")
    measured = json.loads(path.read_text()) if path.exists() else {}
    for task in given.tasks:
        base, segment = TASKS[task]
        for core in given.cores or CORES:
            started = time.perf_counter()
            own = [segment if flag == "Q" else flag for flag in CORES[core]]
            figures = returns(parse([*base, *own]).config, given.seeds)
            measured.setdefault(core, {})[task] = figures
            shown = ", ".join(f"{value:.2f}" for value in figures)
            print(f"{task}, {core}: {shown} ({time.perf_counter() - started:.0f} s)", flush=True)
            write_text_atomically(path, json.dumps(measured, indent=1) + "\n")
            write_text_atomically(given.out.with_suffix(".md"), table(measured))
            jax.clear_caches()
    print(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
