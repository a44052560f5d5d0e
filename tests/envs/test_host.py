"""Gymnasium environments behind callbacks, real ones."""

import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.hostile import HangsIn
from tests.support.probes import Counter, Failing, IntegerVector
from trxl_jax.config import Config
from trxl_jax.envs.base import original_errors
from trxl_jax.envs.host.environment import HostEnvironment
from trxl_jax.envs.host.episode import EpisodeRules, EpisodeWrapper, make_wrapped
from trxl_jax.envs.observations import picture
from trxl_jax.envs.registry import make_env, make_single
from trxl_jax.errors import ConfigError, EnvironmentFailure

SMALL = {"num_envs": 2, "num_steps": 8, "total_timesteps": 1000}
FINAL_INFOS = {
    "MortarMayhem-Grid-v0": {"success", "commands_completed"},
    "MortarMayhem-v0": {"success", "commands_completed"},
    "Endless-MortarMayhem-v0": {"commands_completed", "max_command_sequence"},
    "MysteryPath-Grid-v0": {"success", "num_fails"},
    "MysteryPath-v0": {"success", "num_fails"},
    "Endless-MysteryPath-v0": {"num_fails", "max_x", "tiles_visited"},
    "SearingSpotlights-v0": {"success", "agent_health", "coins_collected"},
    "Endless-SearingSpotlights-v0": {"agent_health", "coins_collected"},
}


def play(env: HostEnvironment, steps: int, seed: int = 0) -> list:
    """Random actions through the compiled path."""
    rng = np.random.default_rng(seed)
    state, obs = env.reset(jax.random.key(0))
    step = jax.jit(env.step)
    played = [(obs, None)]
    for _ in range(steps):
        action = np.stack([rng.integers(0, n, env.num_envs) for n in env.spec.action.nvec], axis=1)
        state, time_step = step(state, jnp.asarray(action, jnp.int32))
        played.append((jax.tree.map(np.asarray, time_step), action))
    return played


def test_contract_autoreset_and_statistics() -> None:
    env = HostEnvironment(Counter, 2, send_final_obs=True)
    assert env.spec.action.nvec == (2,)
    assert env.spec.max_episode_steps == 1024
    steps = [step for step, _ in play(env, 7)[1:]]
    obs = [step.obs[:, 0].tolist() for step in steps]
    assert obs == [[1, 1], [2, 2], [0, 0], [1, 1], [2, 2], [0, 0], [1, 1]]
    assert steps[0].obs.dtype == np.float32  # cast from float64
    done = [step.episode.done.all() for step in steps]
    assert done == [False, False, True, False, False, True, False]
    assert all(not step.terminated.any() for step in steps)
    assert steps[2].final_obs[:, 0].tolist() == [3, 3]
    assert steps[2].episode.episode_return.tolist() == [3, 3]
    assert steps[2].episode.episode_length.tolist() == [3, 3]
    results = env.pop_episode_results()
    assert len(results) == 4
    # The vector layer would type a column by its first value: 0.3 must not become 0, nor a missing one 0.
    for result in results:
        assert result == {"r": 3, "l": 3, "growing": 0.3, "whole": 3, "flag": 1, "pair_0": 0, "pair_1": 1}
    assert env.pop_episode_results() == []


def test_each_environment_has_its_own_final_observation() -> None:
    lengths = iter([6, 3, 4])
    env = HostEnvironment(lambda: Counter(next(lengths, 2)), 3, send_final_obs=True)
    steps = [step for step, _ in play(env, 12)[1:]]
    assert any(step.episode.done.sum() > 1 for step in steps)
    for step in steps:  # the last observation of a counter is its length
        np.testing.assert_array_equal(step.final_obs[:, 0], step.episode.episode_length * step.episode.done)
    assert {length for step in steps for length in step.final_obs[:, 0].tolist()} > {3, 4}


@pytest.mark.parametrize(
    ("own", "expected"),
    [(9, 9), (9.0, 9), (np.int64(9), 9), (2**31 - 1, 2**31 - 1), (math.nan, 1024), ("9", 1024), (True, 1024)]
    + [(own, 1024) for own in (math.inf, 2**31, 0, -5, 7.5, lambda: 9, None, np.ones(2))],
)
def test_only_a_whole_number_is_an_episode_limit(own: Any, expected: int) -> None:
    def make() -> Counter:
        env = Counter()
        env.max_episode_steps = own
        return env

    assert HostEnvironment(make, 1).spec.max_episode_steps == expected


