"""What the reconstruction loss costs: limits that `docs/performance.md` states, as ratios within one process."""

import contextlib
import time
from typing import Any

import jax
import pytest
from jax._src import compilation_cache

from trxl_jax import PRESETS, init_states, make_agent, make_env
from trxl_jax.ppo.train_step import make_collect_and_learn

pytestmark = [pytest.mark.slow, pytest.mark.compiled_as_for_users]

# Of an update with the loss, in updates without it. Time is a ratio of minima on a machine that may be busy.
MOST_OPERATIONS, MOST_BYTES, MOST_TIME = 2.2, 2.5, 3.0


def test_an_update_with_reconstruction_costs_at_most_its_multiple_of_one_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Programs that are read from the cache have no memory analysis.
    monkeypatch.setattr(compilation_cache, "is_cache_used", lambda *_: False)
    small: dict[str, Any] = {
        "num_envs": 4, "num_steps": 128, "num_minibatches": 2, "trxl_dim": 128, "trxl_num_layers": 2,
        "trxl_memory_length": 64, "update_epochs": 1,
    }  # fmt: skip
    reconstructing = PRESETS["searing-spotlights"].replace(**small)
    programs, arguments = {}, {}
    with contextlib.closing(make_env(reconstructing)) as env:
        for name, coefficient in (("without", 0.0), ("with", reconstructing.reconstruction_coef)):
            config = reconstructing.replace(reconstruction_coef=coefficient)
            agent = make_agent(config, env.spec)
            collect, learn = make_collect_and_learn(config, env, agent)
            train_state, state = init_states(config, env, agent, jax.random.key(0))
            rollout = (
                arguments["without"][1] if arguments else jax.jit(collect)(train_state, state, jax.random.key(1))[1]
            )
            arguments[name] = train_state, rollout, jax.random.key(2)
            programs[name] = jax.jit(learn).lower(*arguments[name]).compile()

    def seconds(name: str) -> float:
        started = time.perf_counter()
        jax.block_until_ready(programs[name](*arguments[name]))
        return time.perf_counter() - started

    times = [{name: seconds(name) for name in programs} for _ in range(4)]
    with_it, without = (min(row[name] for row in times) for name in ("with", "without"))
    operations = {name: program.cost_analysis()["flops"] for name, program in programs.items()}
    numbers = {name: program.memory_analysis().temp_size_in_bytes for name, program in programs.items()}
    assert operations["with"] <= MOST_OPERATIONS * operations["without"], operations
    assert numbers["with"] <= MOST_BYTES * numbers["without"], numbers
    assert with_it <= MOST_TIME * without, times
