"""T-Maze: by hand, and the same on host and device."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers import LogWrapper
from scipy import stats

from tests.support.replay import EPISODES, SEED
from trxl_jax.config import Config
from trxl_jax.envs.registry import make_env, make_single, move_to_backend, on_backend
from trxl_jax.envs.tasks.t_maze import find_task, rules
from trxl_jax.errors import ConfigError

RIGHT, UP, LEFT, DOWN = range(4)
HOST, DEVICE = "trxl_jax/TMaze-v0", "jax/TMaze-v0"
OPTIONS: dict[str, dict[str, Any]] = {
    "passive": {},
    "active": {"active": True},
    "short": {"corridor_length": 1, "active": True},
    "long": {"corridor_length": 60, "penalty": -0.25},
}

Policy = Callable[[Any, np.random.Generator], int]


def random_policy(env: Any, generator: np.random.Generator) -> int:
    return int(generator.integers(4))


def forward(env: Any, generator: np.random.Generator) -> int:
    """Mostly right, to get to the junction in time or a little late."""
    return int(generator.choice([RIGHT] * 12 + [UP, LEFT, DOWN]))


def oracle(env: Any, generator: np.random.Generator) -> int:
    if env.x and not env.visited:
        return LEFT
    return RIGHT if env.x < env.junction else UP if env.goal == 1 else DOWN


def gambler(env: Any, generator: np.random.Generator) -> int:
    """Knows the way, and guesses at its end."""
    return RIGHT if env.x < env.junction else UP


def play(env: Any, policy: Policy, seed: int, goal: int | None = None) -> dict[str, list[Any]]:
    obs, _ = env.reset(seed=seed, options=None if goal is None else {"goal": goal})
    generator, played = np.random.default_rng(seed), {"obs": [obs], "action": [], "reward": [], "end": [], "info": []}
    while not (played["end"] and played["end"][-1]):
        action = policy(env.unwrapped, generator)
        obs, reward, terminated, truncated, info = env.step(np.int64(action))
        assert not truncated
        for name, value in zip(played, (obs, action, reward, terminated, info), strict=True):
            played[name].append(value)
    return played


def test_an_episode_by_hand() -> None:
    """The active variant: one step to the oracle, back, three along the corridor, and the turn; then mistakes."""
    env = make_single(HOST, corridor_length=3, active=True)

    def episode(actions: list[int]) -> tuple[list[list[float]], list[float]]:
        obs, _ = env.reset(options={"goal": -1})
        seen, rewards = [obs.tolist()], []
        for action in actions:
            obs, reward, terminated, _, _ = env.step(action)
            seen, rewards = [*seen, obs.tolist()], [*rewards, reward]
        assert terminated
        return seen, rewards

    nothing, third = [0, 0], -1 / 3
    way = [LEFT, RIGHT, RIGHT, RIGHT, RIGHT]
    seen, rewards = episode([*way, DOWN])
    assert seen == [nothing, [0, -1], nothing, nothing, nothing, [1, 0], [1, -1]]
    assert rewards == [0, 0, 0, 0, 0, 1]
    seen, rewards = episode([*way, UP])
    assert (seen[-1], rewards[-1]) == ([1, 1], 0)
    # The goal is shown once; who stays there falls behind.
    seen, rewards = episode([LEFT, LEFT, UP, RIGHT, LEFT, RIGHT])
    assert seen == [nothing, [0, -1], nothing, nothing, nothing, nothing, nothing]
    assert rewards == [0, third, third, third, third, 0]
    # Not having looked doesn't cost anything, and whoever is early may come back from a wrong candidate.
    seen, rewards = episode([RIGHT, RIGHT, RIGHT, UP, DOWN, DOWN])
    assert seen == [nothing, nothing, nothing, [1, 0], [1, 1], [1, 0], [1, -1]]
    assert rewards == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("name", OPTIONS)
def test_host_and_device_are_the_same(name: str) -> None:
    env = make_single(HOST, render_mode="rgb_array", **OPTIONS[name])
    task, params = find_task("TMaze-v0").from_options(OPTIONS[name])
    length = params.max_steps_in_episode

    @jax.jit
    def replay(goal: jax.Array, actions: jax.Array) -> Any:
        first = task.reset_from_layout(goal, params)

        def step(state: Any, action: jax.Array) -> tuple[Any, Any]:
            state, reward, terminated, info = task.transition(state, action, params)
            return state, (task.render(state, params), reward, terminated, info["success"])

        return task.render(first, params), jax.lax.scan(step, first, actions)[1]

    policies, returns = (oracle, random_policy, forward, gambler), []
    for episode in range(EPISODES):
        played = play(env, policies[episode % 4], SEED + episode)
        assert len(played["action"]) == length
        first, (obs, reward, terminated, success) = replay(jnp.int32(env.unwrapped.goal), np.array(played["action"]))
        np.testing.assert_array_equal(np.concatenate([first[None], obs]), played["obs"])
        np.testing.assert_array_equal(reward, np.array(played["reward"], np.float32))
        np.testing.assert_array_equal(terminated, played["end"])
        np.testing.assert_array_equal(success, [info["success"] for info in played["info"]])
        returns.append(sum(played["reward"]))
    assert max(returns) == 1
    assert min(returns) < 0


@pytest.mark.parametrize("name", ["active", "long"])
def test_pictures_for_people_are_the_same(name: str) -> None:
    env = make_single(HOST, render_mode="rgb_array", **OPTIONS[name])
    task, params = find_task("TMaze-v0").from_options(OPTIONS[name])
    render, step = jax.jit(task.render_debug), jax.jit(task.transition)
    env.reset(options={"goal": -1})
    state, pictures = task.reset_from_layout(jnp.int32(-1), params), []
    for _ in range(params.max_steps_in_episode):
        pictures.append(env.render())
        np.testing.assert_array_equal(render(state, params), pictures[-1])
        action = oracle(env.unwrapped, np.random.default_rng())
        env.step(action)
        state, *_ = step(state, action, params)
    assert pictures[0].shape == (3 * rules.CELL, rules.COLUMNS * rules.CELL, 3)
    assert all((before != after).any() for before, after in pairwise(pictures[:5]))


def test_the_goal_is_drawn_evenly_on_both_sides() -> None:
    env, task = make_single(HOST), find_task("TMaze-v0")
    theirs = [env.reset(seed=SEED + seed)[0][1] == 1 for seed in range(2000)]
    keys = jax.random.split(jax.random.key(SEED), 2000)
    ours = jax.vmap(task.init_layout, (0, None))(keys, task.default_params)
    assert set(ours.tolist()) == {-1, 1}
    for ups in (np.sum(theirs), np.sum(ours == 1)):
        assert stats.binomtest(int(ups), 2000).pvalue > 1e-4


@pytest.mark.parametrize("active", [False, True])
def test_memory_is_worth_half(active: bool) -> None:
    env = make_single(HOST, active=active)
    for policy, best in ((oracle, 1), (gambler, 0.5)):
        returns = [sum(play(env, policy, SEED, goal)["reward"]) for goal in (-1, 1)]
        assert np.mean(returns) == best
    random = np.mean([sum(play(env, random_policy, seed)["reward"]) for seed in range(300)])
    assert random < -0.5
    print(f"\n{'active' if active else 'passive'}: random play {random:.2f}")


def test_nothing_but_the_oracle_tells_the_goal() -> None:
    """The same actions give the same observations with both goals, once the oracle has been left behind."""
    env = make_single(HOST, active=True)
    for seed in range(20):
        seen = []
        for goal in (-1, 1):
            played = play(env, forward, seed, goal)
            at_oracle = [observation[0] == 0 and observation[1] != 0 for observation in played["obs"]]
            seen.append(np.where(np.array(at_oracle)[:, None], 9, np.array(played["obs"])))
        np.testing.assert_array_equal(*seen)


def test_backends_and_options() -> None:
    assert on_backend(HOST, "device") == on_backend(DEVICE, "device") == DEVICE
    assert on_backend(DEVICE, "host") == HOST
    options = {"corridor_length": 20, "active": True}
    config = Config(env_id=HOST, env_kwargs=options, num_envs=2)
    moved = move_to_backend(config, "device")
    assert (moved.env_id, moved.env_options, moved.env_kwargs) == (DEVICE, options, {})
    assert move_to_backend(moved, "host") == config
    host, device = make_env(config), make_env(moved)
    assert host.spec == device.spec
    assert device.spec.max_episode_steps == 23
    host.close()
    for wrong in ({"corridor_length": 0}, {"active": 1}, {"penalty": 0.5}, {"length": 3}):
        with pytest.raises(ConfigError, match=f"--env_options: .*{next(iter(wrong))}"):
            make_env(Config(env_id=DEVICE, env_options=wrong, num_envs=2))
        with pytest.raises(ConfigError, match=f"--env_kwargs.*{next(iter(wrong))}"):
            make_env(Config(env_id=HOST, env_kwargs=wrong, num_envs=2))


def test_the_task_follows_gymnaxs_interface() -> None:
    task, params = find_task("TMaze-v0").from_options({"corridor_length": 2})
    wrapped = LogWrapper(task)
    obs, state = wrapped.reset(jax.random.key(0), params)

    def step(carry: Any, key: jax.Array) -> tuple[Any, Any]:
        action = task.action_space(params).sample(key)
        obs, state, reward, terminated, truncated, info = wrapped.step(key, carry[1], action, params)
        return (obs, state), (reward, terminated, truncated, info["final_observation"])

    keys = jax.random.split(jax.random.key(1), 9)
    (obs, _), (reward, terminated, truncated, final) = jax.lax.scan(step, (obs, state), keys)
    assert (obs.dtype, reward.dtype, final.shape) == (np.float32, np.float32, (9, 2))
    assert terminated.tolist() == [False, False, True] * 3
    assert not truncated.any()


def test_corridors_may_differ_between_environments() -> None:
    task = find_task("TMaze-v0")
    each = [task.from_options({"corridor_length": length})[1] for length in (2, 4)]
    params = jax.tree.map(lambda *x: np.stack(x), *each)
    axes = jax.tree.map(lambda _: 0, params)
    keys = jax.random.split(jax.random.key(0))
    _, state = jax.vmap(task.reset, (0, axes))(keys, params)
    ends = []
    for _ in range(5):
        _, state, _, terminated, _, _ = jax.vmap(task.step, (0, 0, None, axes))(keys, state, RIGHT, params)
        ends.append(terminated.tolist())
    assert np.array(ends).T.tolist() == [[False, False, True, False, False], [False] * 4 + [True]]
