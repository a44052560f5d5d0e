"""Measures mean returns of simple players in POPGym's tasks on the device, and of random play in the released package.

    python benchmarks/popgym_returns.py [TASK ...] [--episodes 4000] [--host_episodes 0] [--seed 0]

Players: `best` knows what is hidden, which bounds every agent. `memory` remembers all that was shown and plays by a
simple rule. `memoryless` sees the last observation only: where actions don't change observations it is the best of all
such players, measured on other episodes than it was found on; in Concentration it turns any card that it sees face
down; in the labyrinths it goes any way but that by which it came; in the others it is random play. `package` is random
play in the released package, and needs popgym. After ± is half of an interval that holds the mean with 95%.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from names import check_names

from trxl_jax.cli import run_command
from trxl_jax.envs.registry import make_single
from trxl_jax.envs.tasks.popgym import GAMES, HOST_PREFIX
from trxl_jax.envs.tasks.popgym.labyrinth import LabyrinthEscape
from trxl_jax.envs.tasks.popgym.mazes import STEPS, Maze


class Player(NamedTuple):
    """A way to play.

    Fields:
        start: maps the task to what the player keeps in mind at first.
        act: maps the task, what it keeps in mind, the state, and a key to what it then keeps in mind, and its action.
    """

    start: Callable[[Any], Any]
    act: Callable[[Any, Any, Any, jax.Array], tuple[Any, jax.Array]]


class Returns(NamedTuple):
    """Mean return of a player, and half of its interval."""

    mean: float
    interval: float


def fixed(choose: Callable[[Any, Any, jax.Array], jax.Array]) -> Player:
    """A player that keeps nothing in mind; `choose` maps task, state and key to an action."""
    return Player(lambda task: (), lambda task, mind, state, key: (mind, choose(task, state, key)))


def square(task: Any, wanted: jax.Array) -> jax.Array:
    """Row and column i32[2] of the square with the greatest value of `wanted` [side, side]."""
    return jnp.stack(jnp.divmod(wanted.ravel().argmax(), task.side))


def any_of(wanted: jax.Array, key: jax.Array) -> jax.Array:
    """Values f32 of the shape of `wanted` whose greatest lies at a random place among the wanted ones."""
    return jax.random.uniform(key, wanted.shape, minval=0.5) * wanted


def partner(state: Any, known: jax.Array) -> jax.Array:
    """Places bool[N] of known cards that make a pair with the card in play."""
    first = state.turned[0]
    return known & ~state.found & (state.cards == state.cards[first]) & (jnp.arange(known.size) != first)


def find_pairs(task: Any, state: Any, key: jax.Array) -> jax.Array:
    """Concentration, with all cards known."""
    return jnp.where(state.trying, partner(state, ~state.found), ~state.found).argmax()


def remember_cards(task: Any, seen: jax.Array, state: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Concentration: turns pairs among the cards seen so far, else a new card; `seen` is a bool[N]."""
    seen = seen | (task.observation(state) < task.num_kinds)
    known = seen & ~state.found
    kinds = jnp.arange(task.num_kinds)
    has_pair = ((state.cards == kinds[:, None]) & known).sum(axis=1)[state.cards] >= 2
    wanted = jnp.where(state.trying, partner(state, known), known & has_pair)
    new = any_of(~seen & ~state.found, key)
    return seen, jnp.where(wanted.any(), wanted.argmax(), new.argmax())


def count_cards(task: Any, state: Any, key: jax.Array) -> jax.Array:
    """HigherLower: guesses what is likelier with the cards that are left."""
    place = jnp.arange(task.num_cards)
    left = place > state.time
    now = state.cards[state.time]
    return jnp.where((left & (state.cards > now)).sum() >= (left & (state.cards < now)).sum(), 0, 1)


