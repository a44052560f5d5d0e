"""What POPGym's tasks in JAX draw has the released package's distributions; players have the returns they should."""

import sys
from importlib.util import find_spec
from itertools import combinations
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from tests.support.paths import ROOT
from trxl_jax.envs.registry import make_single
from trxl_jax.envs.tasks.popgym import GAMES, HOST_PREFIX
from trxl_jax.envs.tasks.popgym.host import INSTALL, INSTALL_MAZES
from trxl_jax.envs.tasks.popgym.mazes import draw_maze

pytestmark = pytest.mark.optimised

needs_mazelib = pytest.mark.skipif(find_spec("mazelib") is None, reason=f"needs mazelib: {INSTALL_MAZES}")
needs_popgym = pytest.mark.skipif(find_spec("popgym") is None, reason=f"needs the released package: {INSTALL}")
P_VALUE = 1e-4
NUM = 6000


@pytest.fixture(scope="module")
def returns() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import popgym_returns

    sys.path.pop(0)
    return popgym_returns


def layouts(name: str, num: int = NUM) -> Any:
    task = GAMES[name]()
    draw = jax.jit(jax.vmap(task.init_layout, (0, None)))
    return jax.tree.map(np.asarray, draw(jax.random.split(jax.random.key(7), num), task.default_params))


def fits(values: np.ndarray, chances: np.ndarray) -> bool:
    """Whether numbers may have been drawn with these chances (chi-squared test)."""
    counts = np.bincount(values.ravel(), minlength=chances.size)
    return stats.chisquare(counts, chances / chances.sum() * values.size).pvalue > P_VALUE


@pytest.mark.parametrize(
    ("name", "num_kinds"),
    [("RepeatPreviousMedium-v0", 4), ("RepeatFirstEasy-v0", 4), ("AutoencodeHard-v0", 4), ("HigherLowerMedium-v0", 13),
     ("ConcentrationEasy-v0", 2), ("ConcentrationHard-v0", 13)],
)  # fmt: skip
def test_cards_are_shuffled_decks(name: str, num_kinds: int) -> None:
    cards = layouts(name)
    num_cards = cards.shape[1]
    each = num_cards // num_kinds
    assert (np.sort(cards, axis=1) == np.repeat(np.arange(num_kinds), each)).all()
    # Any two places: one kind twice is rarer than two kinds, because cards are not put back.
    pair_chances = np.where(np.eye(num_kinds), each * (each - 1), each**2).ravel()
    for first, second in ((0, 1), (0, num_cards - 1), (17, 40)):
        assert fits(cards[:, first] * num_kinds + cards[:, second], pair_chances)


