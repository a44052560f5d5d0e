"""Observations of any space: what is read from it, checked, kept and shown to the agent."""

import re
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.space_probes import EVERYTHING, Repeating, Showing
from trxl_jax.agent.observation_encoder import flat_features
from trxl_jax.config import Config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec, original_errors
from trxl_jax.envs.device.environment import DeviceEnvironment
from trxl_jax.envs.host.digest import new_digest
from trxl_jax.envs.host.environment import HostEnvironment
from trxl_jax.envs.observations import (
    ArraySpace,
    DictSpace,
    arrays_of,
    choices,
    leaves,
    numbers,
    observations_from_json,
    picture,
    read_observation_space,
)
from trxl_jax.envs.registry import make_env
from trxl_jax.envs.tasks.minigrid.host import SYMBOLS, is_minigrid
from trxl_jax.errors import ConfigError, EnvironmentFailure


def boxes() -> st.SearchStrategy[spaces.Space]:
    shape = st.lists(st.integers(1, 4), max_size=4).map(tuple)
    dtype = st.sampled_from([np.uint8, np.int32, np.float32, np.float64])
    return st.builds(lambda shape, dtype: spaces.Box(0, 7, shape, dtype), shape, dtype)


def simple_spaces() -> st.SearchStrategy[spaces.Space]:
    discrete = st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3))
    several = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(spaces.MultiDiscrete)
    return st.one_of(boxes(), discrete, several, st.integers(1, 4).map(spaces.MultiBinary))


def nested_spaces() -> st.SearchStrategy[spaces.Space]:
    names = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=3)
    return st.recursive(
        simple_spaces(),
        lambda part: st.one_of(
            st.lists(part, min_size=1, max_size=3).map(lambda parts: spaces.Tuple(tuple(parts))),
            st.dictionaries(names, part, min_size=1, max_size=3).map(spaces.Dict),
        ),
        max_leaves=5,
    )


def values_of(space: spaces.Space, obs: Any) -> list[np.ndarray]:
    """The leaves of an observation, choices counted from 0."""
    found = []
    for path, part in leaves(space):
        value = obs
        for key in path:
            value = value[key]
        start = getattr(part, "start", 0)
        found.append(np.asarray(value) - (0 if start is None else start))
    return found


@settings(max_examples=60, deadline=None)
@given(space=nested_spaces(), seed=st.integers(0, 1000))
def test_an_observation_comes_out_as_it_went_in(space: spaces.Space, seed: int) -> None:
    space.seed(seed)
    obs = space.sample()
    reader = read_observation_space("Some-v0", space)
    read = arrays_of(reader.read(obs))
    assert list(read) == list(reader.space.arrays)
    assert len(read) == len(list(leaves(space)))
    for name, array in reader.space.arrays.items():
        assert read[name].shape == array.shape
        assert read[name].dtype == array.dtype
    given_values = sorted(str(np.asarray(v, np.float32).tolist()) for v in values_of(space, obs))
    assert given_values == sorted(str(v.astype(np.float32).tolist()) for v in read.values())
    assert observations_from_json(reader.space.to_json()) == reader.space
    hash(reader.space)


@settings(max_examples=20, deadline=None)
@given(space=nested_spaces(), seed=st.integers(0, 1000))
def test_batches_are_converted_like_single_observations(space: spaces.Space, seed: int) -> None:
    space.seed(seed)
    several = [space.sample() for _ in range(3)]
    reader = read_observation_space("Some-v0", space)
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *several)
    converted = reader.convert(stacked)
    alone = jax.tree.map(lambda *rows: np.stack(rows), *map(reader.read, several))
    jax.tree.map(np.testing.assert_array_equal, converted, alone)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Box(-1, 1, (5,), np.float64), numbers(5)),
        (spaces.Box(-1, 1, (), np.float32), numbers()),
        (spaces.Box(-1, 1, (2, 3), np.float32), numbers(2, 3)),
        (spaces.Box(0, 255, (2, 3), np.uint8), picture(2, 3)),
        (spaces.Box(-1, 1, (40, 36), np.float32), picture(40, 36, dtype=np.float32)),
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), picture(84, 84, 3)),
        (spaces.Box(0, 1, (10, 10, 4), np.float64), picture(10, 10, 4, dtype=np.float32)),
        (spaces.Box(0, 255, (2, 2, 2, 2), np.uint8), numbers(2, 2, 2, 2)),
        (spaces.Box(0, 255, (128,), np.uint8), numbers(128)),
        (spaces.Discrete(4, start=-1), choices([4], ())),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), choices([2, 3, 4, 5], (2, 2))),
        (spaces.MultiBinary((2, 2)), numbers(2, 2)),
        (spaces.Tuple((spaces.Discrete(2),)), choices([2], ())),
    ],
)
def test_what_is_made_of_a_space(space: spaces.Space, expected: ArraySpace) -> None:
    assert read_observation_space("Some-v0", space).space == expected


