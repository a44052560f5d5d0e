"""Observations as the agent gets them: one array, or several with names, read from any nested space.

Worker processes import this module, hence it doesn't use JAX; `convert` takes JAX's arrays as well as NumPy's.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from trxl_jax.envs.space_kinds import OWN_ID, describe, kinds
from trxl_jax.errors import ConfigError, brief

Path = tuple[str | int, ...]

_KINDS = ("picture", "numbers", "choices", "mask")
_MAX_NUMBERS = 2**20
_MAX_CHOICES = 2**16


@dataclasses.dataclass(frozen=True)
class ArraySpace:
    """One array of an observation.

    Fields:
        kind: "picture", "numbers", "choices" (whole numbers from 0, each one of so many) or "mask" (of actions).
        shape: its shape; of pictures (H, W), (H, W, C) or (C, H, W).
        dtype: uint8 or float32 of pictures, float32 of numbers, int32 of choices, uint8 of masks.
        nvec: of choices, how many each element has, elements in C order; otherwise empty.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nvec: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def arrays(self) -> dict[str, "ArraySpace"]:
        """Itself, by the name "" of an observation that is a single array."""
        return {"": self}

    def build(self, make: Callable[["ArraySpace"], Any]) -> Any:
        """What `make` returns for it."""
        return make(self)

    def __str__(self) -> str:
        return f"{self.kind} {'x'.join(map(str, self.shape)) or 'without an axis'}"

    def to_json(self) -> dict[str, Any]:
        """Inverse of `observations_from_json`."""
        nvec = {"nvec": list(self.nvec)} if self.nvec else {}
        return {"kind": self.kind, "shape": list(self.shape), "dtype": self.dtype.name} | nvec


@dataclasses.dataclass(frozen=True)
class DictSpace:
    """Several arrays; an observation is a dict of them.

    Fields:
        parts: pairs of a name and an array, sorted by name.
    """

    parts: tuple[tuple[str, ArraySpace], ...]

    @property
    def arrays(self) -> dict[str, ArraySpace]:
        """The arrays by name."""
        return dict(self.parts)

    def build(self, make: Callable[[ArraySpace], Any]) -> dict[str, Any]:
        """What `make` returns for each array, by name."""
        return {name: make(array) for name, array in self.parts}

    def __str__(self) -> str:
        return "(" + ", ".join(f"{name}: {array}" for name, array in self.parts) + ")"

    def to_json(self) -> dict[str, Any]:
        """Inverse of `observations_from_json`."""
        return {"kind": "dict", "parts": {name: array.to_json() for name, array in self.parts}}


ObservationSpace = ArraySpace | DictSpace


def numbers(*shape: int) -> ArraySpace:
    """f32[*shape]."""
    return ArraySpace("numbers", shape, np.dtype(np.float32))


def picture(*shape: int, dtype: Any = np.uint8) -> ArraySpace:
    """Pixels [*shape], uint8 or float32."""
    return ArraySpace("picture", shape, np.dtype(dtype))


PICTURE_84 = picture(84, 84, 3)
"""What the original's agents see in tasks with pictures."""


def choices(nvec: Sequence[int], shape: Sequence[int] | None = None) -> ArraySpace:
    """i32[*shape], one of `nvec[i]` each; without a shape i32[len(nvec)]."""
    shape = (len(nvec),) if shape is None else tuple(shape)
    return ArraySpace("choices", shape, np.dtype(np.int32), tuple(nvec))


def arrays_of(obs: Any) -> dict[str, Any]:
    """The arrays [..., *shape] of an observation by name; "" is the name of a single array."""
    return dict(obs) if isinstance(obs, Mapping) else {"": obs}


def map_arrays(function: Callable[..., Any], obs: Any, *others: Any) -> Any:
    """What a function returns for each array [..., *shape] of an observation, and for those of others like it."""
    if not isinstance(obs, Mapping):
        return function(obs, *others)
    return {name: function(array, *(other[name] for other in others)) for name, array in obs.items()}


