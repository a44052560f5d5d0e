"""What the grid tasks share: the agent turns by 90 degrees, moves by whole tiles, and can see symbols for pictures."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.memory_gym.environment import GRID_NVEC, MemoryGymEnvironment
from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.spaces import MultiDiscrete


class GridTask(MemoryGymEnvironment):
    """Base class of a grid task, named before that of its family.

    With the option `symbolic`, which Memory Gym doesn't have, observations are what a picture shows, in numbers: equal
    for equal pictures and different for different ones. Agents see them as one-hot vectors.

    Fields:
        symbolic: whether observations are symbols instead of pictures.
    """

    nvec = GRID_NVEC
    own_options: ClassVar[Mapping[str, Any]] = {"symbolic": False}
    symbolic: bool = False

    @property
    @abstractmethod
    def num_symbols(self) -> tuple[int, ...]:
        """How many values each symbol has."""

    @abstractmethod
    def symbols(self, state: Any, params: Any) -> jax.Array:
        """The symbols of a state, i32[len(num_symbols)]."""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> tuple[Self, Any]:
        """Creates the task and its parameters from the options of Memory Gym's `reset` and `symbolic`.

        Raises:
            ConfigError: an option is unknown, not supported, or has an invalid value.
        """
        task, params = super().from_options(options)
        task.symbolic = Options(options, {**cls.defaults, **cls.own_options}).boolean("symbolic")
        return task, params

    def render(self, state: Any, params: Any) -> jax.Array:
        """The observation: u8[84, 84, 3], indexed [x, y, channel], or i32[len(num_symbols)]."""
        return self.symbols(state, params) if self.symbolic else super().render(state, params)

    def observation_space(self, params: Any) -> gymnax_spaces.Space:
        """Images u8[84, 84, 3], or one choice per symbol."""
        return MultiDiscrete(*self.num_symbols) if self.symbolic else super().observation_space(params)
