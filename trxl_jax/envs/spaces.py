"""Observation spaces of Gymnasium and gymnax, read into what the agent needs to know of them."""

import math
from typing import Any

import numpy as np

from trxl_jax.envs.space_kinds import describe, kinds
from trxl_jax.errors import ConfigError

IMAGE_SHAPE = (84, 84, 3)
_OWN_ID = "register the result as an id of your own (--env_id module:id) or pass it to trxl_jax.train as `env`"


def read_observation_space(name: str, space: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the observations: float32 vectors or 84x84x3 uint8 images.

    Args:
        name: of the environment, for the error message.
        space: a space of Gymnasium, of gymnax, or of a suite that has gymnax's interface and its own space classes.

    Raises:
        ConfigError: the agent can't take them.
    """
    shape = tuple(int(n) for n in getattr(space, "shape", None) or ())
    dtype = np.dtype(getattr(space, "dtype", None) or np.float32)
    if "Box" in kinds(space) and len(shape) == 1 and math.prod(shape) > 0:
        return shape, np.dtype(np.float32)
    if "Box" in kinds(space) and shape == IMAGE_SHAPE and dtype == np.uint8:
        return shape, dtype
    raise ConfigError(
        f"--env_id {name}: observations {describe(space)} are not supported, only vectors and 84x84x3 uint8 images; "
        f"{_conversion(space)}, and {_OWN_ID}"
    )


def _conversion(space: Any) -> str:
    """What makes vectors or images of a space's elements."""
    shape: tuple[int, ...] = getattr(space, "shape", None) or ()
    if len(shape) == 3 and shape[-1] == 3 and np.dtype(space.dtype) == np.uint8:
        return "resize them (gymnasium.wrappers.ResizeObservation)"
    if getattr(space, "is_np_flattenable", False):
        return "flatten them (gymnasium.wrappers.FlattenObservation)"
    return "make vectors of them in a wrapper"
