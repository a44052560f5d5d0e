"""MiniGrid: its tasks on the host as the original presents them, and its Memory tasks as pure JAX functions."""

from collections.abc import Mapping
from typing import Any

_SIZES = {
    "MiniGrid-MemoryS7-v0": (7, False),
    "MiniGrid-MemoryS9-v0": (9, False),
    "MiniGrid-MemoryS11-v0": (11, False),
    "MiniGrid-MemoryS13-v0": (13, False),
    "MiniGrid-MemoryS13Random-v0": (13, True),
    "MiniGrid-MemoryS17Random-v0": (17, True),
}
NAMES = tuple(_SIZES)
"""Ids of the tasks that exist on the device, as in the released package."""


def find_task(name: str) -> Any:
    """A task on the device, with default options.

    Args:
        name: one of `NAMES`.
    """
    from trxl_jax.envs.tasks.minigrid.memory import MiniGridMemory  # here: worker processes do without JAX

    size, random_length = _SIZES[name]
    return MiniGridMemory(name, size, random_length=random_length)


def device_options(name: str) -> Mapping[str, Any]:
    """Options that a task on the host lacks, with their defaults; none if `name` isn't one of `NAMES`."""
    return {"in_sight": False} if name in NAMES else {}