def test_discrete_actions_arrive_as_scalars_and_from_their_start() -> None:
    made = []

    def make() -> Counter:
        made.append(Counter(3, gymnasium.spaces.Discrete(2, start=5)))
        return made[-1]

    env = HostEnvironment(make, 1)
    play(env, 20)
    actions = made[-1].actions
    assert {int(a) for a in actions} == {5, 6}
    assert all(np.ndim(a) == 0 for a in actions)


def test_multi_discrete_actions_arrive_as_vectors() -> None:
    made = []

    def make() -> Counter:
        made.append(Counter(3, gymnasium.spaces.MultiDiscrete([3, 2])))
        return made[-1]

    env = HostEnvironment(make, 2)
    assert env.spec.action.nvec == (3, 2)
    played = play(env, 5)
    np.testing.assert_array_equal(made[-2].actions, [action[0] for _, action in played[1:]])


def test_options_and_a_recorded_seed_reach_every_reset() -> None:
    env = EpisodeWrapper(Counter(), EpisodeRules(3, {"a": 1}), index=1)
    seeds = []
    for _ in range(4):
        env.reset()
        seeds.append(env.episode_seed)
        assert env.unwrapped.options == {"a": 1}
        expected = np.random.default_rng(env.episode_seed).integers(1000)
        assert env.unwrapped.np_random.integers(1000) == expected
    assert len(set(seeds)) == 4
    assert EpisodeWrapper(Counter(), EpisodeRules(3), index=2).episode_seed is None
    again = EpisodeWrapper(Counter(), EpisodeRules(3), index=1, episode=2)
    again.reset()
    assert again.episode_seed == seeds[2]


def test_command_count_holds_in_the_third_episode() -> None:
    config = Config(env_id="MortarMayhem-Grid-v0", env_options={"command_count": [3]}, **SMALL)
    env = make_env(config)
    # 3 commands: shown 3 steps and 1 blank each, executed with delay 2 and duration 6.
    limit = env.spec.max_episode_steps
    assert limit < 119
    play(env, 4 * limit)
    results = env.pop_episode_results()
    assert len(results) >= 6
    assert all(result["l"] <= limit for result in results)
    fractions = {round(result["commands_completed"] * 3, 6) for result in results}
    assert fractions <= {0, 1, 2, 3}
    env.close()


@pytest.mark.parametrize("env_id", FINAL_INFOS)
def test_every_final_info_of_memory_gym_arrives_with_its_value(env_id: str) -> None:
    """The adapter against the same environment played by hand: seeds, actions, frames, rewards and infos."""
    config = Config(env_id=env_id, seed=7, **SMALL)
    env = make_env(config)
    # More than the longest time limit, so that an episode ends everywhere.
    steps = 520
    played = play(env, steps)
    results = env.pop_episode_results()
    assert results

    by_hand: list[dict] = []
    finished_at: list[int] = []
    for index in range(2):
        single = make_single(env_id)
        for episode in range(len(results) + 1):
            seed = int(np.random.SeedSequence((7, index, episode)).generate_state(1)[0]) % 2**31
            if env_id == "Endless-MortarMayhem-v0":  # drawn from the last episode otherwise
                single.unwrapped.rotated_agent_surface = single.unwrapped.rotated_agent_rect = None
            if episode == 0:
                obs, _ = single.reset(seed=seed)
                np.testing.assert_array_equal(played[0][0][index], obs)
                t = 0
            else:
                obs, _ = single.reset(seed=seed)
            done = False
            while not done and t < steps:
                time_step, action = played[t + 1]
                t += 1
                given = action[index] if len(env.spec.action.nvec) > 1 else action[index, 0]
                obs, reward, terminated, truncated, info = single.step(given)
                done = terminated or truncated
                assert time_step.reward[index] == np.float32(reward)
                assert time_step.episode.done[index] == done
                if not done:
                    np.testing.assert_array_equal(time_step.obs[index], obs)
            if not done:
                break
            by_hand.append(info)
            finished_at.append(t * 2 + index)
    ordered = [info for _, info in sorted(zip(finished_at, by_hand, strict=True), key=lambda pair: pair[0])]
    assert len(results) == len(ordered)
    for result, info in zip(results, ordered, strict=True):
        assert set(result) == {"r", "l", "reward", "length"} | FINAL_INFOS[env_id]
        assert result["l"] == result["length"] == info["length"]
        assert result["r"] == pytest.approx(info["reward"])
        for name in FINAL_INFOS[env_id]:
            assert result[name] == pytest.approx(float(info[name])), name
    env.close()


