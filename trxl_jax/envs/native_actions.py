"""An environment's own actions: read from its space, and made of the rows that an agent chooses."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trxl_jax.envs.actions import ActionSpace, BoxActions, DiscreteActions, MixedActions
from trxl_jax.envs.space_kinds import OWN_ID, describe, kinds
from trxl_jax.errors import ConfigError

if TYPE_CHECKING:
    import jax

    Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class _Choices:
    """Whole numbers: a Discrete, MultiDiscrete or MultiBinary space.

    Fields:
        space: of its columns.
        start: [c], what a choice of 0 means, in the dtype of the environment's actions.
        shape: of the environment's action.
    """

    space: DiscreteActions
    start: np.ndarray
    shape: tuple[int, ...]

    def unpack(self, columns: "Array") -> Any:
        # Added last, which makes scalars of NumPy's arrays without an axis: strict environments refuse those.
        shape = (*columns.shape[:-1], *self.shape)
        return _cast(columns, self.start.dtype).reshape(shape) + self.start.reshape(self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class _Numbers:
    """A Box of floats.

    Fields:
        space: of its columns.
        low: [c], in the dtype of the environment's actions.
        high: [c].
        shape: of the environment's action.
    """

    space: BoxActions
    low: np.ndarray
    high: np.ndarray
    shape: tuple[int, ...]

    def unpack(self, columns: "Array") -> Any:
        # Cast first: a bound of float64 may lie between two numbers of float32.
        clipped = _cast(columns, self.low.dtype).clip(self.low, self.high)
        return clipped.reshape((*columns.shape[:-1], *self.shape))


_Leaf = _Choices | _Numbers
_Tree = _Leaf | tuple["_Tree", ...] | dict[Any, "_Tree"]


@dataclasses.dataclass(frozen=True, eq=False)
class NativeActions:
    """The actions of an environment, and how they are made of an agent's.

    Fields:
        space: of the agent's actions.
        names: of the columns, by the names and numbers of the parts of a Dict or Tuple space; None for other spaces.
    """

    space: ActionSpace
    names: tuple[str, ...] | None
    _tree: _Tree

    @classmethod
    def read(cls, space: Any, name: str = "of one's own") -> "NativeActions":
        """The actions of a Gymnasium or gymnax environment.

        Args:
            space: a space of Gymnasium, of gymnax, or of a suite that has gymnax's interface and its own space classes.
            name: of the environment, for the error message.

        Raises:
            ConfigError: the agent can't act in it.
        """
        tree = _read(space)
        leaves = [] if tree is None else list(_leaves(tree))
        if tree is None or not leaves:
            raise ConfigError(
                f"--env_id {name}: actions {describe(space)} are not supported, only Discrete, MultiDiscrete, "
                "MultiBinary and Box ones of floats, and Tuple or Dict of these; make a wrapper that maps such actions "
                f"to them, and {OWN_ID}"
            )
        is_nested = not isinstance(tree, _Leaf)
        return cls(_joined([leaf.space for _, leaf in leaves]), _names(leaves) if is_nested else None, tree)

    def unpack(self, action: "Array") -> Any:
        """Actions as the environment takes them.

        Discrete ones are scalars of the space's dtype, MultiDiscrete, MultiBinary and Box ones arrays of its dtype and
        shape, those of a Tuple or Dict tuples and dicts. Numbers are clipped to their bounds.

        Args:
            action: [..., C] of `space`, NumPy's or JAX's; results have the same leading axes.
        """
        if isinstance(self._tree, _Leaf):
            return self._tree.unpack(action)
        start = 0

        def unpack(leaf: _Leaf) -> Any:
            nonlocal start
            columns = slice(start, start + leaf.space.num_columns)
            start = columns.stop
            return leaf.unpack(action[..., columns])

        return _build(self._tree, unpack)


def _read(space: Any) -> _Tree | None:
    """The tree of a space; None if there is something in it in which the agent can't act."""
    kind, parts = kinds(space), getattr(space, "spaces", None)
    if isinstance(parts, Mapping) and "Dict" in kind:
        known = {key: tree for key, part in parts.items() if (tree := _read(part)) is not None}
        return known if len(known) == len(parts) else None
    if isinstance(parts, Sequence) and "Tuple" in kind:
        found = tuple(tree for part in parts if (tree := _read(part)) is not None)
        return found if len(found) == len(parts) else None
    if "MultiBinary" in kind:
        return _choices(space, np.full(space.shape, 2))
    if "Discrete" in kind or "MultiDiscrete" in kind:
        return _choices(space, np.asarray(space.n if "Discrete" in kind else space.nvec))
    return _numbers(space) if "Box" in kind else None


def _choices(space: Any, nvec: np.ndarray) -> _Choices | None:
    if not nvec.size or nvec.min() < 1:
        return None
    dtype = np.dtype(getattr(space, "dtype", None) or np.int32)
    start = np.broadcast_to(np.asarray(getattr(space, "start", 0), dtype), nvec.shape)
    return _Choices(DiscreteActions(tuple(nvec.ravel().tolist())), start.ravel(), nvec.shape)


def _numbers(space: Any) -> _Numbers | None:
    dtype, shape = np.dtype(getattr(space, "dtype", None) or np.float32), tuple(map(int, space.shape))
    if dtype.kind != "f" or 0 in shape:
        return None
    low, high = (np.broadcast_to(np.asarray(bound, dtype), shape).ravel() for bound in (space.low, space.high))
    # gymnax's spaces say "no bound" by the largest number.
    largest = np.finfo(dtype).max
    low, high = np.where(low <= -largest, -np.inf, low), np.where(high >= largest, np.inf, high)
    if not (low <= high).all():
        return None
    return _Numbers(BoxActions(tuple(low.tolist()), tuple(high.tolist())), low, high, shape)


def _joined(spaces: Sequence[DiscreteActions | BoxActions]) -> ActionSpace:
    """One space of neighbouring columns; choices that follow each other are one part."""
    parts: list[DiscreteActions | BoxActions] = []
    for space in spaces:
        if parts and isinstance(space, DiscreteActions) and isinstance(parts[-1], DiscreteActions):
            parts[-1] = DiscreteActions(parts[-1].nvec + space.nvec)
        else:
            parts.append(space)
    return parts[0] if len(parts) == 1 else MixedActions(tuple(parts))


def _leaves(tree: _Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], _Leaf]]:
    """Each leaf, with the keys that lead to it."""
    if isinstance(tree, _Leaf):
        yield path, tree
        return
    for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _leaves(part, (*path, str(key)))


def _names(leaves: Sequence[tuple[tuple[str, ...], _Leaf]]) -> tuple[str, ...]:
    named = []
    for path, leaf in leaves:
        count = leaf.space.num_columns
        named += [" ".join([*path, *([str(i)] if count > 1 else [])]) for i in range(count)]
    return tuple(named)


def _build(tree: _Tree, make: Callable[[_Leaf], Any]) -> Any:
    if isinstance(tree, _Leaf):
        return make(tree)
    if isinstance(tree, dict):
        return {key: _build(part, make) for key, part in tree.items()}
    return tuple(_build(part, make) for part in tree)


def _cast(x: "Array", dtype: np.dtype[Any]) -> "Array":
    """[...] in a dtype, of JAX's arrays in the one of 32 bits that stands for it."""
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    import jax

    return x.astype(jax.dtypes.canonicalize_dtype(dtype))
