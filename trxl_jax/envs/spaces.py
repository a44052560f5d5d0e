"""Observation and action spaces of Gymnasium and gymnax, read into what the agent needs to know of them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.errors import ConfigError, brief

IMAGE_SHAPE = (84, 84, 3)
_OWN_ID = "register the result as an id of your own (--env_id module:id) or pass it to trxl_jax.train as `env`"

Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class DiscreteActions:
    """Actions i32[..., A]: in each of A branches a choice, counted from 0.

    Fields:
        nvec: number of choices of each branch.
    """

    nvec: tuple[int, ...]

    @property
    def num_branches(self) -> int:
        """A: parts of an action that have a log-probability of their own."""
        return len(self.nvec)

    @property
    def num_columns(self) -> int:
        """Length of the last axis of an action array."""
        return len(self.nvec)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of action arrays."""
        return np.dtype(np.int32)

    @property
    def storage_dtype(self) -> np.dtype[Any]:
        """The smallest dtype that holds every action."""
        return np.min_scalar_type(max(self.nvec))

    def __str__(self) -> str:
        return str(self.nvec)

    def for_environment(self, action: Any) -> Any:
        """Actions [..., A] as environments take them: those of a single branch as scalars [...].

        Strict environments refuse arrays of one element, and gymnax's index with scalars.
        """
        return action if self.num_branches > 1 else action[..., 0]

    def contains(self, action: Array) -> Any:
        """bool[...]: whether actions [..., A] lie in the space."""
        inside: Array = (action >= 0) & (action < np.array(self.nvec))
        return inside.all(axis=-1)

    def zeros(self, shape: Sequence[int] = ()) -> jax.Array:
        """Valid actions i32[*shape, A]."""
        return jnp.zeros((*shape, self.num_columns), self.dtype)

    def to_json(self) -> dict[str, Any]:
        """Inverse of `actions_from_json`."""
        return {"kind": "discrete", "nvec": list(self.nvec)}


def actions_from_json(value: Any) -> DiscreteActions:
    """An action space from what `to_json` wrote.

    Raises:
        ConfigError: it is something else.
    """
    match value:
        case {"kind": "discrete", "nvec": [*nvec]} if nvec and all(type(n) is int and 0 < n < 2**31 for n in nvec):
            return DiscreteActions(tuple(nvec))
    raise ConfigError(f"unknown action space {brief(value)}")


def read_action_space(name: str, space: Any) -> DiscreteActions:
    """The action space of a Gymnasium or gymnax environment.

    Args:
        name: of the environment, for the error message.
        space: a space of Gymnasium, of gymnax, or of a suite that has gymnax's interface and its own space classes.

    Raises:
        ConfigError: the agent can't act in it.
    """
    kinds = _kinds(space)
    if "Discrete" in kinds:
        return DiscreteActions((int(space.n),))
    if "MultiDiscrete" in kinds and np.asarray(space.nvec).ndim == 1:
        return DiscreteActions(tuple(int(n) for n in np.asarray(space.nvec)))
    raise ConfigError(
        f"--env_id {name}: actions {_describe(space)} are not supported, only Discrete and MultiDiscrete ones; make a "
        f"wrapper that maps choices to such actions, and {_OWN_ID}"
    )


def read_observation_space(name: str, space: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the observations: float32 vectors or 84x84x3 uint8 images.

    Args:
        name: of the environment, for the error message.
        space: as for `read_action_space`.

    Raises:
        ConfigError: the agent can't take them.
    """
    shape = tuple(int(n) for n in getattr(space, "shape", None) or ())
    dtype = np.dtype(getattr(space, "dtype", None) or np.float32)
    if "Box" in _kinds(space) and len(shape) == 1 and math.prod(shape) > 0:
        return shape, np.dtype(np.float32)
    if "Box" in _kinds(space) and shape == IMAGE_SHAPE and dtype == np.uint8:
        return shape, dtype
    raise ConfigError(
        f"--env_id {name}: observations {_describe(space)} are not supported, only vectors and 84x84x3 uint8 images; "
        f"{_conversion(space)}, and {_OWN_ID}"
    )


def _describe(space: Any) -> str:
    """A space's kind with its shape and dtype, or with its parts."""
    kind = type(space).__name__
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping):
        return f"{kind}({', '.join(f'{name}: {_describe(part)}' for name, part in parts.items())})"
    if isinstance(parts, Sequence):
        return f"{kind}({', '.join(map(_describe, parts))})"
    if "Discrete" in _kinds(space):
        return f"{kind}({space.n})"
    shape, dtype = getattr(space, "shape", None), getattr(space, "dtype", None)
    return (
        kind if shape is None else f"{kind}({'x'.join(map(str, shape)) or 'no axis'}, {np.dtype(dtype or np.float32)})"
    )


def _conversion(space: Any) -> str:
    """What makes vectors or images of a space's elements."""
    shape: tuple[int, ...] = getattr(space, "shape", None) or ()
    if len(shape) == 3 and shape[-1] == 3 and np.dtype(space.dtype) == np.uint8:
        return "resize them (gymnasium.wrappers.ResizeObservation)"
    if getattr(space, "is_np_flattenable", False):
        return "flatten them (gymnasium.wrappers.FlattenObservation)"
    return "make vectors of them in a wrapper"


def _kinds(space: Any) -> set[str]:
    """Names of a space's class and its bases: suites with gymnax's interface bring classes of their own."""
    return {kind.__name__ for kind in type(space).__mro__}
