"""POPGym's tasks as pure JAX functions, step for step equal to the released package; see docs/environments.md."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from trxl_jax.envs.tasks.popgym.control_names import CONTROL_TASKS

HOST_PREFIX = "popgym-"
"""What the released package puts before the names of its tasks, as in `popgym-RepeatPreviousEasy-v0`."""


def _task(where: str, **settings: Any) -> Callable[[], Any]:
    """A function that imports the class `module:class` of this folder and makes the task with these settings."""
    module, _, kind = where.partition(":")
    return lambda: getattr(import_module(f"{__name__}.{module}"), kind)(**settings)


GAMES: dict[str, Callable[[], Any]] = {
    "RepeatPreviousEasy-v0": _task("repeat_previous:RepeatPrevious", num_decks=1, k=4),
    "RepeatPreviousMedium-v0": _task("repeat_previous:RepeatPrevious", num_decks=2, k=32),
    "RepeatPreviousHard-v0": _task("repeat_previous:RepeatPrevious", num_decks=3, k=64),
    "RepeatFirstEasy-v0": _task("repeat_first:RepeatFirst", num_decks=1),
    "RepeatFirstMedium-v0": _task("repeat_first:RepeatFirst", num_decks=8),
    "RepeatFirstHard-v0": _task("repeat_first:RepeatFirst", num_decks=16),
    "AutoencodeEasy-v0": _task("autoencode:Autoencode", num_decks=1),
    "AutoencodeMedium-v0": _task("autoencode:Autoencode", num_decks=2),
    "AutoencodeHard-v0": _task("autoencode:Autoencode", num_decks=3),
    "CountRecallEasy-v0": _task("count_recall:CountRecall", num_decks=1, deck_type="colors"),
    "CountRecallMedium-v0": _task("count_recall:CountRecall", num_decks=2, deck_type="suits"),
    "CountRecallHard-v0": _task("count_recall:CountRecall", num_decks=4, deck_type="ranks"),
    "ConcentrationEasy-v0": _task("concentration:Concentration", num_decks=1, deck_type="colors"),
    "ConcentrationMedium-v0": _task("concentration:Concentration", num_decks=2, deck_type="colors"),
    "ConcentrationHard-v0": _task("concentration:Concentration", num_decks=1, deck_type="ranks"),
    "HigherLowerEasy-v0": _task("higher_lower:HigherLower", num_decks=1),
    "HigherLowerMedium-v0": _task("higher_lower:HigherLower", num_decks=2),
    "HigherLowerHard-v0": _task("higher_lower:HigherLower", num_decks=3),
    "MultiarmedBanditEasy-v0": _task("multiarmed_bandit:MultiarmedBandit", num_bandits=10, episode_length=200),
    "MultiarmedBanditMedium-v0": _task("multiarmed_bandit:MultiarmedBandit", num_bandits=20, episode_length=400),
    "MultiarmedBanditHard-v0": _task("multiarmed_bandit:MultiarmedBandit", num_bandits=30, episode_length=600),
    "MineSweeperEasy-v0": _task("mine_sweeper:MineSweeper", difficulty="easy"),
    "MineSweeperMedium-v0": _task("mine_sweeper:MineSweeper", difficulty="medium"),
    "MineSweeperHard-v0": _task("mine_sweeper:MineSweeper", difficulty="hard"),
    "BattleshipEasy-v0": _task("battleship:Battleship", board_size=8),
    "BattleshipMedium-v0": _task("battleship:Battleship", board_size=10),
    "BattleshipHard-v0": _task("battleship:Battleship", board_size=12),
    "LabyrinthExploreEasy-v0": _task("labyrinth:LabyrinthExplore", maze_dims=(10, 10)),
    "LabyrinthExploreMedium-v0": _task("labyrinth:LabyrinthExplore", maze_dims=(14, 14)),
    "LabyrinthExploreHard-v0": _task("labyrinth:LabyrinthExplore", maze_dims=(18, 18)),
    "LabyrinthEscapeEasy-v0": _task("labyrinth:LabyrinthEscape", maze_dims=(10, 10)),
    "LabyrinthEscapeMedium-v0": _task("labyrinth:LabyrinthEscape", maze_dims=(14, 14)),
    "LabyrinthEscapeHard-v0": _task("labyrinth:LabyrinthEscape", maze_dims=(18, 18)),
}
CONTROL: dict[str, Callable[[], Any]] = {
    name: _task(f"control:{kind}", **settings) for name, (kind, settings) in CONTROL_TASKS.items()
}

TASKS = GAMES | CONTROL
"""A function that makes the task, by its name in the released package without `HOST_PREFIX`."""


def device_options(env_id: str) -> Mapping[str, Any]:
    """Options that a task of the released package lacks, with their defaults, as in JSON.

    Args:
        env_id: its id; those of tasks that exist only there have none.
    """
    name = env_id.removeprefix(HOST_PREFIX)
    settings = TASKS[name]().settings if name != env_id and name in TASKS else {}
    return {option: list(value) if isinstance(value, tuple) else value for option, value in settings.items()}
