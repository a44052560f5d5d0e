"""What accelerators compute in few kernels is what the plain formulations compute."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trxl_jax.agent.distributions import ActionDistribution, make_distribution
from trxl_jax.config import Config
from trxl_jax.envs.actions import ActionSpace, BoxActions, DiscreteActions
from trxl_jax.envs.tasks.memory_gym.drawing import RGB_FORMULATIONS
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem import MortarMayhem, MortarMayhemGrid
from trxl_jax.ppo.advantages import discounted_returns, gae, linear_recurrence
from trxl_jax.ppo.flat import AdamW, Flat
from trxl_jax.ppo.minibatch_losses import Targets, losses, losses_in_few_kernels
from trxl_jax.ppo.packing import Packing, scan_packed, scan_stacked
from trxl_jax.ppo.update import apply_gradients, clip, make_optimizer

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 64, 100])
def test_parallel_advantages_equal_sequential_ones(num_steps: int) -> None:
    reward, value = RNG.normal(size=(2, num_steps, 5)).astype(np.float32)
    done, last = RNG.random((num_steps, 5)) < 0.1, RNG.normal(size=5).astype(np.float32)
    one_by_one = gae(reward, value, done, last, 0.995, 0.95)
    at_once = gae(reward, value, done, last, 0.995, 0.95, in_parallel=True)
    for expected, ours in zip(one_by_one, at_once, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    before = RNG.normal(size=5).astype(np.float32)
    sequential, parallel = (
        discounted_returns(jnp.asarray(reward), jnp.asarray(done), before, 0.9, in_parallel=way)
        for way in (False, True)
    )
    for expected, ours in zip(sequential, parallel, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_parallel_advantages_by_hand() -> None:
    """Two steps, an episode's end, and two steps that go on; gamma 1/2, lambda 1/2, all values 0 but the last, 8."""
    reward, zeros = jnp.array([[1.0], [2.0], [4.0], [8.0]]), jnp.zeros((4, 1))
    done = jnp.array([[False], [True], [False], [False]])
    advantage, returns = gae(reward, zeros, done, jnp.array([8.0]), 0.5, 0.5, in_parallel=True)
    np.testing.assert_array_equal(advantage[:, 0], [1 + 2 / 4, 2, 4 + 12 / 4, 8 + 8 / 2])
    np.testing.assert_array_equal(returns, advantage)


def test_a_recurrence_by_hand() -> None:
    addend, factor = jnp.array([1.0, 10.0, 100.0]), jnp.array([5.0, 2.0, 3.0])
    np.testing.assert_array_equal(linear_recurrence(addend, factor), [1, 12, 136])
    np.testing.assert_array_equal(linear_recurrence(addend, factor, reverse=True), [1051, 210, 100])


def tree() -> dict[str, Any]:
    shapes = {"conv": (3, 3, 2, 4), "kernel": (5, 7), "bias": (7,), "scalar": ()}
    return {"params": {name: jnp.asarray(RNG.normal(size=shape), jnp.float32) for name, shape in shapes.items()}}


def test_one_array_of_parameters_and_back() -> None:
    params = tree()
    form = Flat.of(params)
    flat = form.flatten(params)
    assert flat.shape == (3 * 3 * 2 * 4 + 5 * 7 + 7 + 1,)
    jax.tree.map(np.testing.assert_array_equal, form.unflatten(flat), params)
    state = make_optimizer().init(params)
    flat_state = form.flatten_state(state)
    assert flat_state[0].mu.shape == flat.shape
    assert flat_state[0].count.shape == ()
    jax.tree.map(np.testing.assert_array_equal, form.unflatten_state(flat_state, state), state)


def test_adamw_on_one_array_is_optax_on_the_tree() -> None:
    """To a few units in the last place: of the parameters, or of a step."""
    params, optimizer, config = tree(), make_optimizer(), Config(max_grad_norm=1e9)
    assert isinstance(optimizer, AdamW)
    form, state = Flat.of(params), optimizer.init(params)
    flat, flat_state = form.flatten(params), form.flatten_state(state)
    plain = optax.chain(optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8), optax.add_decayed_weights(0.01))
    for _ in range(3):
        grads = tree()
        rate = jnp.float32(1e-2)
        params, state, norm = apply_gradients(plain, config, params, state, grads, rate)
        clipped, flat_norm = clip(config, form.flatten(grads))
        (corrections,) = optimizer.corrections(flat_state, 1)
        flat, flat_state = optimizer.step(flat, flat_state, clipped, rate, corrections)
        flat_state = optimizer.count(flat_state, 1)
        assert float(flat_norm) == pytest.approx(float(norm), rel=1e-6)
        close = partial(np.testing.assert_allclose, rtol=3e-6, atol=1e-8)
        jax.tree.map(close, form.unflatten(flat), params)
        jax.tree.map(close, form.unflatten_state(flat_state, state), state)


