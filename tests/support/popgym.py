"""Plays episodes of the released POPGym and the same episodes in the JAX version, and compares them."""

import copy
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from trxl_jax.envs.tasks.popgym.count_recall import CountRecallLayout
from trxl_jax.envs.tasks.popgym.mazes import STEPS, Maze
from trxl_jax.envs.tasks.popgym.multiarmed_bandit import MultiarmedBanditLayout

EPISODES = int(os.environ.get("TRXL_REPLAY_EPISODES", "4"))
SEED = int(os.environ.get("TRXL_REPLAY_SEED", "0"))


class Episodes(NamedTuple):
    """E episodes of at most T steps, padded with zeros.

    Fields:
        layout: what was random in each, as the task's `reset_from_layout` takes it, leaves [E, ...].
        length: i32[E], number of steps.
        obs: i32[E, T + 1, ...]; a tuple is the last axis.
        action: i32[E, T, ...].
        reward: f32[E, T].
        terminated, truncated: bool[E, T].
    """

    layout: Any
    length: np.ndarray
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


def read_layout(env: Any) -> Any:
    """The layout of an episode of the released package that was just reset. Cards are dealt from the deck's end."""
    match family(env):
        case "RepeatPrevious" | "RepeatFirst" | "Autoencode":
            return env.deck.suits_idx[env.deck.idx[::-1]].astype(np.int32)
        case "HigherLower":
            return env.deck.ranks_idx[env.deck.idx[::-1]].astype(np.int32)
        case "CountRecall":
            decks = (env.value_deck, env.query_deck)
            return CountRecallLayout(*(env.deck_idx_type[deck.idx[::-1]].astype(np.int32) for deck in decks))
        case "Concentration":
            return env.deck_idx_type[env.deck.idx].astype(np.int32)
        case "MultiarmedBandit":
            draws = copy.deepcopy(env.np_random).random(env.max_episode_length)
            return MultiarmedBanditLayout(env.bandits.copy(), draws.astype(np.float32))
        case "MineSweeper":
            return env.hidden_grid == 1
        case "Battleship":
            return env.board == 1
        case "LabyrinthExplore" | "LabyrinthEscape":
            walls = env.maze.grid == 1
            walls[env.maze.end] = True
            return Maze(walls, np.array(env.maze.start, np.int32), np.array(env.maze.end, np.int32))
    raise AssertionError(family(env))


def family(env: Any) -> str:
    """Name of a task of the released package without its difficulty."""
    name = type(env).__name__
    for level in ("Easy", "Medium", "Hard"):
        name = name.removesuffix(level)
    return name


def oracle(env: Any, rng: np.random.Generator) -> Any:
    """The best action, by what the package's object hides."""
    match family(env):
        case "RepeatPrevious":
            hand = env.deck["player"]
            return env.deck.suits_idx[hand[-env.k]] if len(hand) >= env.k else 0
        case "RepeatFirst":
            return env.card
        case "Autoencode":
            return env.deck.suits_idx[env.deck["system"][-1]]
        case "CountRecall":
            return env.counts[env.query]
        case "HigherLower":
            following = env.deck.ranks_idx[env.deck.idx[len(env.deck) - 1]]
            return 0 if following > env.deck.ranks_idx[env.deck["player"][0]] else 1
        case "MultiarmedBandit":
            return env.bandits.argmax()
        case "MineSweeper":
            return np.argwhere(env.hidden_grid == 0)[0]
        case "Battleship":
            return np.argwhere((env.board == 1) & (env.guesses == 0))[0]
        case "Concentration":
            shows, hidden = env.deck_idx_type[env.deck.idx], np.ones(env.deck.num_cards, bool)
            hidden[env.deck["face_up_idx"]] = False
            for first in env.deck["in_play_idx"]:
                hidden &= shows == shows[first]
                hidden[first] = False
            return hidden.argmax()
        case "LabyrinthExplore" | "LabyrinthEscape":
            return direction_in_maze(env)
    raise AssertionError(family(env))


def direction_in_maze(env: Any) -> int:
    """The shortest way to the goal, or through all of the maze: into the longest of new branches last."""
    grid, start = env.maze.grid, tuple(env.maze.start)
    parents, ordered = {start: start}, [start]
    for place in ordered:
        near = (tuple(np.add(place, step)) for step in STEPS)
        inside = [p for p in near if 0 <= p[0] < grid.shape[0] and 0 <= p[1] < grid.shape[1]]
        new = [p for p in inside if p not in parents and grid[p] != 1]
        parents |= dict.fromkeys(new, place)
        ordered += new
    here, chosen = tuple(env.position), parents[tuple(env.position)]
    if family(env) == "LabyrinthEscape":
        way = [tuple(env.maze.end)]
        while way[-1] != start:
            way.append(parents[way[-1]])
        if here in way:
            chosen = way[way.index(here) - 1]
    else:
        depth = dict.fromkeys(ordered, 0)
        for place in reversed(ordered[1:]):
            depth[parents[place]] = max(depth[parents[place]], depth[place] + 1)
        branches = [p for p in ordered[1:] if parents[p] == here and not env.explored[p]]
        chosen = min(branches, key=depth.__getitem__, default=chosen)
    return int((np.subtract(chosen, here) == STEPS).all(axis=1).argmax())


