"""MiniGrid's Memory tasks in JAX as users use them: presets, options, gymnax's interface."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.support.gymnax_interface import shapes_of_steps
from trxl_jax import PRESETS, Config, make_env
from trxl_jax.commands import train
from trxl_jax.envs.registry import make_single, move_to_backend, on_backend
from trxl_jax.envs.tasks.minigrid import NAMES, find_task
from trxl_jax.envs.tasks.minigrid.memory import MiniGridMemoryLayout
from trxl_jax.errors import ConfigError
from trxl_jax.play.single_env import make_single_env

from tests.support.command import TINY, error_line, rows, run  # isort: skip

S9 = "MiniGrid-MemoryS9-v0"


@pytest.mark.parametrize("view", [{}, {"symbolic": True}, {"symbolic": True, "agent_view_size": 5}])
@pytest.mark.parametrize("name", NAMES)
def test_both_backends_have_the_same_spec(name: str, view: dict[str, Any]) -> None:
    assert on_backend(name, "device") == f"jax/{name}"
    assert on_backend(f"jax/{name}", "host") == name
    config = Config(env_id=name, num_envs=1, env_kwargs={"num_actions": 3} | view)
    device, host = (make_env(move_to_backend(config, side)) for side in ("device", "host"))
    assert device.spec == host.spec
    assert device.spec.action.nvec == (3,)
    assert device.spec.max_episode_steps == 96
    host.close()


@pytest.mark.parametrize("options", [{}, {"symbolic": True}, {"symbolic": True, "agent_view_size": 3}])
def test_both_backends_show_the_same(options: dict[str, Any]) -> None:
    # From the same room and place, through turns and steps that see all of the room.
    host = make_single(S9, **options)
    task, params = find_task(S9).from_options(options)
    seen, _ = host.reset(seed=3)
    own = host.unwrapped
    size = own.grid.width
    kinds = ("key", "ball")
    layout = MiniGridMemoryLayout(
        hallway_end=np.int32(size - 3),
        x=np.int32(own.agent_pos[0]),
        start=np.int32(kinds.index(own.grid.get(1, size // 2 - 1).type)),
        upper=np.int32(kinds.index(own.grid.get(size - 2, size // 2 - 2).type)),
    )
    state = task.reset_from_layout(layout, params)
    np.testing.assert_array_equal(seen, task.render(state, params))
    for action in [0, 0, 2, 2, 2, 2, 1, 1, *[2] * 8, 0, 2]:
        seen, reward, terminated, truncated, _ = host.step(action)
        state, expected, ended, _ = task.transition(state, np.int32(action), params)
        np.testing.assert_array_equal(seen, task.render(state, params))
        assert (np.float32(reward), terminated, truncated) == (expected, ended, False)
        if terminated:
            break
    assert terminated


def test_arguments_on_the_host_are_options_on_the_device() -> None:
    tuned = PRESETS["minigrid-memory-s9-tuned"]
    options = {"symbolic": True, "agent_view_size": 3, "num_actions": 3}
    assert tuned.env_kwargs == options
    moved = move_to_backend(tuned, "device")
    assert (moved.env_id, moved.env_options, moved.env_kwargs) == (f"jax/{S9}", options, {})
    assert move_to_backend(moved, "host") == tuned
    assert train.parse(["minigrid-memory-s9-tuned", "--backend", "device"]).config == moved
    assert move_to_backend(moved, "device") == moved
    # Options of Memory Gym's reset are options on both sides.
    config = Config(env_id="MortarMayhem-Grid-v0", env_options={"command_count": [3]})
    assert move_to_backend(config, "device").env_options == config.env_options


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["host", "device"])
@pytest.mark.parametrize("preset", ["minigrid-memory-s9", "minigrid-memory-s9-tuned"])
def test_presets_train_on_both_backends(preset: str, backend: str, tmp_path: Path) -> None:
    flags = ["--backend", backend, *TINY, "--total_timesteps", 64, "--run_dir", tmp_path / "run"]
    segments = ["--segment_length", min(8, PRESETS[preset].segment_length)]
    assert run(preset, *flags, *segments) == 0
    row = rows(tmp_path / "run")[-1]
    assert row["losses/entropy"] == pytest.approx(np.log(3 if "tuned" in preset else 7), abs=0.05)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--env_id", "jax/MiniGrid-MemoryS8-v0"], "did you mean jax/MiniGrid-Memory"),
        (["--env_id", f"jax/{S9}", "--env_options", '{"num_actions": 8}'], "--env_options: num_actions"),
        (["--env_id", f"jax/{S9}", "--env_options", '{"size": 9}'], "--env_options: unknown option 'size'"),
        (
            ["--env_id", f"jax/{S9}", "--env_options", '{"agent_view_size": 5}'],
            """must be 3 without "symbolic": true, not 5""",
        ),
        (
            ["--env_id", f"jax/{S9}", "--env_options", '{"symbolic": true, "agent_view_size": 4}'],
            "agent_view_size must be 3, 5, 7, 9 or 11, not 4",
        ),
        (
            ["--env_id", f"jax/{S9}", "--env_options", '{"agent_view_size": 20}'],
            """must be 3 without "symbolic": true, not 20""",
        ),
        (["--env_id", S9, "--env_kwargs", '{"agent_view_size": 5}'], "must be 3 without"),
        (["--env_id", S9, "--env_kwargs", '{"symbolic": 1}'], "symbolic must be true or false, not 1"),
        (["--env_id", f"jax/{S9}", "--env_options", '{"symbolic": 1}'], "symbolic must be true or false, not 1"),
        (
            ["--env_id", S9, "--env_kwargs", '{"symbolic": true, "agent_view_size": 4}'],
            "agent_view_size must be 3, 5, 7, 9 or 11, not 4",
        ),
        (
            ["--env_id", S9, "--env_kwargs", '{"symbolic": true}', "--minigrid_view", "pixels"],
            "symbolic and --minigrid_view pixels exclude each other; leave one of them out",
        ),
        (
            ["--env_id", f"jax/{S9}", "--env_options", '{"in_sight": true}', "--backend", "host"],
            "--env_options: MiniGrid-MemoryS9-v0 has the option in_sight on the device only; use --backend device",
        ),
        (["--env_id", S9, "--env_kwargs", '{"num_actions": 8}'], "num_actions must be a whole number from 1 to 7"),
        (["--env_id", S9, "--env_kwargs", '{"num_actions": 2.5}'], "num_actions must be a whole number from 1 to 7"),
    ],
)
def test_invalid_flags_are_reported_in_one_line(
    flags: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*flags, *TINY) == 2
    assert part in error_line(capsys)


def test_a_host_task_with_fewer_actions_passes_them_on() -> None:
    env = make_single(S9, num_actions=2)
    env.reset(seed=0)
    env.step(np.int64(1))
    assert env.unwrapped.agent_dir == 1
    assert env.action_space.n == 2


def test_people_see_the_whole_grid() -> None:
    task = make_single_env(Config(env_id=f"jax/{S9}"), pictures=True)
    task.reset(0)
    assert task.picture is not None
    assert task.picture.shape == (252, 252, 3)
    np.testing.assert_array_equal(task.pictures_of(task.obs)[0], task.obs)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_tasks_follow_gymnaxs_interface(name: str, symbolic: bool, bits: int) -> None:
    with jax.enable_x64(bits == 64):
        task, params = find_task(name).from_options({"symbolic": symbolic})
        obs, _, (reward, terminated, truncated, info) = shapes_of_steps(task, params)
    space = task.observation_space(params)
    assert task.name == name
    assert (obs.shape, obs.dtype) == (space.shape, space.dtype)
    assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float32, np.bool_, np.bool_)
    assert info["final_observation"].shape == (3, *obs.shape)


def test_a_view_may_be_written_as_a_float() -> None:
    task, params = find_task(S9).from_options({"symbolic": True, "agent_view_size": 5.0})
    assert task.observation_space(params).shape == (5, 5, 3)


def test_parameters_may_differ_between_environments() -> None:
    task, params = find_task(S9).from_options({})
    differ = params.replace(max_steps_in_episode=np.array([2, 4], np.int32), in_sight=np.array([False, True]))
    axes = jax.tree.map(lambda _: 0, differ)
    keys = jax.random.split(jax.random.key(0))
    _, state = jax.vmap(task.reset, (0, axes))(keys, differ)
    step = jax.jit(jax.vmap(task.step, (0, 0, None, axes)))
    cuts = []
    for _ in range(4):
        _, state, _, _, truncated, _ = step(keys, state, 0, differ)
        cuts.append(truncated.tolist())
    assert cuts == [[False, False], [True, False], [False, False], [True, True]]


def test_unknown_tasks_have_no_twin() -> None:
    with pytest.raises(ConfigError, match="--backend device: MiniGrid-Empty-5x5-v0 does not exist there"):
        on_backend("MiniGrid-Empty-5x5-v0", "device")
