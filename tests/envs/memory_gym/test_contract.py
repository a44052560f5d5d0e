"""Memory Gym's tasks in JAX as users use them: training, playing, options, gymnax's interface, and no pygame."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers.gym import GymnaxToGymWrapper

from tests.support.gymnax_interface import shapes_of_steps
from trxl_jax import Config, load, make_env
from trxl_jax.envs.device.environment import DeviceEnvironment
from trxl_jax.envs.registry import on_backend
from trxl_jax.envs.tasks import memory_gym
from trxl_jax.errors import ConfigError
from trxl_jax.play.single_env import make_single_env

from tests.support.command import ROOT, TINY, error_line, run  # isort: skip
from trxl_jax.commands import enjoy

pytestmark = pytest.mark.optimised

SHORT = '{"command_count": [1], "command_show_duration": [1], "explosion_delay": [3], "explosion_duration": [1]}'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("device") / "run"
    flags = ["--env_options", SHORT, "--total_timesteps", 64, "--run_dir", run_dir]
    assert run("mortar-mayhem-grid", "--backend", "device", *TINY, *flags) == 0
    return run_dir


@pytest.mark.slow
def test_a_run_logs_the_tasks_statistics(trained: Path) -> None:
    row = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert json.loads((trained / "config.json").read_text())["env_id"] == "jax/MortarMayhem-Grid-v0"
    assert 0 <= row["episode/success_mean"] <= 1
    assert 0 <= row["episode/commands_completed_mean"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["device", "host"])
def test_an_agent_plays_on_both_backends(trained: Path, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert enjoy.main(["--name", str(trained), "--backend", backend, "--episodes", "2", "--json"]) == 0
    episodes = json.loads(capsys.readouterr().out)["episodes"]
    assert all({"return", "length", "success", "commands_completed"} <= set(episode) for episode in episodes)


@pytest.mark.slow
def test_pictures_for_people_are_upright_and_show_the_ground_truth(trained: Path) -> None:
    task = make_single_env(load(trained).config.for_evaluation(1, 1), pictures=True)
    task.reset(0)
    assert task.picture is not None
    assert task.picture.shape == (336, 336, 3)
    # The observation scaled by four, except for the mark on the target.
    seen = np.kron(task.pictures_of(task.obs)[0], np.ones((4, 4, 1), np.uint8))
    differs = (seen != task.picture).any(-1)
    assert 0 < differs.mean() < 0.05
    assert (task.picture[differs] == (0, 255, 0)).all()
    assert task.fps == 6


def test_backend_selects_the_version_of_a_task() -> None:
    for name in memory_gym.NAMES:
        assert on_backend(name, "device") == on_backend(f"jax/{name}", "device") == f"jax/{name}"
        assert on_backend(name, "host") == on_backend(f"jax/{name}", "host") == name
    assert on_backend("ProofofMemory-v0", "device") == "gymnax/ProofofMemory-v0"
    assert on_backend("gymnax/CartPole-v1", "device") == "gymnax/CartPole-v1"
    for env_id, backend in (("gymnax/CartPole-v1", "host"), ("CartPole-v1", "device")):
        with pytest.raises(ConfigError, match=f"--backend {backend}: {env_id} does not exist there"):
            on_backend(env_id, backend)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--env_id", "jax/MortarMayhem"], ["--env_id", "jax/MortarMayhem-v0"]),
        (["--backend", "device", "--env_options", '{"agent_scale": 0.5}'], ["--env_options", "agent_scale"]),
        (["--backend", "device", "--env_options", '{"comand_count": [3]}'], ["--env_options", "comand_count"]),
    ],
)
def test_invalid_flags_are_reported_in_one_line(
    flags: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*flags, *TINY) == 2
    line = error_line(capsys)
    assert all(part in line for part in parts), line


@pytest.mark.parametrize("name", memory_gym.NAMES)
def test_both_backends_have_the_same_spec(name: str) -> None:
    device, host = (make_env(Config(env_id=on_backend(name, side), num_envs=1)) for side in ("device", "host"))
    assert device.spec == host.spec
    host.close()


@pytest.mark.slow
def test_pygame_is_not_imported_at_run_time() -> None:
    script = """
import sys, jax
from trxl_jax import Config, make_env
from trxl_jax.envs.tasks import memory_gym
for name in memory_gym.NAMES:
    env = make_env(Config(env_id=f"jax/{name}", num_envs=2))
    jax.eval_shape(env.step, env.reset(jax.random.key(0))[0], jax.numpy.zeros((2, len(env.spec.action.nvec)), int))
