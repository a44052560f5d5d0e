"""Recurrent cores: resets, ways to unroll, initial distributions, precision."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from trxl_jax.agent.cores.linear_recurrences import LRU, MinGRU, positive
from trxl_jax.agent.cores.recurrent import GRU, LSTM, RecurrentCore
from trxl_jax.agent.numerics import Numerics

CPU, GPU = Numerics("cpu"), Numerics("gpu")
B, G, D = 4, 7, 6
# Nowhere, in two steps in a row, at the first step, at the last one and in between.
FIRST = np.array([[0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 1]], bool)
THIRD = np.sqrt(1 / 3)


class Decaying(RecurrentCore):
    """A core as a researcher would write it, whose states don't start at zero."""

    @nn.nowrap
    def initial_state(self, num_envs: int) -> dict[str, jax.Array]:
        return {"sum": jnp.ones((num_envs, 2, self.dim)), "count": jnp.full(num_envs, 0.5)}

    @nn.compact
    def step_state(self, state: dict[str, jax.Array], x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        total = jnp.tanh(0.5 * state["sum"] + nn.Dense(self.dim)(x)[:, None])
        return {"sum": total, "count": state["count"] + 1}, total.sum(axis=1) / state["count"][:, None]


CORES: dict[str, RecurrentCore] = {
    "gru": GRU(dim=D, num_layers=2, numerics=CPU),
    "lstm": LSTM(dim=D, num_layers=2, numerics=CPU),
    "min_gru": MinGRU(dim=D, num_layers=2, numerics=CPU),
    "min_gru_positive": MinGRU(dim=D, num_layers=1, numerics=CPU, candidate="positive"),
    "min_gru_on_accelerators": MinGRU(dim=D, num_layers=2, numerics=GPU),
    "lru": LRU(dim=D, num_layers=2, numerics=CPU, state_dim=5),
    "lru_on_accelerators": LRU(dim=D, num_layers=2, numerics=GPU),
    "own": Decaying(dim=D),
}


def make_inputs(core: RecurrentCore) -> tuple[Any, Any, jax.Array]:
    """Parameters, a state in the middle of an episode, and inputs f32[B, G, D]."""
    params = core.init(jax.random.key(0), core.initial_state(B), jnp.zeros((B, D)), method="step_state")
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda s: s + rng.normal(size=s.shape).astype(np.float32), core.initial_state(B))
    return params, state, jnp.asarray(rng.normal(size=(B, G, D)), jnp.float32)


def naive(
    core: RecurrentCore, params: Any, state: Any, x: jax.Array, first: np.ndarray = FIRST
) -> tuple[Any, jax.Array]:
    """Each sequence by itself, one step after the other."""
    step = jax.jit(lambda params, state, x: core.apply(params, state, x, method="step_state"))
    states, outputs = [], []
    for b in range(B):
        one = jax.tree.map(lambda s: s[b : b + 1], state)  # noqa: B023 - it is called here
        for g in range(G):
            one, y = step(params, core.initial_state(1) if first[b, g] else one, x[b : b + 1, g])
            outputs.append(y[0])
        states.append(one)
    return jax.tree.map(lambda *s: jnp.concatenate(s), *states), jnp.stack(outputs).reshape(B, G, -1)


def values_and_gradients(run: Callable[..., Any], inputs: Any) -> Any:
    """Final state, outputs, and gradients of a function of all of them for parameters, initial state and inputs."""
    weights = np.random.default_rng(1).normal(size=(B, G, D)).astype(np.float32)

    def loss(params: Any, state: Any, x: jax.Array) -> Any:
        final, y = run(params, state, x)
        return (y * weights).sum() + sum(s.sum() for s in jax.tree.leaves(final)), (final, y)

    gradients, values = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*inputs)
    return values, gradients


@pytest.mark.slow
@pytest.mark.parametrize("name", CORES)
def test_unrolling_is_a_loop_over_steps_with_resets(name: str) -> None:
    core = CORES[name]
    inputs = make_inputs(core)
    expected = values_and_gradients(partial(naive, core), inputs)
    of_initial_state = expected[1][1]
    assert all((leaf[2] == 0).all() for leaf in jax.tree.leaves(of_initial_state))  # it was reset at once
    for method in ("unroll", RecurrentCore.unroll):
        run = partial(core.apply, first=FIRST, method=method)
        ours = jax.jit(partial(values_and_gradients, run))(inputs)
        assert jax.tree.structure(ours) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "lstm", "min_gru", "lru", "lru_on_accelerators"])
def test_random_resets(name: str) -> None:
    core = CORES[name]
    inputs = make_inputs(core)
    unroll = jax.jit(partial(core.apply, method="unroll"))

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(first=st.lists(st.booleans(), min_size=B * G, max_size=B * G))
    def check(first: list[bool]) -> None:
        resets = np.array(first).reshape(B, G)
        ours, expected = unroll(*inputs, resets), naive(core, *inputs, first=resets)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", CORES)
def test_states_are_real_arrays_and_parameters_the_same_either_way(name: str) -> None:
    core = CORES[name]
    params, state, x = make_inputs(core)
    initial = core.initial_state(3)
    assert all(leaf.dtype == jnp.float32 and leaf.shape[0] == 3 for leaf in jax.tree.leaves(initial))
    if name != "own":
        assert not any(leaf.any() for leaf in jax.tree.leaves(initial))
    unrolled = core.init(jax.random.key(0), state, x, FIRST, method="unroll")
    jax.tree.map(np.testing.assert_array_equal, params, unrolled)
    after, _ = core.apply(params, state, x[:, 0], method="step_state")
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