def test_names_are_made_of_keys_and_indices() -> None:
    part = spaces.Discrete(2)
    space = spaces.Dict({"a b": part, "a_b": part, "é/../x": part, "t": spaces.Tuple((part, spaces.Dict(n=part)))})
    found = read_observation_space("Some-v0", space).space
    assert list(found.arrays) == ["_____x", "a_b", "a_b_2", "t_0", "t_1_n"]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Text(5), "Text"),
        (spaces.Dict({"a": spaces.Discrete(2), "words": spaces.Text(5)}), "words: Text"),
        (spaces.Sequence(spaces.Discrete(2)), "Sequence"),
        (spaces.Graph(spaces.Discrete(2), None), "Graph"),
        (spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3))), "OneOf"),
        (spaces.Dict({}), "hold nothing"),
        (spaces.Box(0, 1, (3, 0)), "3x0"),
        (spaces.Discrete(10**6), "1,000,000 choices are too many"),
        (spaces.Box(0, 1, (2000, 2000, 1, 1)), "4,000,000 numbers are too many"),
    ],
)
def test_spaces_that_are_refused(space: spaces.Space, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_observation_space("Some-v0", space)
    assert words in str(caught.value)
    assert "Some-v0" in str(caught.value)
    assert "\n" not in str(caught.value)


BAD = {
    "an array is missing": ({"a": 1}, "has no ['b']"),
    "no dict": (3, "has no ['a']"),
    "another shape": ({"a": 1, "b": np.zeros(3)}, "observation 'b' of shape (3,)"),
    "no numbers": ({"a": 1, "b": np.array(["x", "y"])}, "observation 'b' of <U1"),
    "not finite": ({"a": 1, "b": np.array([0, np.nan])}, "element 1 of the observation 'b' is nan"),
    "too large for float32": ({"a": 1, "b": np.array([1e300, 0])}, "element 0 of the observation 'b' is 1e+300"),
    "no such choice": ({"a": 7, "b": np.zeros(2)}, "observation 'a' is 7, which its space does not contain"),
    "half a choice": ({"a": 0.5, "b": np.zeros(2)}, "observation 'a' of float64"),
}


@pytest.mark.parametrize("case", BAD)
def test_observations_that_their_space_forbids(case: str) -> None:
    obs, words = BAD[case]
    reader = read_observation_space("Some-v0", spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1, 1, (2,))}))
    with pytest.raises(ValueError, match=re.escape(words)):
        reader.read(obs)


