"""Actions as the agent has them: rows of columns, which a policy chooses, learns from and remembers.

`native_actions.py` makes of a row what an environment takes. Worker processes import both, hence JAX is imported only
where its arrays are made.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from trxl_jax.errors import ConfigError, brief

if TYPE_CHECKING:
    import jax

    Array = TypeVar("Array", jax.Array, np.ndarray)


@dataclasses.dataclass(frozen=True)
class DiscreteActions:
    """Actions i32[..., A]: in each of A branches a choice, counted from 0.

    Fields:
        nvec: number of choices of each branch.
    """

    nvec: tuple[int, ...]

    @property
    def parts(self) -> "tuple[DiscreteActions, ...]":
        """Itself; see `MixedActions`."""
        return (self,)

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

    def split(self, action: "Array") -> "list[Array]":
        """Actions [..., A] as they are; see `MixedActions.split`."""
        return [action]

    def clip(self, action: "Array") -> "Array":
        """Actions [..., A] as they are; see `BoxActions.clip`."""
        return action

    def contains(self, action: "Array") -> Any:
        """bool[...]: whether actions [..., A] lie in the space."""
        inside: Any = (action >= 0) & (action < np.array(self.nvec)) & (action % 1 == 0)
        return inside.all(axis=-1)

    def zeros(self, shape: Sequence[int] = ()) -> "jax.Array":
        """Valid actions i32[*shape, A]."""
        return _zeros(self, shape)

    def to_json(self) -> dict[str, Any]:
        """Inverse of `actions_from_json`."""
        return {"kind": "discrete", "nvec": list(self.nvec)}


@dataclasses.dataclass(frozen=True)
class BoxActions:
    """Actions f32[..., K]: K numbers, all one branch. A policy chooses them without regard to the bounds.

    Fields:
        low: the lowest that the environment takes; minus infinity: there is no bound.
        high: the highest, or infinity.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def parts(self) -> "tuple[BoxActions, ...]":
        """Itself; see `MixedActions`."""
        return (self,)

    @property
    def nvec(self) -> tuple[int, ...]:
        """There are no choices."""
        return ()

    @property
    def num_branches(self) -> int:
        """1."""
        return 1

    @property
    def num_columns(self) -> int:
        """K."""
        return len(self.low)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of action arrays."""
        return np.dtype(np.float32)

    @property
    def storage_dtype(self) -> np.dtype[Any]:
        """The same: a replayed episode needs every bit."""
        return self.dtype

    def __str__(self) -> str:
        bounds = {f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True)}
        return f"{self.num_columns} numbers ({bounds.pop() if len(bounds) == 1 else 'of several ranges'})"

    def split(self, action: "Array") -> "list[Array]":
        """Actions [..., K] as they are; see `MixedActions.split`."""
        return [action]

    def clip(self, action: "Array") -> "Array":
        """Actions f32[..., K] inside the bounds."""
        return action.clip(np.array(self.low, self.dtype), np.array(self.high, self.dtype))

    def contains(self, action: "Array") -> Any:
        """bool[...]: whether actions [..., K] are finite."""
        finite: Any = (action > -np.inf) & (action < np.inf)
        return finite.all(axis=-1)

    def zeros(self, shape: Sequence[int] = ()) -> "jax.Array":
        """Valid actions f32[*shape, K]."""
        return _zeros(self, shape)

    def to_json(self) -> dict[str, Any]:
        """Inverse of `actions_from_json`; JSON has no infinity."""
        low, high = ([bound if math.isfinite(bound) else None for bound in ends] for ends in (self.low, self.high))
        return {"kind": "box", "low": low, "high": high}


@dataclasses.dataclass(frozen=True)
class MixedActions:
    """Actions f32[..., C] of several parts: their columns and their branches follow each other; choices are whole.

    Fields:
        parts: at least two.
    """

    parts: tuple[DiscreteActions | BoxActions, ...]

    @property
    def nvec(self) -> tuple[int, ...]:
        """Number of choices of each branch that has some."""
        return tuple(n for part in self.parts for n in part.nvec)

    @property
    def num_branches(self) -> int:
        """A."""
        return sum(part.num_branches for part in self.parts)

    @property
    def num_columns(self) -> int:
        """C."""
        return sum(part.num_columns for part in self.parts)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of action arrays."""
        return np.dtype(np.float32)

    @property
    def storage_dtype(self) -> np.dtype[Any]:
        """The same: a replayed episode needs every bit."""
        return self.dtype

    def __str__(self) -> str:
        return " and ".join(map(str, self.parts))

    def split(self, action: "Array") -> "list[Array]":
        """The columns [..., c] of each part, in its own dtype."""
        return [columns.astype(part.dtype) for part, columns in zip(self.parts, self._columns(action), strict=True)]

    def clip(self, action: "Array") -> "Array":
        """Actions f32[..., C], numbers inside their bounds."""
        low: list[float] = []
        high: list[float] = []
        for part in self.parts:
            low += part.low if isinstance(part, BoxActions) else [-math.inf] * part.num_columns
            high += part.high if isinstance(part, BoxActions) else [math.inf] * part.num_columns
        return BoxActions(tuple(low), tuple(high)).clip(action)

    def contains(self, action: "Array") -> Any:
        """bool[...]: whether actions [..., C] lie in the parts."""
        inside = [part.contains(columns) for part, columns in zip(self.parts, self._columns(action), strict=True)]
        return np.logical_and.reduce(inside)

    def zeros(self, shape: Sequence[int] = ()) -> "jax.Array":
        """Valid actions f32[*shape, C]."""
        return _zeros(self, shape)

    def to_json(self) -> dict[str, Any]:
        """Inverse of `actions_from_json`."""
        return {"kind": "mixed", "parts": [part.to_json() for part in self.parts]}

    def _columns(self, action: "Array") -> "list[Array]":
        ends = np.cumsum([part.num_columns for part in self.parts]).tolist()
        return [action[..., end - part.num_columns : end] for part, end in zip(self.parts, ends, strict=True)]


ActionSpace = DiscreteActions | BoxActions | MixedActions


def actions_from_json(value: Any) -> ActionSpace:
    """An action space from what `to_json` wrote.

    Raises:
        ConfigError: it is something else.
    """
    match value:
        case {"kind": "discrete", "nvec": [*nvec]} if nvec and all(type(n) is int and 0 < n < 2**31 for n in nvec):
            return DiscreteActions(tuple(nvec))
        case {"kind": "box", "low": [*low], "high": [*high]} if 0 < len(low) == len(high):
            bounds = _bounds(low, -math.inf), _bounds(high, math.inf)
            if all(bottom <= top for bottom, top in zip(*bounds, strict=True)):  # not if one is NaN
                return BoxActions(*bounds)
        case {"kind": "mixed", "parts": [_, _, *_] as parts}:
            read = tuple(map(actions_from_json, parts))
            if not any(isinstance(part, MixedActions) for part in read):
                return MixedActions(read)  # type: ignore[arg-type]
    raise ConfigError(f"unknown action space {brief(value)}")


def _bounds(values: Sequence[Any], absent: float) -> tuple[float, ...]:
    known = (absent if value is None else value for value in values)
    return tuple(float(value) if type(value) in (int, float) else math.nan for value in known)


def _zeros(space: ActionSpace, shape: Sequence[int]) -> "jax.Array":
    import jax.numpy as jnp

    return jnp.zeros((*shape, space.num_columns), space.dtype)
