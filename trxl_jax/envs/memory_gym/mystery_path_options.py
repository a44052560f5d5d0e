"""Memory Gym's reset options for Mystery Path, read with an eye for what it would take and then crash or hang on."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from trxl_jax.errors import ConfigError


class Options:
    """Options of one task, missing ones filled in.

    Args:
        given: names and values as Memory Gym's `reset` takes them.
        defaults: every option of the task and what it is by default.
        task: the task's id.

    Raises:
        ConfigError: an option that the task does not have. The methods raise it for values that can't be.
    """

    def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any], task: str) -> None:
        for name in given:
            if name not in defaults:
                raise ConfigError(f"--env_options: {name} is no option of {task}; it has {', '.join(sorted(defaults))}")
        self._values = {**defaults, **given}
        self._defaults = defaults

    def fixed(self, name: str) -> None:
        """Refuses what is not the default."""
        if self._values[name] != self._defaults[name]:
            raise ConfigError(
                f"--env_options: {name} can't be changed on the device; leave it out or use the host's task"
            )

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._values[name]
        if not isinstance(value, bool | np.bool_):
            raise self.refusal(name, "true or false")
        return bool(value)

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number."""
        value = self._values[name]
        is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or not abs(value) <= np.finfo(np.float32).max:
            limits = "a number" if low == -math.inf else f"a number from {low:g} to {high:g}"
            raise self.refusal(name, limits)
        return float(value)

    def whole(self, name: str, low: int, high: int = 2**31 - 1) -> int:
        """A whole number."""
        value = self._values[name]
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
            raise self.refusal(name, f"a whole number of at least {low}" + (f", {high} at most" * (high < 2**31 - 1)))
        return int(value)

    def choices(self, name: str, allowed: tuple[int, ...]) -> list[int]:
        """A list of at least one choice; one that is named twice is drawn twice as often."""
        values = self._values[name]
        is_list = isinstance(values, list | tuple) and len(values) > 0
        if not is_list or not all(isinstance(x, int | np.integer) and x in allowed for x in values):
            raise self.refusal(name, f"a list of some of {', '.join(map(str, allowed))}")
        return [int(x) for x in values]

    def refusal(self, name: str, wanted: str) -> ConfigError:
        """What to raise for a value."""
        return ConfigError(f"--env_options: {name} is {self._values[name]!r}; give it {wanted}")
