"""Random action spaces, rows and actions, and a score that says how good an action is."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from trxl_jax.envs.actions import ActionSpace, DiscreteActions
from trxl_jax.envs.space_kinds import kinds

FLOATS = (np.float16, np.float32, np.float64)
INTEGERS = (np.int8, np.int32, np.int64, np.uint8)


def random_space(rng: np.random.Generator, depth: int = 2) -> spaces.Space:
    """A space of Gymnasium in which the agent can act, with at most `depth` spaces around its leaves."""
    kind = rng.choice(["leaf", "tuple", "dict"]) if depth else "leaf"
    count = int(rng.integers(1, 4))
    if kind == "tuple":
        return spaces.Tuple([random_space(rng, depth - 1) for _ in range(count)])
    if kind == "dict":
        return spaces.Dict({f"part {i}": random_space(rng, depth - 1) for i in range(count)})
    shape = tuple(rng.integers(1, 4, rng.integers(1, 4)).tolist())
    leaves = {
        "discrete": lambda: spaces.Discrete(
            int(rng.integers(1, 6)), start=int(rng.integers(0, 9)), dtype=rng.choice(INTEGERS)
        ),
        "multi discrete": lambda: spaces.MultiDiscrete(
            rng.integers(1, 6, shape), dtype=(dtype := rng.choice(INTEGERS)), start=rng.integers(0, 9, shape, dtype)
        ),
        "multi binary": lambda: spaces.MultiBinary(shape),
        "box": lambda: _random_box(rng, shape if rng.integers(3) else ()),
    }
    return leaves[rng.choice(list(leaves))]()


def _random_box(rng: np.random.Generator, shape: tuple[int, ...]) -> spaces.Box:
    """Each element is free, bounded at one end or both, or has one value only."""
    dtype = rng.choice(FLOATS)
    low, width = rng.normal(0, 2, shape).astype(dtype), rng.exponential(1, shape).astype(dtype)
    high = low + width * rng.integers(0, 2, shape).astype(dtype)
    low, high = np.where(rng.integers(4, size=shape), low, -np.inf), np.where(rng.integers(4, size=shape), high, np.inf)
    return spaces.Box(low.astype(dtype), high.astype(dtype), shape, dtype)


def random_rows(space: ActionSpace, rng: np.random.Generator, count: int) -> np.ndarray:
    """Actions [count, C], as a policy might choose them: numbers pass their bounds."""
    columns = [
        rng.integers(0, part.nvec, (count, part.num_columns))
        if isinstance(part, DiscreteActions)
        else rng.normal(0, 3, (count, part.num_columns))
        for part in space.parts
    ]
    return np.concatenate(columns, axis=1).astype(space.dtype)


def score(space: Any, action: Any, cue: Any) -> Any:
    """How near an environment's action is to the best one, which depends on a cue of 1 or -1; at most 1, the mean.

    The best choice is the last with cue 1, otherwise the first. The best number is half of the cue, inside its bounds.
    """
    marks = [
        np.mean(mark) if isinstance(mark, np.ndarray | np.generic) else mark.mean()
        for mark in _marks(space, action, cue)
    ]
    return sum(marks) / len(marks)


def _marks(space: Any, action: Any, cue: Any) -> Iterator[Any]:
    found = kinds(space)
    if found & {"Tuple", "Dict"}:
        parts = list(space.spaces.items() if "Dict" in found else enumerate(space.spaces))
        assert len(action) == len(parts)
        for key, part in parts:
            yield from _marks(part, action[key], cue)
    elif "Box" in found:
        yield 1 - abs(action - (0.5 * cue + 0 * action).clip(space.low, space.high)).clip(0, 1)
    else:
        last = (2 if "MultiBinary" in found else space.n if "Discrete" in found else space.nvec) - 1
        yield 1.0 * (action - getattr(space, "start", 0) == last * (cue > 0))
