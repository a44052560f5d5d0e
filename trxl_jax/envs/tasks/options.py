"""Reads and checks the options of a task on the device (`--env_options`).

For Memory Gym these are the options of `reset`; values that it accepts but then crashes or hangs on are rejected here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trxl_jax.errors import ConfigError, brief

MAX_FLOAT = float(np.finfo(np.float32).max)
MAX_INT = 10**9
"""Upper limit of integers; counters are i32."""


class Options:
    """The options of one task. Each is checked when it is read.

    Args:
        given: options by name.
        defaults: all options of the task with their defaults.

    Raises:
        ConfigError: an unknown option. Every method raises it for an invalid value, in one line that names the option.
    """

    def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        for name in given:
            if name not in defaults:
                raise ConfigError(
                    f"--env_options: unknown option {brief(name)}; this task has {', '.join(sorted(defaults))}"
                )
        self._values = {**defaults, **given}
        self._defaults = defaults

    def has(self, name: str) -> bool:
        """Whether the task has this option."""
        return name in self._defaults

    def require_default(self, *names: str) -> None:
        """Checks that options have their default: other values have no sprites, or Memory Gym fails with them."""
        for name in names:
            if self._values[name] != self._defaults[name]:
                only = self._defaults[name]
                raise ConfigError(f"--env_options: {name} can only be {only!r} on the device; use --backend host")

    def boolean(self, name: str) -> bool:
        """Reads a boolean."""
        value = self._values[name]
        if not isinstance(value, bool | np.bool_):
            raise self.invalid(name, "true or false")
        return bool(value)

    def number(self, name: str, low: float = -MAX_FLOAT, high: float = MAX_FLOAT) -> float:
        """Reads a finite number from `low` to `high`."""
        value = self._values[name]
        if not _is_number(value) or not low <= value <= high:
            raise self.invalid(name, "a number" + _limits(low, high))
        return float(value)

    def positive(self, name: str) -> float:
        """Reads a finite number above 0."""
        value = self.number(name)
        if value <= 0:
            raise self.invalid(name, "a number above 0")
        return value

    def integer(self, name: str, low: int, high: int = MAX_INT) -> int:
        """Reads a whole number from `low` to `high`; floats such as 3.0 are allowed."""
        value = self._values[name]
        if not _is_whole(value) or not low <= value <= high:
            raise self.invalid(name, "a whole number" + _limits(low, high))
        return int(value)

    def step_limit(self, name: str) -> int:
        """Reads a number of steps: at least 1, or -1 for no limit."""
        value = self._values[name]
        if not _is_whole(value) or not (1 <= value <= MAX_INT or value == -1):
            raise self.invalid(name, f"a whole number{_limits(1, MAX_INT)}, or -1 for no limit")
        return int(value)

    def choice(self, name: str, *allowed: str) -> str:
        """Reads one of the allowed words."""
        value = self._values[name]
        if value not in allowed:
            raise self.invalid(name, "one of " + ", ".join(allowed))
        return str(value)

    def integer_list(self, name: str, low: int, high: int) -> list[int]:
        """Reads a list of whole numbers from `low` to `high`, from which each reset samples uniformly."""
        return self._list(name, lambda x: low <= x <= high, _limits(low, high))

    def integer_list_among(self, name: str, allowed: Sequence[int]) -> list[int]:
        """Reads a list of whole numbers among `allowed`, from which each reset samples uniformly."""
        return self._list(name, lambda x: x in allowed, f" among {', '.join(map(str, allowed))}")

    def integers(self, name: str, low: int, high: int, wanted: str) -> list[int]:
        """Reads a list of whole numbers from `low` to `high`, all of which are used; `wanted` describes it."""
        values = self._values[name]
        is_list = isinstance(values, list | tuple | np.ndarray)
        if not is_list or not all(_is_whole(x) and low <= x <= high for x in values):
            raise self.invalid(name, wanted)
        return [int(x) for x in values]

    def invalid(self, name: str, wanted: str) -> ConfigError:
        """The error to raise for an option's value; `wanted` describes valid values."""
        return ConfigError(f"--env_options: {name} must be {wanted}, not {brief(self._values[name])}")

    def _list(self, name: str, fits: Any, limits: str) -> list[int]:
        values = self._values[name]
        is_list = isinstance(values, list | tuple | np.ndarray) and len(values) > 0
        if not is_list or not all(_is_whole(x) and fits(x) for x in values):
            raise self.invalid(name, f"a list of whole numbers{limits} to choose from, such as {self._defaults[name]}")
        return [int(x) for x in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value == math.floor(value)


def _limits(low: float, high: float) -> str:
    if low == -MAX_FLOAT:
        return "" if high == MAX_FLOAT else f" up to {high:g}"
    return f" from {low:g}" if high == MAX_FLOAT else f" from {low:g} to {high:g}"
