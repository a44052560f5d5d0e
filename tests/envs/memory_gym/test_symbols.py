"""Symbols of grid tasks say exactly what the pictures show, and agents train on them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.support.command import TINY, error_line, run
from tests.support.gymnax_interface import shapes_of_steps
from trxl_jax import Config, make_env
from trxl_jax.envs.registry import move_to_backend
from trxl_jax.envs.tasks import memory_gym
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_state import NO_COMMAND
from trxl_jax.errors import ConfigError
from trxl_jax.play.episode_page.tasks import observation_names
from trxl_jax.play.single_env import make_single_env

pytestmark = pytest.mark.optimised

MORTAR, PATH = "MortarMayhem-Grid-v0", "MysteryPath-Grid-v0"
FAST = {"command_show_duration": [1], "explosion_delay": [2], "explosion_duration": [3], "allowed_commands": 9}
CASES = {
    "mortar": (MORTAR, {**FAST, "arena_size": 3, "command_count": [2, 4]}),
    "mortar-no-feedback": (MORTAR, {**FAST, "arena_size": 2, "command_count": [3], "visual_feedback": False}),
    "path": (PATH, {}),
    "path-no-feedback": (PATH, {"visual_feedback": False}),
    "path-both-ends": (PATH, {"show_goal": True, "show_origin": True}),
    "path-goal": (PATH, {"show_goal": True}),
}


@cache
def played(case: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """The task, and symbols i32[T N, K] and pictures u8[T N, 84 84 3] of random play."""
    name, options = CASES[case]
    task, params = memory_gym.find_task(name).from_options({**options, "symbolic": True})
    with_pictures, _ = memory_gym.find_task(name).from_options(options)

    def step(state: Any, key: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        # Forward half of the time, so that the agent gets everywhere.
        action = jax.random.choice(key, np.array([0, 1, 2, 3, 3, 3]))
        symbols, state, *_ = task.step(key, state, action, params)
        return state, (symbols, with_pictures.render(state, params))

    def play(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, state = task.reset(key, params)
        return jax.lax.scan(step, state, jax.random.split(key, 150))[1]

    symbols, pictures = jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), 64))
    return (
        task,
        np.asarray(symbols).reshape(-1, symbols.shape[-1]),
        np.asarray(pictures).reshape(symbols[..., 0].size, -1),
    )


@pytest.mark.parametrize("case", CASES)
def test_symbols_are_equal_where_pictures_are_and_only_there(case: str) -> None:
    task, symbols, pictures = played(case)
    assert (symbols >= 0).all()
    assert (symbols < np.array(task.symbol_sizes)).all()
    seen: dict[bytes, tuple[int, ...]] = {}
    for picture, values in zip(pictures, symbols, strict=True):
        assert seen.setdefault(picture.tobytes(), tuple(values)) == tuple(values)
    assert len(set(seen.values())) == len(seen) > 30


def test_play_covers_every_value_of_every_symbol() -> None:
    for case in ("mortar", "path", "path-both-ends"):
        task, symbols, _ = played(case)
        for k, count in enumerate(task.symbol_sizes):
            assert len(np.unique(symbols[:, k])) == count, (case, k)
    # The last symbol of Mortar Mayhem, the safe tile, and the cross of Mystery Path appear only with feedback.
    assert played("mortar-no-feedback")[1][:, 4].max() == 0
    assert played("path-no-feedback")[1][:, 3].max() == 0


FORWARD = np.array([(0, -1), (-1, 0), (0, 1), (1, 0)])
"""Column and row by direction: up, left, down, right."""


@pytest.mark.parametrize(("name", "size"), [(MORTAR, 3), (MORTAR, 6), (PATH, 7)])
def test_turns_and_steps_change_direction_and_place(name: str, size: int) -> None:
    options = {"arena_size": size, "command_show_duration": [1]} if name == MORTAR else {"visual_feedback": False}
    task, params = memory_gym.find_task(name).from_options({**options, "symbolic": True})
    transition = jax.jit(task.transition)
    moves = 0
    for seed in range(6):
        _, state = task.reset(jax.random.key(seed), params)
        if name == MORTAR:
            state = state.replace(frames_left=0)
        before = np.asarray(task.render(state, params))
        assert before[2] == 0
        for action in (1, 3, 2, 3, 2, 3, 3):
            fell = name == PATH and bool(state.fallen)
            state, *_ = transition(state, action, params)
            after = np.asarray(task.render(state, params))
            if fell:  # the action is ignored, and the agent is back at the start
                assert (after[:2] == state.start).all()
            else:
                turned = (before[2] + (action == 1) - (action == 2)) % 4
                assert after[2] == turned
                expected = before[:2] + (FORWARD[turned] if action == 3 else 0)
                assert (after[:2] == np.clip(expected, 0, size - 1)).all()
                moves += int((after[:2] != before[:2]).any())
            before = after
    assert moves > 6


def test_commands_safe_tiles_crosses_and_ends_have_their_numbers() -> None:
    task, params = memory_gym.find_task(MORTAR).from_options({"symbolic": True, "arena_size": 4})
    obs, state = task.reset(jax.random.key(3), params)
    *agent, shown, safe = np.asarray(obs).tolist()
    assert (shown, safe) == (int(state.commands[0]), 0)
    red = task.render(state.replace(shown=NO_COMMAND, red=np.bool_(True), target=np.array([2, 1])), params)
    assert np.asarray(red).tolist() == [*agent, NO_COMMAND, 1 + 2 * 4 + 1]
    for shown_ends in ({"show_goal": True}, {"show_origin": True}, {"show_goal": True, "show_origin": True}):
        task, params = memory_gym.find_task(PATH).from_options({"symbolic": True, **shown_ends})
        obs, state = task.reset(jax.random.key(3), params)
        start, end = state.start.tolist(), state.end.tolist()
        ends = [*(end if "show_goal" in shown_ends else []), *(start if "show_origin" in shown_ends else [])]
        assert np.asarray(obs).tolist() == [*start, 0, 0, *ends]
        fallen = task.render(state.replace(fallen=jax.numpy.bool_(True)), params)
        assert np.asarray(fallen).tolist() == [*start, 0, 1, *ends]


@pytest.mark.parametrize(
    ("name", "options"),
    [(MORTAR, {}), (PATH, {"reward_path_progress": 0.1, "reward_fall_off": -0.2, "reward_step": 0.01})],
)
def test_the_game_is_the_same_with_symbols(name: str, options: dict[str, Any]) -> None:
    outcomes = []
    for symbolic in (False, True):
        env = make_env(Config(env_id=f"jax/{name}", env_options={**options, "symbolic": symbolic}, num_envs=8))
        state, _ = env.reset(jax.random.key(0))
        step = jax.jit(env.step)
        rewards = []
        for action in np.random.default_rng(0).integers(4, size=(150, 8, 1)):
            state, output = step(state, action)
            rewards.append((np.asarray(output.reward), np.asarray(output.terminated)))
        outcomes.append(np.array(rewards))
    np.testing.assert_array_equal(*outcomes)
    rewards, ends = np.moveaxis(outcomes[0], 1, 0)
    assert ends.any()
    assert len(np.unique(rewards)) >= 2


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", [MORTAR, PATH])
def test_symbols_follow_gymnaxs_interface(name: str, bits: int) -> None:
    with jax.enable_x64(bits == 64):
        task, params = memory_gym.find_task(name).from_options({"symbolic": True})
        obs, _, (_, _, _, info) = shapes_of_steps(task, params)
        space = task.observation_space(params)
        assert (obs.shape, obs.dtype) == (space.shape, space.dtype) == ((len(task.symbol_sizes),), np.int32)
        assert info["final_observation"].shape == (3, *obs.shape)
        assert bool(space.contains(task.reset(jax.random.key(0), params)[0]))


@pytest.mark.parametrize("preset", ["mortar-mayhem-grid", "mystery-path-grid"])
def test_the_published_settings_train_with_symbols(preset: str, tmp_path: Path) -> None:
    flags = ["--env_options", '{"symbolic": true}', "--total_timesteps", 32, "--run_dir", tmp_path / "run"]
    assert run(preset, "--backend", "device", *TINY, *flags) == 0
    spec = json.loads((tmp_path / "run" / "spec.json").read_text())
    sizes = {"mortar-mayhem-grid": [5, 5, 4, 10, 26], "mystery-path-grid": [7, 7, 4, 2]}[preset]
    assert str(sizes) in json.dumps(spec["obs"]), spec["obs"]


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--env_id", f"jax/{PATH}", "--env_options", '{"symbolic": 1}'], "symbolic must be true or false, not 1"),
        (["--env_id", "jax/MortarMayhem-v0", "--env_options", '{"symbolic": true}'], "unknown option 'symbolic'"),
        (
            ["--env_id", MORTAR, "--env_options", '{"symbolic": true}'],
            f"--env_options: {MORTAR} has the option symbolic on the device only; use --backend device",
        ),
        (
            ["--env_id", f"jax/{PATH}", "--env_options", '{"symbolic": true}', "--backend", "host"],
            f"--env_options: {PATH} has the option symbolic on the device only; use --backend device",
        ),
        (
            ["--env_id", "jax/MortarMayhem-v0", "--env_options", '{"symbolic": true}', "--backend", "host"],
            "Provided reset parameter (symbolic) is not valid",
        ),
    ],
)
def test_symbols_that_are_not_offered_are_refused_in_one_line(
    flags: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*flags, *TINY) == 2
    assert part in error_line(capsys)


def test_an_option_with_its_default_does_not_hinder_playing_on_the_host() -> None:
    config = Config(env_id=f"jax/{PATH}", env_options={"symbolic": False, "max_steps": 9})
    assert move_to_backend(config, "host").env_options == {"max_steps": 9}
    single = make_single_env(Config(env_id=PATH, env_options={"symbolic": False, "max_steps": 9}))
    single.reset(0)
    single.close()


def test_unknown_options_are_answered_with_symbolic_among_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="reward_step, show_goal, show_origin, symbolic, visual_feedback"):
        memory_gym.find_task(PATH).from_options({"symbols": True})


@pytest.mark.parametrize("case", ["mortar", "path", "path-goal", "path-both-ends"])
def test_the_episode_page_names_every_symbol(case: str) -> None:
    name, options = CASES[case]
    task, _ = memory_gym.find_task(name).from_options(options)
    names = observation_names(f"jax/{name}", len(task.symbol_sizes))
    assert names[:3] == ("column", "row", "direction")
    assert len(set(names)) == len(task.symbol_sizes)
    assert not any(name.isdigit() for name in names)
