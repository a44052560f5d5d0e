"""Whole iterations against a reference in NumPy that shares no code with them: rollout, losses, gradients, update."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.autodiff import Node, concatenate, exp, gradients, log, maximum
from tests.support.device_probes import Wandering
from tests.support.reference import Iteration, Reference
from trxl_jax import Config, init_states, make_agent, make_train_step
from trxl_jax.ppo.rollout import collect_rollout

ITERATIONS = 3
BASE = Config(
    num_envs=3, num_steps=8, num_minibatches=2, update_epochs=2, total_timesteps=10_000, max_episode_steps=16,
    gamma=0.9, gae_lambda=0.7, init_lr=3e-3, final_lr=1e-3, init_ent_coef=0.05, final_ent_coef=0.01, anneal_steps=40,
    max_grad_norm=0.5, trxl_dim=8, trxl_num_heads=2, trxl_num_layers=2, trxl_memory_length=5, memory_dtype="float32",
)  # fmt: skip


class Case(NamedTuple):
    """Changes of `BASE`, choices of each action branch, and the formulation: that for CPUs, GPUs or TPUs."""

    changes: Mapping[str, Any]
    nvec: tuple[int, ...] = (3,)
    platform: str = "cpu"


CASES = {
    "window shorter than the rollout, formulation for GPUs": Case({}, platform="gpu"),
    "window shorter than the rollout, formulation for TPUs": Case({}, platform="tpu"),
    "window longer than the rollout, multi-discrete, normalised advantages": Case(
        {"trxl_memory_length": 11, "trxl_num_layers": 1, "norm_adv": True, "max_grad_norm": 1e3}, nvec=(2, 3)
    ),
    "learned positions with an end, bootstrap of truncated episodes": Case(
        {"trxl_positional_encoding": "learned", "max_episode_steps": 4, "trxl_memory_length": 4,
         "bootstrap_truncated": True}
    ),
    "no memory, values not clipped, stops by target_kl": Case(
        {"trxl_memory_length": 1, "trxl_num_layers": 1, "clip_vloss": False, "target_kl": 2e-3, "update_epochs": 3,
         "init_lr": 0.01, "final_lr": 1e-4}
    ),
    "memory refreshed before each epoch but the first, and its staleness": Case(
        {"refresh_memory": True, "log_staleness": 2, "update_epochs": 3, "init_lr": 0.02, "final_lr": 0.02},
        nvec=(2, 3),
    ),
    "normalised observations and rewards, bootstrap of truncated episodes, staleness": Case(
        {"normalize_observations": True, "normalize_rewards": True, "bootstrap_truncated": True, "log_staleness": 2}
    ),
    "bfloat16 memory of two slots, no positions, no annealing": Case(
        {"memory_dtype": "bfloat16", "trxl_memory_length": 2, "trxl_positional_encoding": "none", "anneal_steps": 0}
    ),
}  # fmt: skip
# One case for each kind of accelerator runs in the usual tests; the slow ones run all others as for GPUs.
ALSO_FOR_ACCELERATORS = {
    f"{name}, formulation for GPUs": case._replace(platform="gpu")
    for name, case in CASES.items()
    if case.platform == "cpu"
}


class Run(NamedTuple):
    env: Any
    agent: Any
    states: tuple[Any, Any]
    reference: Reference


def start(config: Config, case: Case) -> Run:
    env = Wandering(config.num_envs, case.nvec, config.max_episode_steps)
    agent = make_agent(config, env.spec, case.platform)
    states = init_states(config, env, agent, jax.random.key(0))
    train_state, state = states
    env_state = state.env_state.env_state if config.normalize_rewards else state.env_state
    return Run(env, agent, states, Reference(config, env, train_state.params["params"], env_state, state.obs))


def assert_close(name: str, ours: Any, expected: Any, tolerance: float) -> None:
    """Relative to the expected array's largest magnitude, or to 1 / 10 if that is less: sums may cancel."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    assert ours.shape == expected.shape, name
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 0.1), err_msg=name)


@pytest.mark.parametrize("name", [*CASES, *(pytest.param(n, marks=pytest.mark.slow) for n in ALSO_FOR_ACCELERATORS)])
def test_iterations(name: str) -> None:
    case = (CASES | ALSO_FOR_ACCELERATORS)[name]
    config = BASE.replace(**case.changes)
    first_tolerance = 1e-5 if config.memory_dtype == "float32" else 3e-3
    env, agent, states, reference = start(config, case)
    train_step = make_train_step(config, env, agent)
    key = jax.random.key(1)
    expected = []
    for i in range(ITERATIONS):
        # Later iterations start from parameters that have been rounded differently.
        tolerance = first_tolerance * (1 if i == 0 else 10)
        expected.append(reference.iterate(key))
        *states, output = train_step(*states, key)
        train_state, state = states
        assert output.metrics.keys() == expected[-1].metrics.keys()
        for metric, value in expected[-1].metrics.items():
            assert_close(metric, output.metrics[metric], value, tolerance)
            if metric.startswith("staleness/"):
                assert output.metrics[metric] == pytest.approx(value, rel=10 * tolerance), metric
        done = np.asarray(output.episode.done)
        for statistic, values in expected[-1].episodes.items():
            assert_close(statistic, getattr(output.episode, statistic) * done, values, 1e-6)
        leaves = jax.tree_util.tree_leaves_with_path(reference.params)
        for (path, value), ours in zip(leaves, jax.tree.leaves(train_state.params["params"]), strict=True):
            # AdamW turns rounding errors of the smallest gradients into fractions of a step; for accelerators also
            # those of gradients that are exactly 0 elsewhere.
            fraction = 0.03 if agent.numerics.platform == "cpu" else 0.2
            allowed = max(tolerance * np.abs(value).max(), fraction * config.init_lr)
            np.testing.assert_allclose(ours, value, rtol=0, atol=allowed, err_msg=jax.tree_util.keystr(path))
        assert_same_place(state, reference, config, tolerance)
        assert_same_moments(train_state.params.get("normalization"), reference, config)
    assert_covered(name, config, expected)