def test_one_hot_features_of_choices() -> None:
    space = choices([2, 3, 1], (3,))
    features = flat_features(space, jnp.array([[1, 2, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(features, [[0, 1, 0, 0, 1, 1], [1, 0, 1, 0, 0, 1]])
    np.testing.assert_array_equal(flat_features(numbers(), jnp.array([3.0, 4.0])), [[3], [4]])


def test_specs_of_older_runs() -> None:
    old = {"action": {"kind": "discrete", "nvec": [3]}, "max_episode_steps": 9}
    spec = EnvSpec.from_json({"obs_shape": [84, 84, 3], "obs_dtype": "uint8", **old})
    assert spec == EnvSpec(picture(84, 84, 3), DiscreteActions((3,)), 9)
    spec = EnvSpec.from_json({"obs_shape": [5], "obs_dtype": "float32", **old})
    assert spec == EnvSpec(numbers(5), DiscreteActions((3,)), 9)
    assert EnvSpec.from_json(spec.to_json()) == spec
    for obs in (
        {"kind": "dict", "parts": {}},
        {"kind": "choices", "shape": [2], "dtype": "int32", "nvec": [3]},
        [],
        None,
    ):
        with pytest.raises(ConfigError):
            EnvSpec.from_json({"obs": obs, **old})


def test_digests_depend_on_every_array() -> None:
    obs = {"a": np.zeros((1, 7, 7, 3), np.uint8), "b": np.zeros((1,), np.int32)}
    digests = {int(new_digest(obs)[0])}
    for name, at in (("a", (0, 6, 6, 2)), ("b", (0,))):
        changed = {key: array.copy() for key, array in obs.items()}
        changed[name][at] = 1
        digests.add(int(new_digest(changed)[0]))
    assert len(digests) == 3


NAMES = ["cells", "grey", "inside_0", "inside_1", "inside_2_sides", "inside_2_speed", "picture"]
"""Arrays of `EVERYTHING`, in the order of its leaves."""


def bit_of(array: Any) -> np.ndarray:
    """The bit that each of n environments shows in an array [n, ...]; the speed shows it by its sign."""
    first = np.asarray(array).reshape(len(array), -1)[:, 0]
    return first > 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_nested_observations_of_host_environments(asynchronous: bool) -> None:
    env = HostEnvironment(lambda: Repeating(EVERYTHING), 2, asynchronous=asynchronous, send_final_obs=True)
    assert isinstance(env.spec.obs, DictSpace)
    assert env.num_buffers == 2
    with original_errors(env):
        state, obs = jax.jit(env.reset)(jax.random.key(0))
        for step in range(4):
            bits = np.stack([bit_of(obs[name]) for name in NAMES], axis=1)
            state, result = jax.jit(env.step)(state, bits.astype(np.int32))
            obs = result.obs
            np.testing.assert_allclose(result.reward, 0.25)  # every branch repeated what its own array showed
            assert bool(result.terminated[0]) == (step == 3)
    np.testing.assert_array_equal(np.isin(result.final_obs["picture"], (0, 255)), True)
    snapshot = env.snapshot()
    env.close()
    assert len(snapshot["digests"]) == 2


def test_interrupted_episodes_with_nested_observations_are_replayed() -> None:
    env = HostEnvironment(lambda: Repeating(EVERYTHING), 2)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    state, result = jax.jit(env.step)(state, np.ones((2, 7), np.int32))
    restored = env.restore(env.snapshot())
    env.close()
    jax.tree.map(np.testing.assert_array_equal, restored, jax.device_get(result.obs))


def test_nested_observations_of_device_environments() -> None:
    env = DeviceEnvironment(Showing(), num_envs=3)
    assert {name: array.kind for name, array in env.spec.obs.arrays.items()} == {
        "seen": "picture", "rest_0": "choices", "rest_1_sides": "numbers", "rest_1_speed": "numbers",
    }  # fmt: skip
    state, obs = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(obs["rest_0"], state.inner.bits[:, 1])
    _, result = env.step(state, jnp.zeros((3, 4), jnp.int32))
    assert {name: array.dtype.name for name, array in result.obs.items()} == {
        "seen": "uint8", "rest_0": "int32", "rest_1_sides": "float32", "rest_1_speed": "float32",
    }  # fmt: skip


class Straying(Repeating):
    """Leaves a bound of its space."""

    def _observe(self) -> Any:
        return super()._observe() | {"b": np.array([0.0, 9.0], np.float32)}


def test_numbers_outside_of_their_bounds_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    space = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (2,), np.float32)})
    env = HostEnvironment(lambda: Straying(space), 1)
    jax.jit(env.reset)(jax.random.key(0))
    env.close()
    assert "element 1 of b of an observation is 9, its space says -1 to 1" in capsys.readouterr().err


class Vanishing(Repeating):
    """Stops showing one of its arrays."""

    def step(self, action: Any) -> Any:
        obs, *rest = super().step(action)
        del obs["picture"]
        return obs, *rest


def test_an_array_that_vanishes_is_named() -> None:
    env = HostEnvironment(lambda: Vanishing(EVERYTHING), 1)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    with pytest.raises(EnvironmentFailure, match=r"step 0.*has no \['picture'\]"), original_errors(env):
        jax.block_until_ready(jax.jit(env.step)(state, np.ones((1, 7), np.int32)))
    env.close()


def upside_down(env: gymnasium.Env) -> gymnasium.Env:
    return gymnasium.wrappers.TransformReward(env, lambda reward: -reward)


def test_a_wrapper_of_ones_own() -> None:
    config = Config(env_id="ProofofMemory-v0", num_envs=1, wrapper="tests.envs.test_observations:upside_down")
    env = make_env(config)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    for _ in range(3):
        state, result = jax.jit(env.step)(state, np.zeros((1, 1), np.int32))
    assert result.reward[0] == pytest.approx(0.1)
    env.close()


@pytest.mark.parametrize(
    ("wrapper", "words"),
    [
        ("upside_down", "write module:name"),
        ("nowhere:upside_down", "no module nowhere"),
        ("tests.envs.test_observations:nothing", "has no nothing"),
        ("builtins:list", "failed: TypeError"),
        ("builtins:id", "returned an object of int"),
    ],
)
def test_wrappers_that_are_none(wrapper: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_env(Config(env_id="ProofofMemory-v0", num_envs=1, wrapper=wrapper))
    assert words in str(caught.value)
    assert "--wrapper" in str(caught.value)


def test_minigrid_as_it_comes() -> None:
    config = Config(env_id="MiniGrid-GoToDoor-5x5-v0", num_envs=1, minigrid_view="symbolic", minigrid_mission=True)
    env = make_env(config)
    assert env.spec.obs.arrays == {
        "direction": choices([4], ()), "image": choices(SYMBOLS * 49, (7, 7, 3)), "mission": choices([6], ()),
    }  # fmt: skip
    _, obs = jax.jit(env.reset)(jax.random.key(0))
    env.close()
    assert {1, 2} <= set(np.unique(obs["image"][..., 0]).tolist()), "an empty cell and a wall"
    env = make_env(Config(env_id="MiniGrid-MemoryS9-v0", num_envs=1, minigrid_view="pixels"))
    assert env.spec.obs.arrays == {"direction": choices([4], ()), "image": picture(56, 56, 3)}
    assert env.spec.max_episode_steps == 5 * 9**2
    env.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env_id": "ProofofMemory-v0", "minigrid_view": "pixels"}, "no task of MiniGrid"),
        ({"env_id": "MiniGrid-MemoryS9-v0", "minigrid_mission": True}, "the view original has none"),
        ({"env_id": "gymnax/ProofofMemory-v0", "wrapper": "a:b"}, "only tasks on the host"),
        ({"env_id": "gymnax/ProofofMemory-v0", "minigrid_view": "pixels"}, "only tasks on the host"),
    ],
)
def test_presentations_that_a_task_can_not_have(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_env(Config(num_envs=1, **changes))
    assert words in str(caught.value)


def test_an_object_has_its_own_view() -> None:
    views: tuple[dict[str, Any], ...] = ({"minigrid_view": "pixels"}, {"minigrid_mission": True})
    for flags in views:
        with pytest.raises(ConfigError, match=f"^--{next(iter(flags))}: .*object has its own view; leave it out"):
            make_env(Config(num_envs=1, **flags), lambda: Repeating(spaces.Discrete(2)))


def test_ids_that_only_contain_minigrids_name_are_the_users() -> None:
    for env_id in ("MiniGrid-Empty-5x5-v0", "minigrid:BabyAI-GoToObj-v0", "mine/MiniGrid-Empty-v0"):
        assert is_minigrid(env_id)
    for env_id in ("MyMiniGridLike-v0", "MiniGridLike-v0", "MiniGrid-tools:Task-v0", "NotBabyAI-v0"):
        assert not is_minigrid(env_id)
    name = "MyMiniGridLike-v0"
    gymnasium.register(name, entry_point=lambda: Repeating(spaces.Discrete(2)))
    try:
        make_env(Config(num_envs=1, env_id=name)).close()
    finally:
        del gymnasium.registry[name]
