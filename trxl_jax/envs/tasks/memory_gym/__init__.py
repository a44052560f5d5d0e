"""Memory Gym's tasks as pure functions of arrays, equal to the released package's: see docs/environments.md.

`environment` says what a task is, `drawing` and `sprites` how it is drawn; each family has modules of its own.
"""

from importlib import import_module
from typing import Any

_TASKS = {
    "MortarMayhem-Grid-v0": "mortar_mayhem:MortarMayhemGrid",
    "MortarMayhem-v0": "mortar_mayhem:MortarMayhem",
    "Endless-MortarMayhem-v0": "mortar_mayhem:EndlessMortarMayhem",
    "MysteryPath-Grid-v0": "mystery_path:MysteryPathGrid",
    "MysteryPath-v0": "mystery_path:MysteryPath",
    "Endless-MysteryPath-v0": "endless_mystery_path:EndlessMysteryPath",
    "SearingSpotlights-v0": "searing_spotlights:SearingSpotlights",
    "Endless-SearingSpotlights-v0": "endless_searing_spotlights:EndlessSearingSpotlights",
}
NAMES = tuple(_TASKS)
"""Ids of the tasks, which are those of the released package."""


def find_task(name: str) -> Any:
    """The class of the task of that name, one of `NAMES`; imports what it needs only now."""
    module, _, kind = _TASKS[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), kind)