def assert_same_place(state: Any, reference: Reference, config: Config, tolerance: float) -> None:
    """What the next rollout starts from."""
    np.testing.assert_array_equal(state.obs, reference.obs)
    np.testing.assert_array_equal(state.memory.episode_step, reference.episode_step)
    window = config.trxl_memory_length
    kept = min(window, len(reference.histories[0]))
    newest = [history[-kept:] for history in reference.histories]
    np.testing.assert_array_equal(state.memory.position[:, -kept:], [[s.position for s in slots] for slots in newest])
    hidden = np.array([[slot.hidden for slot in slots] for slots in newest])
    assert state.memory.hidden.dtype == hidden.dtype
    assert state.memory.hidden.shape[1] == window
    assert_close("memory", state.memory.hidden[:, -kept:].astype(jnp.float32), hidden, tolerance)


def assert_same_moments(moments: Any, reference: Reference, config: Config) -> None:
    """Of everything that was seen so far."""
    assert (moments is None) == (not config.normalize_observations)
    if moments is not None:
        for name, seen in (("observations", reference.seen_obs), ("rewards", reference.seen_returns)):
            assert moments[name]["count"] == len(seen)
            assert_close(f"mean of {name}", moments[name]["mean"], np.mean(seen, axis=0), 1e-5)
            assert_close(f"variance of {name}", moments[name]["variance"], np.var(seen, axis=0), 1e-5)


def assert_covered(name: str, config: Config, iterations: list[Iteration]) -> None:
    """That the case shows what it is for."""
    done = np.concatenate([iteration.transitions["done"] for iteration in iterations])
    assert done[:-1].any(axis=0).all()  # every environment was reset inside a rollout
    episode_step = np.concatenate([iteration.transitions["episode_step"] for iteration in iterations])
    assert episode_step.max() > min(config.trxl_memory_length, 7)  # episodes are longer than a short window
    staleness = [iteration.metrics.get("staleness/kl", 0) > 0 for iteration in iterations]
    assert staleness == [i % 2 == 1 and config.log_staleness == 2 for i in range(ITERATIONS)]
    norms = [iteration.metrics["losses/grad_norm"] for iteration in iterations]
    assert (min(norms) > config.max_grad_norm) == (config.max_grad_norm < 1e3)
    epochs = [iteration.epochs for iteration in iterations]
    if config.target_kl is None:
        assert set(epochs) == {config.update_epochs}
    else:
        assert min(epochs) < config.update_epochs == max(epochs)
        assert max(iteration.metrics["losses/clipfrac"] for iteration in iterations) > 0


def test_transitions() -> None:
    """Every number of a rollout, with bootstraps of truncated episodes in the rewards."""
    config = BASE.replace(bootstrap_truncated=True, trxl_num_layers=1)
    env, agent, (train_state, state), reference = start(config, Case({}))
    collect = jax.jit(
        lambda state, key: collect_rollout(
            agent, train_state.params, env, state, key, config.num_steps, gamma=config.gamma, bootstrap_truncated=True
        )
    )
    for seed in (1, 2):
        key = jax.random.key(seed)
        expected, last_value, _ = reference.collect(key)
        state, rollout = collect(state, key)
        assert_close("obs", rollout.observations.obs, expected.pop("obs"), 0)
        assert {name for name, values in rollout.transitions._asdict().items() if values is not None} == expected.keys()
        for name, values in expected.items():
            assert_close(name, getattr(rollout.transitions, name), values, 1e-5)
        assert_close("last_value", rollout.last_value, last_value, 1e-5)


def test_gradients_of_the_reference() -> None:
    """Against central differences."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in ((3, 4), (4,), (4, 2), (5,))]

    def number(nodes: list[Node]) -> Node:
        a, b, c, d = nodes
        x = maximum(a * b - b, -0.5) @ c  # [3, 2]
        y = concatenate([x[1], log(exp(d) + 1.0), b[:1]])
        return (y**2.0 / (1.0 + exp(-y))).mean() + ((x - x.mean(axis=-1)) ** 2.0).sum() + (x[[0, 0, 2]] @ c[1]).sum()

    nodes = [Node(x) for x in arrays]
    computed = gradients(number(nodes), nodes)
    for array, gradient in zip(arrays, computed, strict=True):
        for index in np.ndindex(array.shape):
            values = []
            for change in (1e-6, -2e-6):
                array[index] += change
                values.append(float(number([Node(x) for x in arrays]).value))
            array[index] += 1e-6
            assert gradient[index] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6, abs=1e-8)
