"""T-Maze (Ni et al. 2023) for Gymnasium (host) and gymnax (device)."""

from typing import Any

NAMES = ("TMaze-v0",)
"""Ids of the tasks on the device."""


def find_task(name: str) -> Any:
    """The task on the device, with default options.

    Args:
        name: one of `NAMES`.
    """
    from trxl_jax.envs.tasks.t_maze.device import TMaze  # here: worker processes do without JAX

    assert name in NAMES
    return TMaze()
