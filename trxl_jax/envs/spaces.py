"""Action spaces of Gymnasium and gymnax, read into what the agent needs to know of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.envs.space_kinds import describe, kinds
from trxl_jax.errors import ConfigError, brief

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
    found = kinds(space)
    if "Discrete" in found:
        return DiscreteActions((int(space.n),))
    if "MultiDiscrete" in found and np.asarray(space.nvec).ndim == 1:
        return DiscreteActions(tuple(int(n) for n in np.asarray(space.nvec)))
    raise ConfigError(
        f"--env_id {name}: actions {describe(space)} are not supported, only Discrete and MultiDiscrete ones; make a "
        f"wrapper that maps choices to such actions, and {_OWN_ID}"
    )