print(sorted({"pygame", "memory_gym"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_final_observations_are_those_before_the_reset() -> None:
    options = json.loads(SHORT)
    config = Config(env_id="jax/MortarMayhem-Grid-v0", env_options=options, num_envs=4, bootstrap_truncated=True)
    env = make_env(config)
    state, _ = env.reset(jax.random.key(1))
    step = jax.jit(env.step)
    for _ in range(20):
        state, step_output = step(state, np.zeros((4, 1), np.int32))
        ended = np.asarray(step_output.terminated)
        if ended.any():
            break
    assert ended.any()
    final, first = np.asarray(step_output.final_obs), np.asarray(step_output.obs)
    assert (final[ended] != first[ended]).any()
    assert (final[~ended] == first[~ended]).all()
    assert not np.asarray(step_output.truncated).any()


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", memory_gym.NAMES)
def test_tasks_follow_gymnaxs_interface(name: str, bits: int) -> None:
    with jax.enable_x64(bits == 64):
        task, params = memory_gym.find_task(name).from_options({})
        obs, _, (reward, terminated, truncated, info) = shapes_of_steps(task, params)
    space = task.observation_space(params)
    assert task.name == name
    assert (obs.shape, obs.dtype) == (space.shape, space.dtype)
    assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float32, np.bool_, np.bool_)
    assert (info["final_observation"].shape, info["final_observation"].dtype) == ((3, *obs.shape), obs.dtype)
    assert all(info[name].dtype == np.float32 for name in task.result_names)


def test_parameters_may_differ_between_environments() -> None:
    task, params = memory_gym.find_task("MortarMayhem-Grid-v0").from_options({"command_count": [1]})
    delays = np.array([[2], [5]], np.int32)
    differ = params.replace(explosion_delay=delays)
    axes = jax.tree.map(lambda _: None, params).replace(explosion_delay=0)
    _, state = jax.vmap(task.reset, (None, axes))(jax.random.key(0), differ)
    assert (state.explosion_delay == delays[:, 0]).all()
    lengths = np.zeros(2, int)
    step = jax.jit(jax.vmap(task.transition, (0, None, axes)))
    for i in range(20):
        state, _, done, _ = step(state, 0, differ)
        lengths[(lengths == 0) & np.asarray(done)] = i + 1
    assert lengths[1] == lengths[0] + 3


@pytest.mark.slow
def test_a_full_table_truncates_and_is_reported() -> None:
    task = memory_gym.find_task("Endless-SearingSpotlights-v0")(capacity=3)
    env = DeviceEnvironment(task, task.default_params.replace(spawn_interval=2), 2)
    state, _ = env.reset(jax.random.key(0))
    step = jax.jit(env.step)
    for _ in range(2):
        state, step_output = step(state, np.zeros((2, 2), np.int32))
    assert np.asarray(step_output.truncated).all()
    assert not np.asarray(step_output.terminated).any()
    assert (step_output.episode.others["overflow"] == 1).all()


@pytest.mark.parametrize("name", [name for name in memory_gym.NAMES if "Endless" in name])
def test_a_limit_of_the_users_cuts_endless_episodes(name: str) -> None:
    sizes: dict[str, Any] = {"num_envs": 2, "env_id": f"jax/{name}"}
    assert make_env(Config(**sizes)).spec.max_episode_steps == 1024
    for limit in (1024, 1500):
        env: Any = make_env(Config(max_episode_steps=limit, **sizes))
        assert env.spec.max_episode_steps == limit
        state, _ = env.reset(jax.random.key(0))
        before = jnp.array([limit - 1, limit - 2], jnp.int32)
        action = env.spec.action.zeros((2,))
        _, taken = jax.jit(env.step)(state._replace(episode_length=before), action)
        assert taken.truncated.tolist() == [True, False]
        assert taken.episode.others["cut"].tolist() == [1, 0]
    own = make_env(Config(max_episode_steps=1500, env_options={"max_steps": 1200}, **sizes))
    assert own.spec.max_episode_steps == 1200


def test_options_for_an_environment_object_are_rejected() -> None:
    task, params = memory_gym.find_task("Endless-MysteryPath-v0").from_options({"stamina_level": 5})
    with pytest.raises(ConfigError, match=r"--env_options: Endless-MysteryPath-v0 was passed as an object"):
        make_env(Config(num_envs=2, env_options={"stamina_level": 9}), env=(task, params))


def test_gymnaxs_gymnasium_wrapper_works() -> None:
    task, params = memory_gym.find_task("MortarMayhem-Grid-v0").from_options({})
    env = GymnaxToGymWrapper(task, params, seed=0)
    obs, _ = env.reset(seed=3)
    assert np.asarray(obs) in env.observation_space
    obs, *_ = env.step(env.action_space.sample())
    assert np.asarray(obs) in env.observation_space
