"""What the grid tasks share: the agent turns by 90 degrees, moves by whole tiles, and can see symbols for pictures."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.memory_gym.environment import GRID_NVEC, MemoryGymEnvironment
from trxl_jax.envs.tasks.spaces import MultiDiscrete


class GridTask(MemoryGymEnvironment):
    """Base class of a grid task; it comes before its family's, so that its methods take precedence.

    Symbols are what a picture shows, in numbers: equal for equal pictures, different for different ones. Agents see
    them as one-hot vectors.

    Args:
        symbolic: observations are symbols instead of pictures.
        others: arguments of the family's base class.
    """

    nvec = GRID_NVEC
    own_options: ClassVar[Mapping[str, Any]] = {"symbolic": False}

    def __init__(self, *args: Any, symbolic: bool = False, **others: Any) -> None:
        super().__init__(*args, **others)
        self._symbolic = symbolic

    @property
    @abstractmethod
    def symbol_sizes(self) -> tuple[int, ...]:
        """How many values each of the K symbols has."""

    @abstractmethod
    def symbols(self, state: Any, params: Any) -> jax.Array:
        """The symbols of a state, i32[K]."""

    def render(self, state: Any, params: Any) -> jax.Array:
        """The observation: u8[84, 84, 3], indexed [x, y, channel], or symbols i32[K]."""
        return self.symbols(state, params) if self._symbolic else self.picture(state, params)

    def observation_space(self, params: Any) -> gymnax_spaces.Space:
        """Pictures u8[84, 84, 3], or a choice for each symbol."""
        return MultiDiscrete(*self.symbol_sizes) if self._symbolic else super().observation_space(params)
