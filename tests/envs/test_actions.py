"""Actions of every space: what the agent chooses becomes what an environment takes, on the host and on the device."""

import json
import pickle
from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnax.environments import spaces as gymnax_spaces

from tests.support import device_probes
from tests.support.actions import random_rows, random_space
from tests.support.probes import Counter, Cued
from trxl_jax.envs.actions import ActionSpace, BoxActions, DiscreteActions, MixedActions, actions_from_json
from trxl_jax.envs.device.environment import DeviceEnvironment
from trxl_jax.envs.host.environment import HostEnvironment
from trxl_jax.envs.native_actions import NativeActions
from trxl_jax.errors import ConfigError

NESTED = spaces.Dict(
    {
        "arm": spaces.Tuple([spaces.Box(-1, 1, (2, 1), np.float64), spaces.Discrete(3, start=5)]),
        "grip": spaces.MultiBinary(2),
        "speed": spaces.Box(0, np.inf, (), np.float32),
    }
)


def same(ours: Any, theirs: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("seed", range(100))
def test_what_the_agent_chooses_lies_in_the_environments_space(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = random_space(rng)
    native = NativeActions.read(space)
    rows = random_rows(native.space, rng, 20)
    assert native.space.contains(rows).all()
    for row in rows:
        assert space.contains(native.unpack(row)), (space, row)
    assert actions_from_json(json.loads(json.dumps(native.space.to_json(), allow_nan=False))) == native.space
    copy = pickle.loads(pickle.dumps(native))
    same(copy.unpack(rows[0]), native.unpack(rows[0]))


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_on_the_device_is_what_each_is_on_the_host(seed: int) -> None:
    """Up to its dtypes, which have 32 bits at most."""
    rng = np.random.default_rng(seed)
    native = NativeActions.read(random_space(rng))
    rows = random_rows(native.space, rng, 5)
    batch = jax.jit(native.unpack)(jnp.asarray(rows))
    for i, row in enumerate(rows):
        mine, theirs = jax.tree.map(lambda x, i=i: x[i], batch), native.unpack(row)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), mine, theirs)
        assert jax.tree.structure(mine) == jax.tree.structure(theirs)
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), jax.tree.map(jnp.asarray, theirs))
        assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), mine)


def test_each_space_is_read_as_columns() -> None:
    cases: list[tuple[Any, ActionSpace, tuple[str, ...] | None]] = [
        (spaces.Discrete(3, start=5), DiscreteActions((3,)), None),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), DiscreteActions((2, 3, 4, 5)), None),
        (spaces.MultiBinary(2), DiscreteActions((2, 2)), None),
        (spaces.Box(-2, np.array([1, np.inf], np.float32)), BoxActions((-2, -2), (1, np.inf)), None),
        (gymnax_spaces.Discrete(4), DiscreteActions((4,)), None),
        (gymnax_spaces.Box(-2.0, 2.0, (1,)), BoxActions((-2,), (2,)), None),
        (gymnax_spaces.Box(-np.finfo(np.float32).max, 1.0, ()), BoxActions((-np.inf,), (1,)), None),
        (spaces.Tuple([spaces.Discrete(3), spaces.MultiBinary(1)]), DiscreteActions((3, 2)), ("0", "1")),
        (
            NESTED,
            MixedActions((BoxActions((-1, -1), (1, 1)), DiscreteActions((3, 2, 2)), BoxActions((0,), (np.inf,)))),
            ("arm 0 0", "arm 0 1", "arm 1", "grip 0", "grip 1", "speed"),
        ),
        (
            gymnax_spaces.Tuple([gymnax_spaces.Box(0.0, 1.0, (1,)), gymnax_spaces.Box(0.0, 1.0, (1,))]),
            MixedActions((BoxActions((0,), (1,)), BoxActions((0,), (1,)))),  # a branch each
            ("0", "1"),
        ),
    ]
    for space, expected, names in cases:
        native = NativeActions.read(space)
        assert (native.space, native.names) == (expected, names), space
        assert native.space.zeros((2,)).shape == (2, expected.num_columns)
        assert expected.contains(np.asarray(expected.zeros((2,)))).all()
    assert [case.num_branches for _, case, _ in cases] == [1, 4, 2, 1, 1, 1, 1, 2, 5, 2]
    # As version 0.1.0 writes it.
    assert DiscreteActions((3, 2)).to_json() == {"kind": "discrete", "nvec": [3, 2]}
    assert [str(case) for _, case, _ in cases][:4] == [
        "(3,)",
        "(2, 3, 4, 5)",
        "(2, 2)",
        "2 numbers (of several ranges)",
    ]


def test_numbers_are_clipped_and_choices_counted_from_their_start() -> None:
    row = np.array([-3, 0.25, 2, 1, 0, -7], np.float32)
    native = NativeActions.read(NESTED)
    taken = native.unpack(row)
    assert list(taken) == ["arm", "grip", "speed"]
    arm, choice = taken["arm"]
    assert arm.dtype == np.float64
    np.testing.assert_array_equal(arm, [[-1], [0.25]])
    assert choice == 7
    assert {choice: "hashable"}
    np.testing.assert_array_equal(taken["grip"], [1, 0])
    assert isinstance(taken["speed"], np.ndarray)
    assert taken["speed"] == 0
    np.testing.assert_array_equal(native.space.clip(row), [-1, 0.25, 2, 1, 0, 0])
    assert native.space.contains(row)
    for column, wrong in ((2, 3), (2, 0.5), (2, -1), (3, 2), (0, np.nan), (5, np.inf)):
        bad = row.copy()
        bad[column] = wrong
        assert not native.space.contains(bad), (column, wrong)


