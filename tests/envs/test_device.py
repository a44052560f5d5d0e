"""gymnax environments on the device, and Proof of Memory on both sides."""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trxl_jax.config import Config
from trxl_jax.envs.device.environment import DeviceEnvironment
from trxl_jax.envs.registry import make_env, make_single
from trxl_jax.envs.tasks.proof_of_memory.device import ProofOfMemory, ProofOfMemoryState
from trxl_jax.errors import ConfigError

SMALL = {"num_envs": 3, "num_steps": 8, "total_timesteps": 1000}


def test_proof_of_memory_is_the_same_on_host_and_device() -> None:
    host = make_single("ProofofMemory-v0")
    device = ProofOfMemory()
    params = device.default_params
    step_env, truncated = jax.jit(device.step_env), jax.jit(device.is_truncated)
    rng = np.random.default_rng(0)
    ends = {"terminated": 0, "truncated": 0}
    for episode in range(60):
        cell, left_goal = int(rng.choice([-2, -1, 0, 1, 2])), int(rng.choice([-1, 1]))
        obs, _ = host.reset(options={"cell": cell, "left_goal": left_goal})
        state = ProofOfMemoryState(time=jnp.int32(0), cell=jnp.int32(cell), left_goal=jnp.int32(left_goal))
        np.testing.assert_array_equal(obs, np.float32([left_goal, cell / 5, -left_goal]))
        done = False
        while not done:
            # Going to and fro in every other episode runs into the time limit.
            action = int(rng.integers(2)) if episode % 2 else host.unwrapped.time % 2
            obs, reward, terminated, timeout, _ = host.step(np.int64(action))
            ours = step_env(jax.random.key(0), state, action, params)
            state = ours[1]
            np.testing.assert_array_equal(obs, ours[0])
            assert np.float32(reward) == ours[2]
            assert terminated == ours[3]
            assert (timeout or (terminated and host.unwrapped.time == 16)) == truncated(state, params)
            done = terminated or timeout
            ends["terminated"] += terminated
            ends["truncated"] += timeout
    assert min(ends.values()) > 5


def test_options_of_proof_of_memory_are_checked() -> None:
    env = make_single("ProofofMemory-v0")
    wrong: list[dict[str, Any]] = [{"left_goal": 3}, {"cell": 5}, {"cell": 0.5}, {"left_goal": "1"}]
    for options in wrong:
        with pytest.raises(ValueError, match=f"^{next(iter(options))} must be "):
            env.reset(options=options)
    obs, _ = env.reset(options={"cell": 1.0, "left_goal": -1})
    np.testing.assert_array_equal(obs, np.float32([-1, 0.2, 1]))


def test_each_environment_draws_its_own_episodes() -> None:
    """Also after the first one, whose layout has a key of its own."""
    env = DeviceEnvironment(ProofOfMemory(), ProofOfMemory().default_params, 64)
    state, obs = env.reset(jax.random.key(0))
    assert len(np.unique(obs, axis=0)) > 1
    step, counts = jax.jit(env.step), []
    for _ in range(8):  # always to the right: some end in each of the last steps
        state, outcome = step(state, jnp.ones((64, 1), jnp.int32))
        counts += [len(np.unique(outcome.obs[outcome.terminated], axis=0))] if outcome.terminated.sum() > 4 else []
    assert len(counts) > 2
    assert min(counts) > 1


def test_proof_of_memory_pays_1_2_at_best_on_average() -> None:
    """Two frozen steps, then straight to the good goal: 1.6 less 0.1 for each step but the last."""
    env = make_single("ProofofMemory-v0")
    returns = []
    for cell in (-2, -1, 0, 1, 2):
        for left_goal in (-1, 1):
            env.reset(options={"cell": cell, "left_goal": left_goal})
            total, done = 0.0, False
            while not done:
                _, reward, done, _, _ = env.step(0 if left_goal == 1 else 1)
                total += reward
            returns.append(total)
    assert np.mean(returns) == pytest.approx(1.2)