def observations_from_json(value: Any) -> ObservationSpace:
    """An observation space from what `to_json` wrote.

    Raises:
        ConfigError: it is something else.
    """
    match value:
        case {"kind": "dict", "parts": dict(parts)} if parts:
            arrays = {str(name): observations_from_json(part) for name, part in parts.items()}
            if all(isinstance(array, ArraySpace) for array in arrays.values()):
                return DictSpace(tuple(sorted(arrays.items())))  # type: ignore[arg-type]
        case {"kind": str(kind), "shape": [*shape], "dtype": "uint8" | "float32" | "int32" as dtype}:
            nvec = value.get("nvec", [])
            sizes = [*shape, *nvec] if isinstance(nvec, list) else [None]
            if kind in _KINDS and all(type(n) is int and 0 < n < 2**31 for n in sizes):
                array = ArraySpace(kind, tuple(shape), np.dtype(dtype), tuple(nvec))
                if len(nvec) == (array.size if kind == "choices" else 0):
                    return array
    raise ConfigError(f"unknown observations {brief(value)}")


class Place(NamedTuple):
    """Where one array lies in an environment's own observations, and how it is taken from there.

    Fields:
        path: keys and indices that lead to it.
        array: what the agent gets.
        start: the lowest of an environment's own choices, which become 0; otherwise 0.
        low: the least of the values that the agent gets, of the array's shape; None of pictures.
        high: the largest.
    """

    path: Path
    array: ArraySpace
    start: np.ndarray | int = 0
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class ObservationReader:
    """Takes the arrays out of an environment's own observations.

    Fields:
        space: what the agent gets.
        places: where its arrays lie, in the order of `space.arrays`.
    """

    space: ObservationSpace
    places: tuple[Place, ...]

    def read(self, obs: Any) -> Any:
        """Copies of the arrays [*shape] of an observation, as NumPy arrays, checked.

        Raises:
            ValueError: an array is missing, or has another shape or type, or numbers that are not finite.
        """
        if isinstance(self.space, ArraySpace):
            return _checked(self.places[0], "observation", _find(obs, self.places[0].path))
        named = zip(self.space.arrays, self.places, strict=True)
        return {name: _checked(place, f"observation {name!r}", _find(obs, place.path)) for name, place in named}

    def convert(self, obs: Any) -> Any:
        """The arrays [..., *shape] of observations with any leading axes, unchecked; of JAX's arrays too."""
        found = [
            (_find(obs, place.path) - place.start if np.any(place.start) else _find(obs, place.path)).astype(
                place.array.dtype
            )
            for place in self.places
        ]
        return found[0] if isinstance(self.space, ArraySpace) else dict(zip(self.space.arrays, found, strict=True))

    def bounds(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Lowest and highest values [*shape] of the arrays of numbers, by name."""
        numbers = [pair for pair in zip(self.space.arrays, self.places, strict=True) if pair[1].array.kind == "numbers"]
        return {name: (np.asarray(place.low), np.asarray(place.high)) for name, place in numbers}


def read_observation_space(name: str, space: Any) -> ObservationReader:
    """How the agent takes the observations of a Gymnasium or gymnax environment.

    - Three axes, or two of uint8, or two of at least 36: a picture. uint8 or else float32.
    - Discrete and MultiDiscrete: choices.
    - Other Boxes and MultiBinary: numbers in float32.
    - Dict and Tuple, at any depth: the arrays in them; a single one stands for itself.

    Args:
        name: of the environment, for the error message.
        space: a space of Gymnasium, of gymnax, or of a suite that has gymnax's interface and its own space classes.

    Raises:
        ConfigError: the agent can't take them.
    """
    places = [_place(name, path, part, space) for path, part in leaves(space)]
    if not places:
        raise ConfigError(f"--env_id {name}: observations {describe(space)} hold nothing")
    if len(places) == 1:
        return ObservationReader(places[0].array, tuple(places))
    named = sorted(zip(_names([place.path for place in places]), places, strict=True), key=lambda pair: pair[0])
    arrays = tuple((array_name, place.array) for array_name, place in named)
    return ObservationReader(DictSpace(arrays), tuple(place for _, place in named))


def leaves(space: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All spaces in a space that are neither a Dict nor a Tuple, and the keys and indices that lead to them."""
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping):
        for key, part in parts.items():
            yield from leaves(part, (*path, key))
    elif isinstance(parts, Sequence) and "OneOf" not in kinds(space):
        for i, part in enumerate(parts):
            yield from leaves(part, (*path, i))
    else:
        yield path, space