def test_a_bound_of_64_bits_is_kept_exactly() -> None:
    space = spaces.Box(-0.1, 0.1, (1,), np.float64)
    taken = NativeActions.read(space).unpack(np.array([5], np.float32))
    assert taken == 0.1  # not the float32 of it, which is larger
    assert space.contains(taken)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(4),
        spaces.Graph(spaces.Box(-1, 1, (1,)), None),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Box(0, 3, (2,), np.int64),
        spaces.Box(-1, 1, (0,)),
        spaces.Tuple([spaces.Discrete(2), spaces.Text(4)]),
        spaces.Dict({"a": spaces.Dict({"b": spaces.Text(4)})}),
        spaces.Dict({}),
        gymnax_spaces.Box(1.0, -1.0, (1,)),
    ],
    ids=str,
)
def test_other_spaces_are_refused_in_one_line(space: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^--env_id Mine-v0: actions .* are not supported, only .* wrapper"
    ) as refusal:
        NativeActions.read(space, "Mine-v0")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"kind": "discrete", "nvec": []},
        {"kind": "discrete", "nvec": [True]},
        {"kind": "box", "low": [], "high": []},
        {"kind": "box", "low": [0], "high": [0, 1]},
        {"kind": "box", "low": [1], "high": [0]},
        {"kind": "box", "low": ["0"], "high": [1]},
        {"kind": "box", "low": [float("nan")], "high": [1]},
        {"kind": "mixed", "parts": [{"kind": "discrete", "nvec": [2]}]},
        {"kind": "mixed", "parts": [{"kind": "discrete", "nvec": [2]}, {"kind": "mixed", "parts": []}]},
    ],
)
def test_files_that_hold_no_action_space_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="unknown action space"):
        actions_from_json(value)


class Keeping(Counter):
    """Shows how often it was given an action outside its space, and the sum of the numbers in all of them."""

    def __init__(self) -> None:
        super().__init__(length=50, action_space=NESTED)
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,))

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        super().reset(**kwargs)
        self.outside, self.sum = 0, 0.0
        return np.zeros(2), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.outside += not NESTED.contains(action)
        self.sum += sum(float(np.sum(leaf)) for leaf in jax.tree.leaves(action))
        return np.array([self.outside, self.sum]), *super().step(action)[1:]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_nested_actions_reach_host_environments_and_are_replayed(asynchronous: bool) -> None:
    env = HostEnvironment(Keeping, 2, asynchronous=asynchronous)
    rng = np.random.default_rng(0)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    step = jax.jit(env.step)
    totals = np.zeros(2)
    for _ in range(12):
        rows = random_rows(env.spec.action, rng, 2)
        state, outcome = step(state, jnp.asarray(rows))
        native = NativeActions.read(NESTED)
        totals += [sum(np.sum(leaf) for leaf in jax.tree.leaves(native.unpack(row))) for row in rows]
    obs = np.asarray(outcome.obs)
    assert obs[:, 0].tolist() == [0, 0]
    np.testing.assert_allclose(obs[:, 1], totals, rtol=1e-5)
    snapshot = json.loads(
        json.dumps(jax.tree.map(lambda x: x.tolist() if isinstance(x, np.ndarray) else x, env.snapshot()))
    )
    env.close()
    restored = HostEnvironment(Keeping, 2, asynchronous=asynchronous)
    np.testing.assert_array_equal(restored.restore(snapshot), obs)  # digests agree, hence every bit
    assert restored.failure is None
    restored.close()


def test_environments_of_a_batch_must_have_the_same_actions() -> None:
    sizes = iter([2, 2, 3])
    env = HostEnvironment(lambda: Counter(action_space=spaces.Discrete(next(sizes))), 2)
    with pytest.raises(Exception, match="action space"):
        jax.jit(env.reset)(jax.random.key(0))


def test_nested_actions_reach_device_environments() -> None:
    space = gymnax_spaces.Dict({"move": gymnax_spaces.Discrete(3), "force": gymnax_spaces.Box(-1.0, 0.25, (2,))})
    env = DeviceEnvironment(device_probes.Cued(space), num_envs=2)
    assert env.spec.action == MixedActions((DiscreteActions((3,)), BoxActions((-1, -1), (0.25, 0.25))))
    state, obs = jax.jit(env.reset)(jax.random.key(0))
    best = np.where(np.asarray(obs) > 0, [[2, 0.5, 7]], [[0, -0.5, -0.5]])  # 0.25 is as near as it may come
    _, outcome = jax.jit(env.step)(state, jnp.asarray(best, jnp.float32))
    np.testing.assert_array_equal(outcome.reward, [1, 1])


def test_the_probes_reward_the_best_action() -> None:
    env = Cued(NESTED)
    env.reset(seed=0)
    for _ in range(6):
        best = [0.5, 0.5, 2, 1, 1, 0.5] if env.cue > 0 else [-0.5, -0.5, 0, 0, 0, -0.5]
        assert env.step(NativeActions.read(NESTED).unpack(np.array(best, np.float32)))[1] == 1
        assert env.step(NativeActions.read(NESTED).unpack(np.zeros(6, np.float32)))[1] < 0.9
    assert isinstance(env, gymnasium.Env)