def random_player(env: Any, rng: np.random.Generator) -> Any:
    """A random action."""
    space = env.action_space
    return rng.integers(space.nvec if hasattr(space, "nvec") else space.n)


def mixed_player(env: Any, rng: np.random.Generator) -> Any:
    """The best action, or a random one in every fifth step or so."""
    return random_player(env, rng) if rng.random() < 0.2 else oracle(env, rng)


def repeating_player(env: Any, rng: np.random.Generator) -> Any:
    """The best action, or in many steps a card or square that was chosen before."""
    if rng.random() < 0.5:
        return oracle(env, rng)
    before: Any = ()
    match family(env):
        case "MineSweeper":
            before = np.argwhere(env.hidden_grid == 2)
        case "Battleship":
            before = np.argwhere(env.guesses == 1)
        case "Concentration":
            before = [*env.deck["in_play_idx"], *env.deck["face_up_idx"]]
        case "LabyrinthExplore" | "LabyrinthEscape":
            before = range(4)
    return before[rng.integers(len(before))] if len(before) > 0 else oracle(env, rng)


PLAYERS: tuple[Callable[[Any, np.random.Generator], Any], ...] = (
    random_player,
    oracle,
    mixed_player,
    repeating_player,
)


def record(env: Any, episodes: int, seed: int, players: Sequence[Callable[..., Any]] = PLAYERS) -> Episodes:
    """Plays episodes of the released package, with each of the players in turn."""
    played = []
    for i in range(episodes):
        rng = np.random.default_rng(seed + i)
        obs = [env.reset(seed=seed + i)[0]]
        layout, steps = read_layout(env), []
        while not steps or not (steps[-1][2] or steps[-1][3]):
            action = players[i % len(players)](env, rng)
            following, reward, terminated, truncated, _ = env.step(action)
            obs.append(following)
            steps.append((action, reward, terminated, truncated))
        played.append((layout, len(steps), obs, *zip(*steps, strict=True)))
    layouts, lengths, *columns = zip(*played, strict=True)
    obs, action, reward, terminated, truncated = columns
    longest = max(lengths)
    return Episodes(
        jax.tree.map(lambda *leaves: np.stack(leaves), *layouts),
        np.array(lengths, np.int32),
        padded(obs, longest + 1, np.int32),
        padded(action, longest, np.int32),
        padded(reward, longest, np.float32),
        padded(terminated, longest, bool),
        padded(truncated, longest, bool),
    )


def padded(rows: Sequence[Any], length: int, dtype: Any) -> np.ndarray:
    """Stacks rows of different lengths, followed by zeros."""
    arrays = [np.asarray(row).astype(dtype) for row in rows]
    return np.stack([np.pad(x, [(0, length - len(x))] + [(0, 0)] * (x.ndim - 1)) for x in arrays])


@partial(jax.jit, static_argnums=0)
def play(task: Any, params: Any, layouts: Any, actions: jax.Array) -> Any:
    """Plays actions i32[E, T, ...] from layouts [E, ...] in the JAX version.

    Returns:
        First observations; then observations, rewards, and both ends of T steps.
    """

    def episode(layout: Any, actions: jax.Array) -> Any:
        def step(state: Any, action: jax.Array) -> tuple[Any, Any]:
            state, reward, terminated, truncated = task.transition(jax.random.key(0), state, action, params)
            return state, (task.observation(state), reward, terminated, truncated)

        first = task.reset_from_layout(layout, params)
        return task.observation(first), jax.lax.scan(step, first, actions)[1]

    return jax.vmap(episode)(layouts, actions)


def assert_equal(task: Any, episodes: Episodes) -> None:
    """Replays episodes in the JAX version: observations, rewards and ends must have the same bits."""
    first, (obs, *ours) = play(task, task.default_params, episodes.layout, episodes.action)
    together = (lambda x: np.stack(x, axis=-1)) if isinstance(first, tuple) else np.asarray
    first, obs = together(first), together(obs)
    assert obs.dtype == np.int32
    assert [x.dtype for x in ours] == [np.float32, np.bool_, np.bool_]
    np.testing.assert_array_equal(first, episodes.obs[:, 0])
    theirs = (episodes.obs[:, 1:], episodes.reward, episodes.terminated, episodes.truncated)
    for i, length in enumerate(episodes.length):
        for mine, their in zip((obs, *ours), theirs, strict=True):
            bits = [np.asarray(x)[i, :length].tobytes() for x in (mine, their)]
            assert bits[0] == bits[1], f"episode {i} differs"
        ended = episodes.terminated[i] | episodes.truncated[i]
        assert ended.argmax() == length - 1