def _place(name: str, path: Path, space: Any, whole: Any) -> Place:
    found = kinds(space)
    shape = tuple(int(n) for n in getattr(space, "shape", None) or ())
    refused = f"--env_id {name}: observations {describe(whole)} are not supported"
    if "Discrete" in found or "MultiDiscrete" in found:
        nvec = np.asarray(space.n if "Discrete" in found else space.nvec)
        if not 0 < nvec.sum() <= _MAX_CHOICES:
            raise ConfigError(f"{refused}: {nvec.sum():,} choices are too many; {_advice()}")
        start = np.asarray(0 if getattr(space, "start", None) is None else space.start)
        array = choices(nvec.reshape(-1).tolist(), nvec.shape)
        return Place(path, array, start if start.any() else 0, np.zeros_like(nvec), nvec - 1)
    if "MultiBinary" in found and math.prod(shape) > 0:
        return Place(path, numbers(*shape), 0, np.zeros(shape), np.ones(shape))
    if "Box" not in found or math.prod(shape) == 0:
        raise ConfigError(f"{refused}: the agent takes pictures, numbers and choices; {_advice()}")
    dtype = np.dtype(getattr(space, "dtype", None) or np.float32)
    if dtype.kind not in "biuf":
        raise ConfigError(f"{refused}: {dtype} is no type of real numbers; {_advice()}")
    if math.prod(shape) > _MAX_NUMBERS:
        raise ConfigError(f"{refused}: {math.prod(shape):,} numbers are too many; {_advice()}")
    if len(shape) == 3 or (len(shape) == 2 and (dtype == np.uint8 or min(shape) >= 36)):
        return Place(path, picture(*shape, dtype=np.uint8 if dtype == np.uint8 else np.float32))
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), shape) for bound in (space.low, space.high))
    return Place(path, numbers(*shape), 0, low, high)


def _advice() -> str:
    return f"make such of them in a wrapper, and {OWN_ID}"


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each path, of letters, digits and underscores: names of parameters and of files are made of them."""
    found: list[str] = []
    for path in paths:
        name = re.sub(r"\W", "_", "_".join(map(str, path)), flags=re.ASCII) or "_"
        candidates = (name, *(f"{name}_{i}" for i in range(2, len(paths) + 2)))
        found.append(next(candidate for candidate in candidates if candidate not in found))
    return found


def _find(obs: Any, path: Path) -> Any:
    for key in path:
        try:
            obs = obs[key]
        except (KeyError, IndexError, TypeError):
            where = "".join(f"[{step!r}]" for step in path)
            raise ValueError(f"the observation has no {where}, but its space has") from None
    return obs


def _checked(place: Place, what: str, value: Any) -> np.ndarray:
    array = place.array
    found = np.asarray(value)
    if found.shape != array.shape:
        raise ValueError(f"{what} of shape {found.shape} in a space of shape {array.shape}")
    if array.dtype == np.uint8:
        if found.dtype != np.uint8:
            raise ValueError(f"{what} of {found.dtype} in a space of uint8")
        return found.copy()
    if found.dtype.kind not in ("biu" if array.kind == "choices" else "biuf"):
        raise ValueError(f"{what} of {found.dtype} in a space of {'whole ' * (array.kind == 'choices')}numbers")
    if array.kind == "choices":
        cast = np.asarray(found - place.start)
        if (cast < place.low).any() or (cast > place.high).any():
            raise ValueError(f"{what} is {brief(found.tolist())}, which its space does not contain")
        return cast.astype(np.int32)
    if found.dtype == np.float32:
        cast = found.copy()
    else:
        with np.errstate(over="ignore"):
            cast = found.astype(np.float32)
    finite = np.isfinite(cast)
    if not finite.all():
        i = np.unravel_index(int(np.argmin(finite)), finite.shape)
        where = ", ".join(map(str, i)) or "0"
        raise ValueError(f"element {where} of the {what} is {found[i]:g}, which is no finite float32")
    return cast