def test_an_episode_is_a_function_of_its_seed_and_actions_though_instances_are_reused() -> None:
    def frames(env: EpisodeWrapper) -> list[np.ndarray]:
        return [env.reset()[0], *(env.step(np.array([1, 2]))[0] for _ in range(5))]

    used = make_wrapped(partial(make_single, "Endless-MortarMayhem-v0"), EpisodeRules())
    frames(used)
    fresh = make_wrapped(partial(make_single, "Endless-MortarMayhem-v0"), EpisodeRules(), episode=1)
    for ours, theirs in zip(frames(used), frames(fresh), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_minigrid_is_seen_as_in_the_original() -> None:
    env = make_env(Config(env_id="MiniGrid-MemoryS9-v0", **SMALL))
    assert env.spec.obs == picture(84, 84, 3)
    assert env.spec.max_episode_steps == 96
    played = play(env, 97)
    assert any(step.truncated.any() or step.terminated.any() for step, _ in played[1:])
    assert played[1][0].obs.dtype == np.uint8
    env.close()


def test_asynchronous_environments_give_the_same_numbers() -> None:
    config = Config(env_id="ProofofMemory-v0", **SMALL)
    sync, background = make_env(config), make_env(config.replace(async_envs=True))
    for (ours, _), (theirs, _) in zip(play(sync, 40), play(background, 40), strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    for ours, theirs in zip(sync.pop_episode_results(), background.pop_episode_results(), strict=True):
        assert ours == theirs
    background.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_next_step_does_not_change_the_last_one(asynchronous: bool) -> None:
    env = HostEnvironment(partial(Counter, 9), 2, asynchronous=asynchronous)
    (group,) = env._groups
    group.make()
    steps = [group.reset(), *(group.step(np.ones((2, 1), np.int32)) for _ in range(3))]
    assert [step.obs.ravel().tolist() for step in steps] == [[t, t] for t in range(4)]
    assert [step.reward.tolist() for step in steps] == [[min(t, 1)] * 2 for t in range(4)]
    env.close()


def test_a_failure_is_kept_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    env = HostEnvironment(lambda: Failing(length=6), 2, EpisodeRules(5))
    with pytest.raises(Exception, match="simulator"):
        play(env, 20)
    assert isinstance(env.failure, EnvironmentFailure)
    message = str(env.failure)
    seed = EpisodeRules(5).episode_seed(0, 1)
    assert f"index 0, seed {seed}, step 4" in message
    assert "\n" not in message
    assert "simulator crashed" in message
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("asynchronous", [False, True])
def test_of_many_environments_the_one_that_hangs_is_named(asynchronous: bool) -> None:
    seed = EpisodeRules(7).episode_seed(3, 0)
    env = HostEnvironment(partial(HangsIn, seed), 4, EpisodeRules(7), asynchronous=asynchronous, timeout=3)
    with pytest.raises(Exception, match="hangs"):
        play(env, 5)
    assert f"hangs (index 3, seed {seed}, step 2)" in str(env.failure)
    env.close()


def test_an_interrupt_is_the_users_in_the_main_thread_only() -> None:
    class Interrupted(Counter):
        def step(self, action: Any) -> tuple:
            raise KeyboardInterrupt

    env = HostEnvironment(Interrupted, 2)
    with pytest.raises(EnvironmentFailure, match="KeyboardInterrupt"), original_errors(env):
        play(env, 1)
    env.close()
    single = EpisodeWrapper(Interrupted())
    single.reset()
    with pytest.raises(KeyboardInterrupt):
        single.step(np.array([0]))


def test_unsupported_spaces_are_refused() -> None:
    class Worded(Counter):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Text(5)})

    with pytest.raises(ConfigError, match=r"observations Dict\(a: Text\) .*wrapper"):
        HostEnvironment(Worded, 1)
    with pytest.raises(ConfigError, match=r"actions Text\b.*wrapper .*module:id"):
        HostEnvironment(lambda: Counter(action_space=gymnasium.spaces.Text(5)), 1)