def small_arrays(n: int) -> dict[str, Any]:
    return {
        "float": jnp.asarray([np.nan, -0.0, 1e-40, 3.5][:n], jnp.float32),
        "int": jnp.asarray(RNG.integers(-9, 9, (n, 2, 3)), jnp.int32),
        "byte": jnp.asarray(RNG.integers(0, 255, (n, 5)), jnp.uint8),
        "signed": jnp.asarray(RNG.integers(-9, 9, (n, 1)), jnp.int8),
        "flag": jnp.asarray(RNG.random(n) < 0.5),
        "key": jax.random.split(jax.random.key(3), n),
        "picture": jnp.asarray(RNG.integers(0, 255, (n, 9, 9)), jnp.uint8),
        "half": jnp.ones((n, 2), jnp.bfloat16),
    }


def assert_same(ours: Any, expected: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            pair = jax.random.key_data(a), jax.random.key_data(b)
        else:
            pair = a, b
        np.testing.assert_array_equal(*(np.atleast_1d(x).view(np.uint8) for x in pair))  # bits, NaN's too


def test_packed_arrays_keep_their_bits() -> None:
    arrays = small_arrays(4)
    packing = Packing.of(arrays, 4)
    words, others = jax.jit(packing.pack)(arrays)
    assert words.shape == (1 + 6 + 5 + 1 + 1 + 2, 4)
    assert [leaf.dtype for leaf in others] == [jnp.bfloat16, jnp.uint8]  # in the order of their names
    assert_same(jax.jit(packing.unpack)(words, others), arrays)


def test_a_packed_scan_is_a_scan() -> None:
    def step(carry: Any, inputs: Any) -> Any:
        t, x = inputs
        key = jax.vmap(lambda k: jax.random.fold_in(k, t))(carry["key"])
        carry = carry | {"key": key, "int": carry["int"] + t, "flag": carry["flag"] ^ (x > 0), "float": x}
        return carry, {"x": x, "flag": carry["flag"], "picture": carry["picture"] + 1}

    carry, inputs = small_arrays(4), jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
    expected = jax.lax.scan(step, carry, (jnp.arange(6), inputs))
    assert_same(jax.jit(partial(scan_packed, step, num_envs=4))(carry, inputs), expected)


def test_a_packed_scan_carries_what_has_no_axis_of_environments() -> None:
    """One key for all environments, a number, and an array of another length travel beside those of each one."""

    def step(carry: Any, inputs: Any) -> Any:
        key = jax.random.fold_in(carry["key"], inputs[0])
        carry = {"count": carry["count"] + 1, "key": key, "three": carry["three"] * 2, "time": carry["time"] + 1}
        return carry, {"count": carry["count"], "draw": jax.random.bits(key, (3,)), "key": key}

    carry = {"count": jnp.arange(4), "key": jax.random.key(0), "three": jnp.arange(3.0), "time": jnp.int32(0)}
    expected = jax.lax.scan(step, carry, (jnp.arange(6), jnp.zeros(6)))
    assert_same(jax.jit(partial(scan_packed, step, num_envs=4))(carry, jnp.zeros(6)), expected)


def test_stacked_numbers_are_those_of_a_scan() -> None:
    def step(carry: Any, x: Any) -> Any:
        return carry + x, {"sum": carry, "more": (x, x * 2)}

    inputs = jnp.arange(5.0)
    expected = jax.lax.scan(step, jnp.float32(1), inputs)
    jax.tree.map(np.testing.assert_array_equal, scan_stacked(step, jnp.float32(1), inputs), expected)


SPACES: dict[str, tuple[ActionSpace, bool]] = {
    "one branch": (DiscreteActions((4,)), False),
    "branches": (DiscreteActions((2, 3)), False),
    "more choices than are taken apart": (DiscreteActions((17,)), False),
    "mask": (DiscreteActions((2, 3)), True),
    "numbers": (BoxActions((-1.0, -1.0), (1.0, 1.0)), False),
}


def outputs_and_targets(space: ActionSpace, masked: bool) -> tuple[Callable[..., ActionDistribution], Any, Targets]:
    """The distribution as a function of the heads' outputs, which are given too, and what it is compared with."""
    m, q = 3, 5
    widths = space.nvec or (2 * space.num_columns,)
    outputs = [jnp.asarray(RNG.normal(size=(m, q, n)), jnp.float32) for n in widths]
    mask = jnp.asarray(RNG.random((m, q, sum(widths))) < 0.7).at[..., 0].set(True).at[..., -1].set(True)
    if masked:
        action = space.zeros((m, q))
    elif space.nvec:
        action = jnp.stack([jnp.asarray(RNG.integers(0, n, (m, q)), jnp.int32) for n in space.nvec], axis=-1)
    else:
        action = jnp.asarray(RNG.normal(size=(m, q, space.num_columns)), jnp.float32)
    branches = len(space.nvec) or 1
    numbers = [jnp.asarray(RNG.normal(size=(m, q)), jnp.float32) for _ in range(3)]
    targets = Targets(action, jnp.asarray(-1.5 + RNG.normal(size=(m, q, branches)) / 9, jnp.float32), *numbers)

    def distribution(outputs: Any, *, one_by_one: bool) -> ActionDistribution:
        return make_distribution(space, outputs, mask if masked else None, one_by_one=one_by_one)

    return distribution, outputs, targets


@pytest.mark.parametrize("name", SPACES)
def test_losses_in_few_kernels_are_the_losses(name: str) -> None:
    distribution, outputs, targets = outputs_and_targets(*SPACES[name])
    value, ent_coef, config = jnp.asarray(RNG.normal(size=(3, 5)), jnp.float32), jnp.float32(0.1), Config()

    def compute(way: Any, one_by_one: bool) -> Any:
        def loss(outputs: Any, value: jax.Array) -> Any:
            return way(distribution(outputs, one_by_one=one_by_one), value, targets, config, ent_coef)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(outputs, value)

    expected, ours = compute(losses, False), compute(losses_in_few_kernels, True)
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * max(1.0, float(jnp.abs(b).max())))


