"""POPGym's tasks in JAX as users use them: ids, options, gymnax's interface, batches, pictures."""

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.command import ROOT
from tests.support.gymnax_interface import shapes_of_steps
from trxl_jax.config import Config
from trxl_jax.envs.registry import find_env, make_env, move_to_backend, on_backend
from trxl_jax.envs.tasks.batching import replaced_where_needed
from trxl_jax.envs.tasks.popgym import TASKS
from trxl_jax.envs.tasks.popgym.host import INSTALL
from trxl_jax.envs.tasks.spaces import MultiDiscrete
from trxl_jax.errors import ConfigError


def test_ids_lead_to_both_versions() -> None:
    for name in TASKS:
        host, device = f"popgym-{name}", f"popgym/{name}"
        assert on_backend(host, "device") == on_backend(device, "device") == device
        assert on_backend(host, "host") == on_backend(device, "host") == host


def test_options_that_only_the_device_has_are_not_lost_on_the_host() -> None:
    config = Config(env_id="popgym/RepeatPreviousEasy-v0", env_options={"num_decks": 2, "k": 8})
    with pytest.raises(ConfigError, match=r"^--env_options: .* num_decks on the device only; use --backend device"):
        move_to_backend(config, "host")
    assert move_to_backend(config.replace(env_options={"num_decks": 1, "k": 4}), "host").env_options == {}
    config = Config(env_id="popgym/LabyrinthEscapeEasy-v0", env_options={"maze_dims": [10, 10]})
    assert move_to_backend(config, "host").env_options == {}


def test_an_unknown_task_gets_near_names() -> None:
    with pytest.raises(ConfigError, match=r"unknown environment 'popgym/RepeatFirst'; did you mean popgym/RepeatFirst"):
        find_env(Config(env_id="popgym/RepeatFirst"))
    with pytest.raises(ConfigError, match="runs on the device, where tasks are set by --env_options"):
        find_env(Config(env_id="popgym/RepeatFirstEasy-v0", env_kwargs={"num_decks": 2}))


@pytest.mark.skipif(find_spec("popgym") is not None, reason="popgym is installed")
def test_a_missing_package_is_named_with_the_remedies() -> None:
    with pytest.raises(ConfigError, match=r"pip install popgym==1.0.7; or step it on the device: --backend device"):
        find_env(Config(env_id="popgym-RepeatFirstEasy-v0"))


@pytest.mark.skipif(find_spec("popgym") is None, reason=f"needs the released package: {INSTALL}")
@pytest.mark.parametrize("name", [name for name in TASKS if "Easy" in name])
def test_both_backends_have_the_same_spec(name: str) -> None:
    host, device = (make_env(Config(env_id=prefix + name, num_envs=1)) for prefix in ("popgym-", "popgym/"))
    assert host.spec == device.spec
    host.close()


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("RepeatPreviousEasy-v0", {"K": 3}, "unknown option 'K'; this task has k, num_decks"),
        ("RepeatPreviousEasy-v0", {"k": 52}, "k must be a whole number from 1 to 51, not 52"),
        ("RepeatPreviousEasy-v0", {"k": 0}, "k must be a whole number from 1 to 51, not 0"),
        ("RepeatFirstEasy-v0", {"num_decks": 17}, "num_decks must be a whole number from 1 to 16, not 17"),
        ("AutoencodeEasy-v0", {"num_decks": 0.5}, "num_decks must be a whole number"),
        ("CountRecallEasy-v0", {"deck_type": "suit"}, "deck_type must be one of colors, suits, ranks, not 'suit'"),
        ("ConcentrationEasy-v0", {"deck_type": "suits"}, "deck_type must be one of colors, ranks, not 'suits'"),
        ("HigherLowerEasy-v0", {"num_decks": True}, "num_decks must be a whole number"),
        ("MultiarmedBanditEasy-v0", {"num_bandits": 0}, "num_bandits must be a whole number from 1 to 1000, not 0"),
        ("MineSweeperEasy-v0", {"difficulty": 3}, "difficulty must be one of easy, medium, hard, not 3"),
        ("LabyrinthEscapeEasy-v0", {"maze_dims": [7, 10]}, "maze_dims must be two even numbers from 6 to 100, height"),
        ("LabyrinthEscapeEasy-v0", {"maze_dims": [10]}, "maze_dims must be two even numbers from 6 to 100, height"),
        ("LabyrinthEscapeEasy-v0", {"maze_dims": 10}, "maze_dims must be two even numbers from 6 to 100, height"),
        (
            "LabyrinthExploreEasy-v0",
            {"episode_length": 1},
            "episode_length must be a whole number from 2 to 1e+09, not 1",
        ),
        ("BattleshipEasy-v0", {"board_size": 3}, "board_size must be a whole number from 8 to 100, not 3"),
    ],
)
def test_invalid_options_get_one_line(name: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        TASKS[name]().from_options(options)
    assert str(refusal.value).startswith(f"--env_options: {line}")
    assert "\n" not in str(refusal.value)


def test_options_keep_what_they_do_not_name() -> None:
    task, params = TASKS["RepeatPreviousHard-v0"]().from_options({"k": 2})
    assert task.settings == {"num_decks": 3, "k": 2}
    assert (params.max_steps_in_episode, params.reward) == (155, np.float32(1 / 154))


def shapes(space: Any) -> Any:
    if hasattr(space, "spaces"):
        return tuple(shapes(part) for part in space.spaces)
    return jax.ShapeDtypeStruct(space.shape, np.dtype(space.dtype))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", TASKS)
def test_tasks_follow_gymnaxs_interface(name: str, bits: int) -> None:
    with jax.enable_x64(bits == 64):
        task = TASKS[name]()
        params = task.default_params
        obs, state, (reward, terminated, truncated, info) = shapes_of_steps(task, params)
    assert jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), obs) == shapes(task.observation_space(params))
    assert {str(x.dtype) for x in jax.tree.leaves(state)} <= {"int32", "float32", "bool"}
    assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float32, np.bool_, np.bool_)
    assert jax.tree.map(lambda x: x.shape[1:], info["final_observation"]) == jax.tree.map(lambda x: x.shape, obs)
    space = task.action_space(params)
    assert task.num_actions == (np.prod(space.nvec) if isinstance(space, MultiDiscrete) else getattr(space, "n", 1))


