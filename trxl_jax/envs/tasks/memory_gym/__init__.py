"""Memory Gym's tasks as pure JAX functions, bit for bit equal to the released package; see docs/environments.md."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

_TASKS = {
    "MortarMayhem-Grid-v0": "mortar_mayhem:MortarMayhemGrid",
    "MortarMayhem-v0": "mortar_mayhem:MortarMayhem",
    "Endless-MortarMayhem-v0": "endless_mortar_mayhem:EndlessMortarMayhem",
    "MysteryPath-Grid-v0": "mystery_path:MysteryPathGrid",
    "MysteryPath-v0": "mystery_path:MysteryPath",
    "Endless-MysteryPath-v0": "endless_mystery_path:EndlessMysteryPath",
    "SearingSpotlights-v0": "searing_spotlights:SearingSpotlights",
    "Endless-SearingSpotlights-v0": "endless_searing_spotlights:EndlessSearingSpotlights",
}
NAMES = tuple(_TASKS)
"""Task ids, as in the released package."""


def find_task(name: str) -> Any:
    """Imports and returns the class of a task.

    Args:
        name: one of `NAMES`.
    """
    module, _, kind = _TASKS[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), kind)


def device_options(name: str) -> Mapping[str, Any]:
    """Options of a task that the package doesn't have, with their defaults; none if `name` isn't one of `NAMES`."""
    return find_task(name).own_options if name in NAMES else {}