@pytest.mark.parametrize(("name", "num_kinds"), [("CountRecallEasy-v0", 2), ("CountRecallHard-v0", 13)])
def test_cards_and_questions_are_shuffled_apart(name: str, num_kinds: int) -> None:
    values, queries = layouts(name)
    for cards in (values, queries):
        assert (np.sort(cards, axis=1) == np.repeat(np.arange(num_kinds), cards.shape[1] // num_kinds)).all()
    for place in (0, 30):
        assert fits(values[:, place] * num_kinds + queries[:, place], np.ones(num_kinds**2))


def test_chances_of_arms_are_uniform() -> None:
    chances = layouts("MultiarmedBanditEasy-v0", 2000).chances
    assert stats.kstest(chances.ravel(), "uniform").pvalue > P_VALUE
    assert abs(np.corrcoef(chances[:, 0], chances[:, 1])[0, 1]) < 0.1


def test_arms_win_as_often_as_their_chances_say() -> None:
    task = GAMES["MultiarmedBanditEasy-v0"]()
    params = task.default_params
    _, state = task.reset_env(jax.random.key(0), params)
    chances = np.array([0, 0.02, 0.25, 0.5, 0.97, 1, 0.6, 0.7, 0.8, 0.9], np.float32)
    state = state.replace(layout=state.layout._replace(chances=chances))
    step = jax.jit(jax.vmap(jax.vmap(task.transition, (0, None, None, None)), (0, None, 0, None)))
    keys = jax.random.split(jax.random.key(1), (10, NUM))
    won = np.asarray(step(keys, state, np.arange(10), params)[0].won).sum(axis=1)
    assert (won[0], won[5]) == (0, NUM)
    for arm in (1, 2, 3, 4, 6, 7, 8, 9):
        assert stats.binomtest(int(won[arm]), NUM, float(chances[arm])).pvalue > P_VALUE


def test_every_set_of_mines_is_equally_likely() -> None:
    mines = layouts("MineSweeperEasy-v0", 12_000).reshape(-1, 16)
    number = {pair: i for i, pair in enumerate(combinations(range(16), 2))}
    assert (mines.sum(axis=1) == 2).all()
    assert fits(np.array([number[tuple(np.flatnonzero(board))] for board in mines]), np.ones(len(number)))


@pytest.mark.parametrize(("name", "num_mines"), [("MineSweeperMedium-v0", 6), ("MineSweeperHard-v0", 10)])
def test_larger_boards_have_their_mines(name: str, num_mines: int) -> None:
    mines = layouts(name)
    assert (mines.sum(axis=(1, 2)) == num_mines).all()
    squares = mines.reshape(NUM, -1)
    rng = np.random.default_rng(0)
    theirs = np.sort([rng.choice(squares.shape[1], num_mines, replace=False) for _ in range(3000)], axis=1)
    ours = np.nonzero(squares)[1].reshape(NUM, num_mines)
    for i in (0, num_mines // 2, -1):
        assert same_distribution(ours[:, i], theirs[:, i])


def summaries(boards: np.ndarray) -> np.ndarray:
    """Numbers that say how ships lie, i[boards, 4]."""
    rows, columns = boards.any(axis=2).sum(axis=1), boards.any(axis=1).sum(axis=1)
    edge = boards.sum(axis=(1, 2)) - boards[:, 1:-1, 1:-1].sum(axis=(1, 2))
    return np.stack([rows, columns, edge, boards.reshape(len(boards), -1).argmax(axis=1)], axis=1)


def test_ships_do_not_cross() -> None:
    assert (layouts("BattleshipEasy-v0").sum(axis=(1, 2)) == 12).all()


@needs_popgym
@pytest.mark.parametrize("name", ["BattleshipEasy-v0", "BattleshipHard-v0"])
def test_ships_lie_as_in_the_package(name: str) -> None:
    env = make_single(HOST_PREFIX + name).unwrapped
    boards = []
    for seed in range(1500):
        env.reset(seed=seed)
        boards.append(env.board == 1)
    ours = layouts(name)
    for mine, theirs in zip(summaries(ours).T, summaries(np.stack(boards)).T, strict=True):
        assert same_distribution(mine, theirs)


def sketches(mazes: np.ndarray) -> np.ndarray:
    """Numbers that say what mazes [N, height, width] are like: dead ends, crossings, and straight pieces, i[N, 3]."""
    passages = np.pad(mazes == 0, ((0, 0), (1, 1), (1, 1)))
    around = [np.roll(passages, shift, axis)[:, 1:-1, 1:-1] for shift, axis in ((1, 1), (-1, 1), (1, 2), (-1, 2))]
    ways, cells = np.sum(around, axis=0)[:, 1::2, 1::2], passages[:, 2:-1:2, 2:-1:2]
    straight = (around[0] & around[1] & ~around[2] & ~around[3])[:, 1::2, 1::2]
    each = (cells & (ways == 1), cells & (ways == 3), cells & straight)
    return np.stack([x.sum(axis=(1, 2)) for x in each], axis=1)


@needs_mazelib
@pytest.mark.slow
def test_mazes_are_drawn_as_in_mazelib() -> None:
    from mazelib.generate.HuntAndKill import HuntAndKill

    draw = jax.jit(jax.vmap(lambda key: draw_maze(key, 3, 3)))
    small = np.asarray(draw(jax.random.split(jax.random.key(2), NUM)).walls)[:, 1:-1, 1:-1]
    theirs = np.stack([HuntAndKill(3, 3).generate()[1:-1, 1:-1] for _ in range(NUM)])
    bits = 1 << np.arange(25)
    assert same_distribution(*(np.reshape(x, (NUM, 25)) @ bits for x in (small, theirs)))

    ours = layouts("LabyrinthEscapeMedium-v0").walls[:, 1:-1, 1:-1]
    theirs = np.stack([HuntAndKill(7, 7).generate()[1:-1, 1:-1] for _ in range(2000)])
    for mine, their in zip(sketches(ours).T, sketches(theirs).T, strict=True):
        assert same_distribution(mine, their)


def test_mazes_start_and_end_on_opposite_sides() -> None:
    mazes = layouts("LabyrinthExploreEasy-v0")
    start, end = mazes.start, mazes.end
    side = np.select([start[:, 0] == 0, start[:, 0] == 10, start[:, 1] == 0, start[:, 1] == 10], range(4))
    across = side // 2 == 0
    for place, border in ((start, (0, 10, 0, 10)), (end, (10, 0, 10, 0))):
        assert (np.where(across, place[:, 0], place[:, 1]) == np.array(border)[side]).all()
    along = [np.where(across, place[:, 1], place[:, 0]) for place in (start, end)]
    assert (along[0] % 2 == 1).all()
    assert (along[1] % 2 == 1).all()
    assert fits(side * 25 + along[0] // 2 * 5 + along[1] // 2, np.ones(100))
    assert not mazes.walls[np.arange(NUM), start[:, 0], start[:, 1]].any()
    assert mazes.walls[np.arange(NUM), end[:, 0], end[:, 1]].all()


def same_distribution(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two samples of small integers may have the same distribution (chi-squared test, rare values merged)."""
    values = np.union1d(ours, theirs)
    table = np.array([[(sample == value).sum() for value in values] for sample in (ours, theirs)])
    expected = table.sum(axis=0) * table.sum(axis=1, keepdims=True) / table.sum()
    rare = expected.min(axis=0) < 5
    table = np.hstack([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)])
    table = table[:, table.sum(axis=0) > 0]
    return table.shape[1] < 2 or stats.chi2_contingency(table).pvalue > P_VALUE


WORTH: dict[str, tuple[float, float]] = {
    "RepeatPreviousEasy-v0": (1, -0.4),
    "RepeatFirstEasy-v0": (1, -0.4),
    "AutoencodeEasy-v0": (1, -0.4),
    "CountRecallEasy-v0": (1, -0.8),
    "HigherLowerEasy-v0": (0.9, 0.55),
    "ConcentrationEasy-v0": (1, 0.5),
    "MultiarmedBanditEasy-v0": (0.8, 0.1),
    "MineSweeperEasy-v0": (1, 0.1),
    "BattleshipEasy-v0": (1, 0.1),
    "LabyrinthExploreEasy-v0": (0.97, 0.96),
    "LabyrinthEscapeEasy-v0": (0.97, 0.95),
}
"""What perfect play is worth at least, and what play without memory stays below."""


@pytest.mark.slow
@pytest.mark.parametrize("name", WORTH)
def test_perfect_play_is_best_and_play_without_memory_worse(name: str, returns: Any) -> None:
    least, most = WORTH[name]
    found = returns.measure(name, 500, 0, 0)
    assert found["best"].mean >= least - 1e-5
    assert found["memoryless"].mean < most
    assert found["memory"].mean <= found["best"].mean + 1e-5
    # A player of MineSweeper that only avoids squares it visited meets mines as often as a random one.
    assert found["memoryless"].mean < found["memory"].mean or name.startswith("MineSweeper")


@needs_popgym
@pytest.mark.slow
@pytest.mark.parametrize("name", GAMES)
def test_random_play_has_the_packages_returns(name: str, returns: Any) -> None:
    theirs = returns.host_returns(name, 400, 1)
    ours = np.asarray(returns.play(GAMES[name](), returns.RANDOM, jax.random.key(1), 4000)[0].sum(axis=1), float)
    assert stats.ttest_ind(ours, theirs, equal_var=False).pvalue > P_VALUE
    assert stats.ks_2samp(ours.round(4), theirs.round(4)).pvalue > P_VALUE