def best_mean(task: Any, record: jax.Array, state: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """MultiarmedBandit: the arm with the highest mean after one win and one loss of each; `record` f32[arms + 1, 2].

    Its last row holds the last arm, from which the last result is known.
    """
    tried = state.time > 0
    last = record[-1, 0].astype(jnp.int32)
    record = record.at[last, 1 - state.won].add(tried)
    arm = (record[:-1, 0] / record[:-1].sum(axis=1)).argmax()
    return record.at[-1, 0].set(arm), arm


def depths(maze: Maze) -> np.ndarray:
    """How many steps each place of a maze is from its start, i64[height, width]; -1 for walls."""
    steps = np.full(maze.walls.shape, -1)
    steps[tuple(maze.start)] = 0
    is_open = ~maze.walls
    is_open[tuple(maze.end)] = True
    reached = [tuple(maze.start)]
    for place in reached:
        for row, column in np.add(place, STEPS):
            inside = 0 <= row < steps.shape[0] and 0 <= column < steps.shape[1]
            if inside and is_open[row, column] and steps[row, column] < 0:
                steps[row, column] = steps[place] + 1
                reached.append((row, column))
    return steps


def shortest_ways(task: Any, key: jax.Array, episodes: int) -> np.ndarray:
    """Returns f64[episodes] of the shortest ways to the end of mazes, or through all of them.

    Mazes are trees. A way through all goes along each passage and back, but for the way to the farthest place.
    """
    mazes = jax.vmap(task.init_layout, (0, None))(jax.random.split(key, episodes), task.default_params)
    returns = []
    for i in range(episodes):
        maze = jax.tree.map(lambda x, i=i: np.asarray(x[i]), mazes)
        steps = depths(maze)
        if isinstance(task, LabyrinthEscape):
            paid = steps[tuple(maze.end)]
        else:
            steps[tuple(maze.end)] = -1
            paid = (steps >= 0).sum() - 1 - steps.max()
        returns.append(1 - paid / task.episode_length)
    return np.array(returns)


def free_directions(state: Any, task: Any) -> tuple[jax.Array, jax.Array]:
    """Which of the four places around the agent it could go to, bool[4], and those places, i32[4, 2]."""
    places = state.position + jnp.asarray(STEPS)
    inside = (places >= 0).all(axis=1) & (places < jnp.array([task.height, task.width])).all(axis=1)
    return inside & task.open_places(state.maze).at[places[:, 0], places[:, 1]].get(mode="clip"), places


def back(action: jax.Array) -> jax.Array:
    """The direction from which an action came."""
    return action ^ 1


def explore(task: Any, came_from: jax.Array, state: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Labyrinths: goes to new places, or back where there are none; `came_from` i32[height, width]."""
    row, column = state.position
    free, places = free_directions(state, task)
    new = free & ~state.explored[places[:, 0], places[:, 1]]
    is_first = came_from[row, column] < 0
    came_from = came_from.at[row, column].set(
        jnp.where(is_first, back(state.last_action) % len(STEPS), came_from[row, column])
    )
    return came_from, jnp.where(new.any(), any_of(new, key).argmax(), came_from[row, column])


def go_ahead(task: Any, state: Any, key: jax.Array) -> jax.Array:
    """Labyrinths, without memory: any way but that by which it came, which the observation shows."""
    free, _ = free_directions(state, task)
    ahead = free & (jnp.arange(len(STEPS)) != back(state.last_action))
    return any_of(jnp.where(ahead.any(), ahead, free), key).argmax()


EXPLORE = Player(lambda task: jnp.full((task.height, task.width), -1, jnp.int32), explore)
BEST = {
    "RepeatPrevious": fixed(lambda task, state, key: state.cards[state.time + 1 - task.settings["k"]]),
    "RepeatFirst": fixed(lambda task, state, key: state.cards[0]),
    "Autoencode": fixed(lambda task, state, key: state.cards[2 * task.num_cards - 2 - state.time]),
    "CountRecall": fixed(lambda task, state, key: state.counts[state.layout.queries[state.time]]),
    "HigherLower": fixed(lambda task, state, key: 1 - (state.cards[state.time + 1] > state.cards[state.time])),
    "Concentration": fixed(find_pairs),
    "MultiarmedBandit": fixed(lambda task, state, key: state.layout.chances.argmax()),
    "MineSweeper": fixed(lambda task, state, key: square(task, ~(state.mines | state.visited))),
    "Battleship": fixed(lambda task, state, key: square(task, state.ships & ~state.shot)),
}
MEMORY = {
    **BEST,
    "HigherLower": fixed(count_cards),
    "Concentration": Player(lambda task: jnp.zeros(task.num_cards, bool), remember_cards),
    "MultiarmedBandit": Player(lambda task: jnp.ones((task.num_arms + 1, 2)).at[-1].set(0), best_mean),
    "MineSweeper": fixed(lambda task, state, key: square(task, any_of(~state.visited, key))),
    "Battleship": fixed(lambda task, state, key: square(task, any_of(~state.shot, key))),
    "LabyrinthExplore": EXPLORE,
    "LabyrinthEscape": EXPLORE,
}
MEMORYLESS = {
    "Concentration": fixed(lambda task, state, key: any_of(task.observation(state) == task.num_kinds, key).argmax()),
    "LabyrinthExplore": fixed(go_ahead),
    "LabyrinthEscape": fixed(go_ahead),
}
RANDOM = fixed(lambda task, state, key: task.action_space(None).sample(key))
SAME = Player(lambda task: jnp.int32(0), lambda task, action, state, key: (action, action))
PASSIVE = ("RepeatPrevious", "RepeatFirst", "Autoencode", "CountRecall", "HigherLower")
"""Tasks whose observations don't depend on actions."""


@partial(jax.jit, static_argnums=(0, 1, 3))
def play(task: Any, player: Player, key: jax.Array, episodes: int, mind: Any = None) -> tuple[jax.Array, jax.Array]:
    """Plays whole episodes.

    Args:
        task: the task.
        player: who plays.
        key: random key.
        episodes: number of episodes.
        mind: what the player keeps in mind at first, instead of `player.start`.

    Returns:
        Rewards f32[episodes, T], 0 after an end, and observations before them i32[episodes, T], each as one number.
    """
    params = task.default_params

    def episode(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        reset_key, key = jax.random.split(key)
        first = task.reset_from_layout(task.init_layout(reset_key, params), params)

        def step(carry: tuple[Any, Any, jax.Array], key: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            mind, state, running = carry
            act_key, step_key = jax.random.split(key)
            seen = as_number(task, task.observation(state))
            mind, action = player.act(task, mind, state, act_key)
            state, reward, terminated, truncated = task.transition(step_key, state, action, params)
            return (mind, state, running & ~(terminated | truncated)), (jnp.where(running, reward, 0), seen)

        keys = jax.random.split(key, params.max_steps_in_episode)
        start = player.start(task) if mind is None else mind
        return jax.lax.scan(step, (start, first, jnp.bool_(True)), keys)[1]

    return jax.vmap(episode)(jax.random.split(key, episodes))


def as_number(task: Any, obs: Any) -> jax.Array:
    """An observation of a passive task as a number i32[]; 0 for others."""
    if type(task).__name__ not in PASSIVE:
        return jnp.int32(0)
    return jnp.int32(0) + sum(32**i * part for i, part in enumerate(obs if isinstance(obs, tuple) else jnp.ravel(obs)))


def memoryless(task: Any, key: jax.Array, episodes: int) -> np.ndarray:
    """Returns f64[episodes // 2] of the best player that sees the last observation only, in a passive task.

    It is found on one half of the episodes and plays the other.
    """
    total: list[np.ndarray] = []
    for action in range(task.num_actions):
        rewards, seen = play(task, SAME, key, episodes, jnp.int32(action))
        kinds, index = np.unique(seen, return_inverse=True)
        index = index.reshape(seen.shape) + kinds.size * np.arange(episodes)[:, None]
        sums = np.bincount(index.ravel(), np.ravel(rewards), episodes * kinds.size)
        total.append(sums.reshape(episodes, kinds.size))
    worth = np.stack(total)  # [actions, episodes, observations]
    choice = worth[:, : episodes // 2].sum(axis=1).argmax(axis=0)
    return worth[choice, episodes // 2 :, np.arange(choice.size)].sum(axis=0)


def host_returns(name: str, episodes: int, seed: int) -> np.ndarray:
    """Returns f64[episodes] of random play in the released package."""
    env = make_single(HOST_PREFIX + name).unwrapped
    rng = np.random.default_rng(seed)
    space = env.action_space
    choices = space.nvec if hasattr(space, "nvec") else space.n
    returns = np.zeros(episodes)
    env.reset(seed=seed)
    for i in range(episodes):
        env.reset()
        done = False
        while not done:
            _, reward, terminated, truncated, _ = env.step(rng.integers(choices))
            returns[i] += reward
            done = terminated or truncated
    return returns


def summary(returns: Any) -> Returns:
    """Mean of returns [episodes], and half of its interval."""
    returns = np.asarray(returns, np.float64)
    return Returns(float(returns.mean()), float(1.96 * returns.std(ddof=1) / np.sqrt(returns.size)))


def measure(name: str, episodes: int, host_episodes: int, seed: int) -> dict[str, Returns]:
    """Mean returns by player."""
    task = GAMES[name]()
    kind = type(task).__name__
    keys = jax.random.split(jax.random.key(seed), 4)

    def played(player: Player, key: jax.Array) -> Returns:
        return summary(play(task, player, key, episodes)[0].sum(axis=1))

    if kind in BEST:
        found = {"best": played(BEST[kind], keys[0])}
    else:
        found = {"best": summary(shortest_ways(task, keys[0], episodes))}
    found["memory"] = found["best"] if MEMORY[kind] is BEST.get(kind) else played(MEMORY[kind], keys[1])
    found["random"] = played(RANDOM, keys[2])
    if kind in PASSIVE:
        found["memoryless"] = summary(memoryless(task, keys[3], min(episodes, 1000)))
    else:
        found["memoryless"] = played(MEMORYLESS[kind], keys[3]) if kind in MEMORYLESS else found["random"]
    if host_episodes:
        found["package"] = summary(host_returns(name, host_episodes, seed))
    return found


def show(name: str, row: dict[str, Returns], *, heading: bool) -> None:
    """Prints a row of a table in Markdown's form, after its heading."""
    if heading:
        print(f"| task | {' | '.join(row)} |\n|---|{'---|' * len(row)}")
    cells = (f"{x.mean:.3f} ± {x.interval:.3f}".removesuffix(" ± 0.000") for x in row.values())
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main(flags: Sequence[str]) -> int:
    """Measures and prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(GAMES))
    parser.add_argument("--episodes", type=int, default=4000)
    parser.add_argument("--host_episodes", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(flags)
    check_names("task", options.tasks, GAMES)
    for name in options.tasks:
        show(
            name,
            measure(name, options.episodes, options.host_episodes, options.seed),
            heading=name == options.tasks[0],
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