@pytest.mark.parametrize(
    "name", ["CountRecallEasy-v0", "MultiarmedBanditEasy-v0", "MineSweeperHard-v0", "ConcentrationEasy-v0",
             "BattleshipEasy-v0", "LabyrinthEscapeEasy-v0", "LabyrinthExploreMedium-v0"],
)  # fmt: skip
def test_batched_steps_with_resets_equal_single_ones(name: str) -> None:
    task = TASKS[name]()
    params = task.default_params
    num = 35  # more than two groups
    reset, transition = (
        jax.jit(jax.vmap(task.reset_env, (0, None))),
        jax.jit(jax.vmap(task.transition, (0, 0, 0, None))),
    )
    batch = jax.jit(jax.vmap(task.step, (0, 0, 0, None)))
    observe = jax.vmap(task.observation)
    # Episodes that end at different times.
    _, state = reset(jax.random.split(jax.random.key(0), num), params)
    state = state.replace(time=params.max_steps_in_episode - 9 + jnp.arange(num, dtype=jnp.int32) % 9)
    num_ends = 0
    for i in range(12):
        keys = jax.random.split(jax.random.key(i + 1), num)
        actions = jax.vmap(task.action_space(params).sample)(keys)
        split = jax.vmap(jax.random.split)(keys)
        ended, reward, terminated, truncated = transition(split[:, 0], state, actions, params)
        fresh_obs, fresh = reset(split[:, 1], params)
        done = np.asarray(terminated | truncated)
        num_ends += done.sum()

        def choose(new: jax.Array, old: jax.Array, done: np.ndarray = done) -> np.ndarray:
            return np.where(done.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        obs, state, *rest, info = batch(keys, state, actions, params)
        jax.tree.map(np.testing.assert_array_equal, state, jax.tree.map(choose, fresh, ended))
        jax.tree.map(np.testing.assert_array_equal, obs, jax.tree.map(choose, fresh_obs, observe(ended)))
        jax.tree.map(np.testing.assert_array_equal, rest, [reward, terminated, truncated])
        jax.tree.map(np.testing.assert_array_equal, info["final_observation"], observe(ended))
    assert num_ends >= num


def test_nothing_is_drawn_where_no_episode_ends() -> None:
    def endless(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: x > 0, lambda x: x, x)

    work = jax.jit(jax.vmap(replaced_where_needed(endless)))
    # The work terminates only for x = 0; with x = 1 the test hangs unless the work is skipped.
    needed = jnp.arange(50) % 3 == 0
    old = jnp.arange(50)
    np.testing.assert_array_equal(work(needed, old, jnp.where(needed, 0, 1)), jnp.where(needed, 0, old))


def test_parameters_may_differ_between_environments() -> None:
    task = TASKS["RepeatPreviousEasy-v0"]()
    params = task.default_params.replace(k=jnp.array([1, 2, 5]))
    axes = jax.tree.map(lambda _: None, params).replace(k=0)
    states = jax.vmap(lambda _: task.reset_env(jax.random.key(0), task.default_params)[1])(jnp.arange(3))
    step = jax.jit(jax.vmap(task.transition, (None, 0, 0, axes)))
    rewards = []
    for t in range(6):
        right = states.cards[jnp.arange(3), jnp.maximum(t + 1 - params.k, 0)]
        states, reward, _, _ = step(jax.random.key(0), states, right, params)
        rewards.append(np.asarray(reward) > 0)
    np.testing.assert_array_equal(np.sum(rewards, axis=0), [6, 5, 2])


@pytest.mark.parametrize("name", TASKS)
def test_pictures_fit_a_screen(name: str) -> None:
    task = TASKS[name]()
    _, state = jax.eval_shape(task.reset_env, jax.random.key(0), task.default_params)
    height, width, channels = jax.eval_shape(task.render_debug, state, task.default_params).shape
    assert channels == 3
    assert all(96 <= side <= 800 and side % 2 == 0 for side in (height, width))


@pytest.mark.parametrize("name", [name for name in TASKS if "Easy" in name])
def test_pictures_show_what_happens(name: str) -> None:
    task = TASKS[name]()
    params = task.default_params

    def play(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, state = task.reset_env(key, params)
        action = task.action_space(params).sample(key)
        after = task.transition(key, state, action, params)[0]
        return task.render_debug(state, params), task.render_debug(after, params)

    before, after = map(np.asarray, jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(3), 3)))
    assert before.dtype == np.uint8
    assert len(np.unique(before.reshape(-1, 3), axis=0)) >= 2
    assert (before != after).any() or name.startswith("MultiarmedBandit")


@pytest.mark.slow
def test_popgym_is_not_imported_at_run_time() -> None:
    script = """
import sys, jax
from trxl_jax.config import Config
from trxl_jax.envs.registry import find_env
task, params = find_env(Config(env_id="popgym/HigherLowerEasy-v0"))
jax.eval_shape(task.step, jax.random.key(0), task.reset(jax.random.key(0), params)[1], 0, params)
print(sorted({"popgym", "pygame"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
