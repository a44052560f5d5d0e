"""Memory Gym's reset options as users write them, checked for what it would take and then crash or hang on."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trxl_jax.errors import ConfigError

LARGEST = float(np.finfo(np.float32).max)
MOST = 10**9
"""Counters are i32."""


class Options:
    """Options of one task, those left out filled in; each is checked as it is read.

    Args:
        given: names and values as Memory Gym's `reset` takes them.
        defaults: every option of the task and what it is by default.

    Raises:
        ConfigError: from every method, in one line that names the option; here, an option that the task doesn't have.
    """

    def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        for name in given:
            if name not in defaults:
                raise ConfigError(
                    f"--env_options: unknown option {name!r}; this task has {', '.join(sorted(defaults))}"
                )
        self._values = {**defaults, **given}
        self._defaults = defaults

    def has(self, name: str) -> bool:
        """Whether the task has such an option."""
        return name in self._defaults

    def fixed(self, *names: str) -> None:
        """Refuses what is not the default, for which there are sprites or an original that works."""
        for name in names:
            if self._values[name] != self._defaults[name]:
                only = self._defaults[name]
                raise ConfigError(f"--env_options: {name} can only be {only!r} on the device; use --backend host")

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._values[name]
        if not isinstance(value, bool | np.bool_):
            raise self.refusal(name, "true or false")
        return bool(value)

    def number(self, name: str, low: float = -LARGEST, high: float = LARGEST) -> float:
        """A finite number in low..high."""
        value = self._values[name]
        if not _is_number(value) or not low <= value <= high:
            raise self.refusal(name, "a number" + _limits(low, high))
        return float(value)

    def positive(self, name: str) -> float:
        """A finite number above 0."""
        value = self.number(name)
        if value <= 0:
            raise self.refusal(name, "a number above 0")
        return value

    def whole(self, name: str, low: int, high: int = MOST) -> int:
        """A whole number in low..high."""
        value = self._values[name]
        if not _is_whole(value) or not low <= value <= high:
            raise self.refusal(name, "a whole number" + _limits(low, high))
        return int(value)

    def limit(self, name: str) -> int:
        """A number of steps of at least 1, or -1 for no limit."""
        value = self._values[name]
        if not _is_whole(value) or not (1 <= value <= MOST or value == -1):
            raise self.refusal(name, f"a whole number{_limits(1, MOST)}, or -1 for no limit")
        return int(value)

    def choices(self, name: str, low: int, high: int) -> list[int]:
        """A list that resets choose from; what is named twice is chosen twice as often."""
        return self._list(name, lambda x: low <= x <= high, _limits(low, high))

    def some_of(self, name: str, allowed: Sequence[int]) -> list[int]:
        """The same, of a few numbers."""
        return self._list(name, lambda x: x in allowed, f" among {', '.join(map(str, allowed))}")

    def refusal(self, name: str, wanted: str) -> ConfigError:
        """What to raise for a value."""
        return ConfigError(f"--env_options: {name} must be {wanted}, not {self._values[name]!r}")

    def _list(self, name: str, fits: Any, limits: str) -> list[int]:
        values = self._values[name]
        is_list = isinstance(values, list | tuple | np.ndarray) and len(values) > 0
        if not is_list or not all(_is_whole(x) and fits(x) for x in values):
            raise self.refusal(name, f"a list of whole numbers{limits} to choose from, such as {self._defaults[name]}")
        return [int(x) for x in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value == math.floor(value)


def _limits(low: float, high: float) -> str:
    if low == -LARGEST:
        return "" if high == LARGEST else f" up to {high:g}"
    return f" from {low:g}" if high == LARGEST else f" from {low:g} to {high:g}"
