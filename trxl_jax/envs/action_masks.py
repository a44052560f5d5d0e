"""Masks of valid actions, which travel as one more array of the observations. Doesn't use JAX at import."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trxl_jax.envs.actions import ActionSpace
from trxl_jax.envs.observations import ArraySpace, DictSpace, ObservationSpace, arrays_of
from trxl_jax.envs.space_kinds import kinds
from trxl_jax.errors import ConfigError

MASK = "action_mask"
"""Name of the mask among the arrays of an observation."""

ALONE = "observation"
"""Name of what would be the only array without a mask."""


def split_space(space: Any, key: str) -> tuple[Any, bool]:
    """A native Dict space without the entry `key`, and whether it had one; other spaces as they are."""
    parts: Any = getattr(space, "spaces", None)
    if "Dict" not in kinds(space) or key not in parts:
        return space, False
    return type(space)({name: part for name, part in parts.items() if name != key}), True


def with_mask(space: ObservationSpace, size: int, key: str) -> DictSpace:
    """The observations with a mask u8[size] beside them.

    Raises:
        ConfigError: they have an array of this name already.
    """
    arrays = {name or ALONE: array for name, array in space.arrays.items()}
    if MASK in arrays:
        raise ConfigError(f"--action_mask_key {key}: the observations have another entry {MASK}")
    mask = ArraySpace("mask", (size,), np.dtype(np.uint8))
    return DictSpace(tuple(sorted((arrays | {MASK: mask}).items())))


def add_mask(obs: Any, mask: Any) -> dict[str, Any]:
    """An observation [..., *obs_shape] with its mask u8[..., sum(nvec)]."""
    return {name or ALONE: array for name, array in arrays_of(obs).items()} | {MASK: mask}


def nvec_to_mask(action: ActionSpace, key: str, env_name: str) -> tuple[int, ...]:
    """Numbers of choices of the branches that a mask covers.

    Raises:
        ConfigError: there is none.
    """
    if not action.nvec:
        raise ConfigError(f"--action_mask_key {key}: {env_name} has no discrete actions; leave it out")
    return action.nvec


def read_mask(value: Any, nvec: Sequence[int]) -> np.ndarray:
    """A mask u8[sum(nvec)], branches concatenated.

    Args:
        value: what the environment gives: numbers [sum(nvec)] that are true where a choice is valid, or a tuple of one
            such array [nvec[i]] for each branch.
        nvec: number of choices of each branch.

    Raises:
        ValueError: it has another shape, or a branch has no valid choice.
    """
    parts = value if isinstance(value, tuple | list) and len(value) == len(nvec) > 1 else (value,)
    mask = np.concatenate([np.asarray(part).reshape(-1) for part in parts]).astype(bool)
    if mask.shape != (sum(nvec),):
        raise ValueError(f"the action mask has {mask.size} elements for {sum(nvec)} choices")
    branches = np.split(mask, np.cumsum(nvec)[:-1])
    empty = [i for i, branch in enumerate(branches) if not branch.any()]
    if empty:
        which = "" if len(nvec) == 1 else f" in branch {empty[0]}"
        raise ValueError(f"the action mask allows nothing{which}; a step must have a valid action")
    return mask.astype(np.uint8)