def test_layouts_are_uniform_on_both_sides() -> None:
    host = make_single("ProofofMemory-v0")
    drawn = [host.reset(seed=seed)[0] for seed in range(1000)]
    device = jax.vmap(lambda key: ProofOfMemory().reset_env(key, ProofOfMemory().default_params)[0])(
        jax.random.split(jax.random.key(0), 1000)
    )
    for observations in (np.stack(drawn), np.asarray(device)):
        for value in np.float32([-0.4, -0.2, 0, 0.2, 0.4]):
            assert (observations[:, 1] == value).mean() == pytest.approx(0.2, abs=0.05)
        assert (observations[:, 0] == 1).mean() == pytest.approx(0.5, abs=0.06)


def roll(env: DeviceEnvironment, steps: int) -> Any:
    state, obs = env.reset(jax.random.key(1))
    actions = jax.random.randint(jax.random.key(2), (steps, env.num_envs, 1), 0, env.spec.action.nvec[0])
    return obs, jax.lax.scan(env.step, state, actions)[1]


def test_statistics_follow_the_rewards() -> None:
    env = make_env(Config(env_id="gymnax/ProofofMemory-v0", bootstrap_truncated=True, **SMALL))
    _, steps = roll(env, 200)
    done = np.asarray(steps.terminated | steps.truncated)
    for n in range(3):
        ends = np.flatnonzero(done[:, n])
        assert len(ends) > 10
        starts = [0, *(ends[:-1] + 1)]
        for start, end in zip(starts, ends, strict=True):
            total = float(steps.reward[start : end + 1, n].sum())
            assert steps.episode.episode_return[end, n] == pytest.approx(total, abs=1e-5)
            assert steps.episode.episode_length[end, n] == end - start + 1
            if steps.terminated[end, n]:
                assert abs(steps.final_obs[end, n, 1]) == 1  # at an edge, where the next episode never starts
            assert abs(steps.obs[end, n, 1]) < 0.5
    np.testing.assert_array_equal(steps.episode.done, done)
    # Environments draw their own layouts.
    assert (np.asarray(steps.obs)[:, 0] != np.asarray(steps.obs)[:, 1]).any()


def test_options_replace_parameters() -> None:
    config = Config(env_id="gymnax/MemoryChain-bsuite", env_options={"memory_length": 2}, **SMALL)
    _, steps = roll(make_env(config), 12)
    assert set(np.unique(steps.episode.episode_length[steps.episode.done])) == {3}
    with pytest.raises(ConfigError, match=r"--env_options.*memory_lenght.*memory_length"):
        make_env(config.replace(env_options={"memory_lenght": 2}))


def test_the_episode_limit_comes_from_the_parameters() -> None:
    assert make_env(Config(env_id="gymnax/ProofofMemory-v0", **SMALL)).spec.max_episode_steps == 16
    assert make_env(Config(env_id="gymnax/CartPole-v1", **SMALL)).spec.max_episode_steps == 500
    options = {"max_steps_in_episode": 40}
    config = Config(env_id="gymnax/CartPole-v1", env_options=options, **SMALL)
    assert make_env(config).spec.max_episode_steps == 40


class _Older:
    """An environment of the older kind round a present one: ends in one flag."""

    def __init__(self, values: int) -> None:
        self._inner, self.default_params = gymnax.make("CartPole-v1")
        self._values = values
        self.name = "Older"
        self.reset, self.observation_space = self._inner.reset, self._inner.observation_space
        self.action_space = self._inner.action_space

    def step(self, *args: Any) -> tuple[Any, ...]:
        obs, state, reward, terminated, truncated, info = self._inner.step(*args)
        return (obs, state, reward, terminated | truncated, info)[: self._values]


@pytest.mark.parametrize("values", [4, 5])
def test_older_environments_are_accepted(values: int) -> None:
    config = Config(**SMALL)
    env = make_env(config, _Older(values))
    _, older = roll(env, 100)
    _, newer = roll(make_env(config.replace(env_id="gymnax/CartPole-v1")), 100)
    np.testing.assert_array_equal(older.obs, newer.obs)
    np.testing.assert_array_equal(older.terminated, newer.terminated | newer.truncated)
    with pytest.raises(ConfigError, match="bootstrap_truncated"):
        make_env(config.replace(bootstrap_truncated=True), _Older(values))