def test_options_that_the_environment_refuses_name_the_flag() -> None:
    with pytest.raises(ConfigError, match=r"--env_options.*comand_count"):
        make_env(Config(env_id="MortarMayhem-Grid-v0", env_options={"comand_count": [3]}, **SMALL))


@pytest.mark.parametrize(
    ("env_id", "near"),
    [
        ("MortarMayhemGrid-v0", "MortarMayhem-Grid-v0"),
        ("minigrid-memorys9-v0", "MiniGrid-MemoryS9-v0"),
        ("gymnax/MemoryChain", "gymnax/MemoryChain-bsuite"),
        ("ProofOfMemory-v0", "ProofofMemory-v0"),
    ],
)
def test_unknown_ids_list_near_names(env_id: str, near: str) -> None:
    with pytest.raises(ConfigError, match=near):
        make_env(Config(env_id=env_id, **SMALL))


def test_a_module_in_the_working_directory_registers_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an installed command is started, whose path lacks that directory."""
    (tmp_path / "own_tasks.py").write_text(
        "import gymnasium\n\ngymnasium.register('Own-v0', entry_point='tests.support.probes:Counter')\n"
    )
    (tmp_path / "broken_tasks.py").write_text("import no_such_dependency")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    config = Config(env_id="own_tasks:Own-v0", env_kwargs={"length": 7}, **SMALL)
    for asynchronous in (False, True):
        env = make_env(config.replace(async_envs=asynchronous))
        done = [step.episode.done.all() for step, _ in play(env, 8)[1:]]
        env.close()
        assert done == [False] * 6 + [True, False]
    with pytest.raises(ConfigError, match=r"importing broken_tasks failed: ModuleNotFoundError.*no_such_dependency"):
        make_env(config.replace(env_id="broken_tasks:Own-v0"))
    with pytest.raises(ConfigError, match=r"can't be made with --env_kwargs \{'size': 3\}: .*unexpected keyword"):
        make_env(config.replace(env_kwargs={"size": 3}))
    with pytest.raises(ConfigError, match="--env_kwargs: an environment that is passed as an object"):
        make_env(config, env=Counter)


@pytest.mark.parametrize("env_id", ["MortarMayhem-Grid-v0", "memory_gym:MysteryPath-v0"])
def test_without_memory_gym_its_tasks_name_the_install_command(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "memory_gym", None)
    with pytest.raises(ConfigError, match=r": pip install --no-deps memory-gym==1\.0\.2; .*--backend device"):
        make_env(Config(env_id=env_id, **SMALL))


def test_without_memory_gym_other_tasks_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "memory_gym", None)
    for env_id in ("ProofofMemory-v0", "MiniGrid-MemoryS9-v0", "CartPole-v1"):
        make_single(env_id).close()
    monkeypatch.setattr(gymnasium, "registry", {"CartPole-v1": gymnasium.registry["CartPole-v1"]})
    with pytest.raises(ConfigError, match="did you mean MortarMayhem-Grid-v0"):
        make_env(Config(env_id="MortarMayhemGrid-v0", **SMALL))


def test_whole_numbers_become_float32() -> None:
    env = HostEnvironment(IntegerVector, 2)
    assert env.spec.obs.arrays[""].dtype == np.float32
    assert play(env, 3)[2][0].obs.dtype == np.float32


def test_an_environments_own_names_do_not_pass_for_ours() -> None:
    class Misleading(Counter):
        def step(self, action: Any) -> tuple:
            return *super().step(action)[:4], {"l": 99, "r": -5.0, "zero_d": np.array(4.0)}

    env = HostEnvironment(Misleading, 1)
    play(env, 3)
    (result,) = env.pop_episode_results()
    assert result == {"r": 3, "l": 3, "zero_d": 4}