def initial_params(core: RecurrentCore) -> dict[str, np.ndarray]:
    x = jnp.zeros((1, core.dim))
    params = jax.jit(lambda: core.init(jax.random.key(0), core.initial_state(1), x, method="step_state"))()
    return jax.tree.map(np.asarray, flatten_dict(params["params"], sep="/"))


@pytest.mark.parametrize(("kind", "gates"), [(GRU, 3), (LSTM, 4), (MinGRU, 1)])
def test_initial_distributions_are_pytorchs(kind: Any, gates: int) -> None:
    dim, num_layers = 96, 2
    params = initial_params(kind(dim=dim, num_layers=num_layers, numerics=CPU))
    assert len(params) == 4 * num_layers
    for name, value in params.items():
        assert value.shape == ((dim, gates * dim) if name.endswith("kernel") else (gates * dim,)), name
        assert 0.9 < np.abs(value).max() * np.sqrt(dim) <= 1, name
        assert value.std() * np.sqrt(dim) == pytest.approx(THIRD, rel=0.2 if value.ndim == 1 else 0.02), name
        assert abs(value.mean()) * np.sqrt(dim) < (0.2 if value.ndim == 1 else 0.02), name


def test_initial_distribution_of_lru() -> None:
    d, s = 64, 2000
    params = {
        name.split("/")[1]: value
        for name, value in initial_params(LRU(dim=d, num_layers=1, numerics=CPU, state_dim=s)).items()
    }
    modulus, phase = np.exp(-np.exp(params["nu_log"])), np.exp(params["theta_log"])
    area = (modulus**2 - 0.9**2) / (0.999**2 - 0.9**2)  # uniform by area
    for uniform in (area, phase / (2 * np.pi)):
        assert -1e-5 <= uniform.min() < 0.01
        assert 0.99 < uniform.max() <= 1 + 1e-5
        assert uniform.mean() == pytest.approx(0.5, abs=0.02)
        assert uniform.std() == pytest.approx(THIRD / 2, rel=0.05)
    np.testing.assert_allclose(np.exp(params["gamma_log"]), np.sqrt(1 - modulus**2), rtol=1e-4)
    for name, shape, std in (("b_re", (d, s), (2 * d) ** -0.5), ("b_im", (d, s), (2 * d) ** -0.5),
                             ("c_re", (s, d), s**-0.5), ("c_im", (s, d), s**-0.5)):  # fmt: skip
        assert params[name].shape == shape
        assert params[name].std() == pytest.approx(std, rel=0.02)
    assert params["d"].std() == pytest.approx(1, rel=0.3)
    assert LRU(dim=d, num_layers=1, numerics=CPU).initial_state(1)[0].real.shape == (1, d)


def test_lru_has_no_infinite_parameter_on_a_whole_disc() -> None:
    params = initial_params(LRU(dim=D, num_layers=1, numerics=CPU, state_dim=4096, r_min=0.0, r_max=1.0))
    assert all(np.isfinite(value).all() for value in params.values())


def test_positive_candidates() -> None:
    np.testing.assert_allclose(positive(jnp.array([-30.0, -1.0, 0.0, 2.0])), [0, 1 / (1 + np.e), 0.5, 2.5], atol=1e-6)
    with pytest.raises(KeyError):
        MinGRU(dim=D, num_layers=1, numerics=CPU, candidate="other").init(
            jax.random.key(0), (jnp.zeros((1, D)),), jnp.zeros((1, D)), method="step_state"
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", [GRU, LSTM, MinGRU, LRU])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_bfloat16_is_for_factors_only(kind: Any, platform: str) -> None:
    dim = 64
    cores = [
        kind(dim=dim, num_layers=1, numerics=Numerics(platform, np.dtype(dtype)))
        for dtype in (jnp.float32, jnp.bfloat16)
    ]
    params = cores[0].init(jax.random.key(0), cores[0].initial_state(B), jnp.zeros((B, dim)), method="step_state")
    x = jax.random.normal(jax.random.key(1), (B, G, dim))

    def run(core: RecurrentCore) -> Any:
        def loss(params: Any) -> Any:
            final, y = core.apply(params, core.initial_state(B), x, FIRST, method="unroll")
            return jnp.square(y).sum(), (final, y)

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    exact, rounded = (run(core) for core in cores)
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(rounded), strict=True):
        assert a.dtype == b.dtype == jnp.float32
        # Products of factors with 8 bits, and products in a row: G steps, forwards and backwards.
        assert 0 < np.abs(a - b).max() <= 2**-5 * np.abs(a).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "lru", "lru_on_accelerators", "own"])
def test_seeds_can_be_vmapped(name: str) -> None:
    core = CORES[name]
    params, state, x = make_inputs(core)

    def gradient(params: Any, x: jax.Array) -> Any:
        return jax.grad(lambda p: jnp.square(core.apply(p, state, x, FIRST, method="unroll")[1]).sum())(params)

    both = jax.tree.map(lambda p: jnp.stack([p, 0.9 * p]), params)
    ours = jax.jit(jax.vmap(gradient, in_axes=(0, None)))(both, x)
    alone = jax.jit(gradient)(jax.tree.map(lambda p: 0.9 * p, params), x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5 * np.abs(b).max()), ours, alone)