def test_choices_compared_one_by_one_are_the_same() -> None:
    _, outputs, _ = outputs_and_targets(DiscreteActions((2, 3)), False)
    plain, apart = (make_distribution(DiscreteActions((2, 3)), outputs, one_by_one=way) for way in (False, True))
    noise = jnp.asarray(RNG.gumbel(size=plain.logits.shape), jnp.float32)
    np.testing.assert_array_equal(apart.sample(noise), plain.sample(noise))
    ties = make_distribution(DiscreteActions((3,)), [jnp.zeros((1, 3))], one_by_one=True)
    np.testing.assert_array_equal(ties.sample(jnp.zeros((1, 3))), [[0]])


@pytest.mark.parametrize("task", [MortarMayhemGrid, MortarMayhem])
@pytest.mark.parametrize("allowed", [4, 9])
def test_commands_drawn_at_once_are_those_of_the_loop(task: Any, allowed: int) -> None:
    env = task()
    n = 300
    tiles = jnp.asarray(RNG.integers(0, env.arena_size, (n, 2)), jnp.int32)
    bits = jax.random.bits(jax.random.key(0), (n, env.max_commands), jnp.uint32)
    count = jnp.asarray(RNG.integers(0, env.max_commands + 1, n), jnp.int32)
    loop, at_once = (jax.vmap(draw, (0, 0, 0, None)) for draw in (env._draw_in_a_loop, env._draw_at_once))
    np.testing.assert_array_equal(at_once(tiles, bits, count, allowed), loop(tiles, bits, count, allowed))


def test_colours_byte_by_byte_are_those_of_words() -> None:
    canvas = jnp.asarray(RNG.integers(0, 6, (84, 84)), jnp.uint8)
    words = jnp.asarray(RNG.integers(0, 2**24, 6), jnp.uint32)
    plain, for_gpus = (way(canvas, words, [1, 2, 4]) for way in RGB_FORMULATIONS)
    np.testing.assert_array_equal(for_gpus, plain)
