"""POPGym's tasks in JAX have the released package's observations, rewards and ends, bit for bit."""

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from tests.support.popgym import EPISODES, PLAYERS, SEED, Episodes, assert_equal, record
from tests.support.popgym_golden import read
from trxl_jax.envs.registry import make_single
from trxl_jax.envs.tasks.popgym import GAMES, HOST_PREFIX
from trxl_jax.envs.tasks.popgym.host import INSTALL

needs_popgym = pytest.mark.skipif(find_spec("popgym") is None, reason=f"needs the released package: {INSTALL}")

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("RepeatPrevious", {"num_decks": 2, "k": 1}),
    ("RepeatPrevious", {"num_decks": 1, "k": 51}),
    ("RepeatFirst", {"num_decks": 3}),
    ("Autoencode", {"num_decks": 4}),
    ("CountRecall", {"num_decks": 2, "deck_type": "ranks"}),
    ("Concentration", {"num_decks": 2, "deck_type": "ranks"}),
    ("HigherLower", {"num_decks": 5}),
    ("MultiarmedBandit", {"num_bandits": 3, "episode_length": 17}),
    ("Battleship", {"board_size": 9}),
    ("LabyrinthExplore", {"maze_dims": (6, 12), "episode_length": 70}),
    ("LabyrinthExplore", {"maze_dims": (16, 6), "episode_length": 100}),
    ("LabyrinthEscape", {"maze_dims": (14, 8), "episode_length": 77}),
    ("LabyrinthEscape", {"maze_dims": (6, 18), "episode_length": 200}),
]


@cache
def golden(name: str) -> Episodes:
    return read(name, GAMES[name]())


@pytest.mark.parametrize("name", GAMES)
def test_recorded_episodes_are_equal(name: str) -> None:
    assert len(golden(name).length) == len(PLAYERS)
    assert_equal(GAMES[name](), golden(name))


@needs_popgym
@pytest.mark.parametrize("name", GAMES)
def test_episodes_are_equal(name: str) -> None:
    episodes = record(make_single(HOST_PREFIX + name).unwrapped, EPISODES, SEED)
    assert_equal(GAMES[name](), episodes)
    # For the table in docs/environments.md; shown by pytest -s.
    print(f"\n{name}: {EPISODES} episodes, {episodes.length.sum()} steps")


@needs_popgym
@pytest.mark.parametrize(("family", "options"), OPTIONS)
def test_options_have_the_packages_effects(family: str, options: dict[str, Any]) -> None:
    import popgym.envs

    env = getattr(popgym.envs, family)(**options)
    task, _ = GAMES[f"{family}Easy-v0"]().from_options(options)
    assert_equal(task, record(env, max(3, EPISODES // 5), SEED))


@needs_popgym
@pytest.mark.parametrize("name", GAMES)
def test_spaces_and_lengths_are_the_packages(name: str) -> None:
    task, env = GAMES[name](), make_single(HOST_PREFIX + name)

    def described(space: Any) -> Any:
        if hasattr(space, "spaces"):
            return [described(part) for part in space.spaces]
        return np.asarray(space.nvec).tolist() if hasattr(space, "nvec") else int(space.n)

    assert described(task.action_space(None)) == described(env.action_space)
    assert described(task.observation_space(None)) == described(env.observation_space)
    assert task.default_params.max_steps_in_episode == env.unwrapped.max_episode_steps


def rewards_of(name: str) -> set[float]:
    """All rewards that a task can give, as its parameters say."""
    params = GAMES[name]().default_params
    match name.partition("-")[0][:8]:
        case "MineSwee":
            return {params.new_reward, params.again_reward, params.mine_reward}
        case "Battlesh":
            return {params.hit_reward, params.miss_reward}
        case "Concentr":
            return {0, params.pair_reward, params.failure_reward, 2 * params.failure_reward}
        case "RepeatPr" | "Autoenco" | "HigherLo":
            return {0, params.reward, -params.reward}
    if name.startswith("LabyrinthEscape"):
        return {params.step_reward, params.goal_reward}
    return {params.reward, -params.reward}


@pytest.mark.parametrize("name", [name for name in GAMES if "Explore" not in name])
def test_recorded_episodes_have_every_reward(name: str) -> None:
    episodes = golden(name)
    given = np.concatenate([reward[:length] for reward, length in zip(episodes.reward, episodes.length)])
    assert set(given.tolist()) == {float(reward) for reward in rewards_of(name)}


@pytest.mark.parametrize("name", GAMES)
def test_recorded_episodes_end_in_every_way(name: str) -> None:
    episodes = golden(name)
    assert episodes.terminated.any() != name.startswith("Multiarmed")
    is_cut = name.startswith(("Concentration", "Multiarmed", "MineSweeper", "Battleship", "Labyrinth"))
    if not name.startswith("LabyrinthEscape"):  # where the end is rarely missed
        assert episodes.truncated.any() == is_cut


@pytest.mark.parametrize("name", GAMES)
def test_perfect_play_is_worth_1_where_luck_has_no_part(name: str) -> None:
    episodes = golden(name)
    best = episodes.reward[1, : episodes.length[1]].astype(float).sum()
    if name.startswith(("HigherLower", "Multiarmed", "Labyrinth")):
        assert 0.5 < best < 1
    else:
        assert best == pytest.approx(1, abs=1e-6)
