"""Pictures that are drawn again when they are learned from, instead of stored, on GPUs and TPUs.

A picture of 84x84 bytes in three colours is 21 kB; the state of the task that it shows is a hundred bytes, and drawing
is one kernel. A rollout of 4,096 environments would need 44 GB for pictures.
"""

from typing import Any, NamedTuple

import jax
from flax import struct

from trxl_jax.envs.base import Environment
from trxl_jax.ppo.observations import PlainArray, RolloutObservations
from trxl_jax.ppo.packing import Packing


class Redrawing(NamedTuple):
    """How observations follow from states.

    Fields:
        env: with `observe_states`.
        packing: of its environments' own states, all of whose leaves are packed.
    """

    env: Any
    packing: Packing

    @classmethod
    def of(cls, env: Environment, env_state: Any) -> "Redrawing | None":
        """That of device environments whose observation is one picture, a function of a small state; else None."""
        if not getattr(env, "observes_states", False) or not env.spec.has_pictures or len(env.spec.obs.arrays) > 1:
            return None
        packing = Packing.of(env_state.inner, env.num_envs)
        return cls(env, packing) if all(packing.leaves) else None

    def words(self, env_state: Any) -> jax.Array:
        """The environments' states, u32[N, K]."""
        words, _ = self.packing.pack(env_state.inner)
        assert words is not None
        return words.T

    def observations(self, words: jax.Array) -> RolloutObservations:
        """Those of a rollout from states u32[T, N, K]."""
        return RolloutObservations({"": RedrawnArray(words, self)})


@struct.dataclass
class RedrawnArray:
    """The pictures of a rollout.

    Fields:
        words: u32[T, N, K], the states that they show.
        redrawing: how.
    """

    words: jax.Array
    redrawing: Redrawing = struct.field(pytree_node=False)

    @property
    def obs(self) -> jax.Array:
        """All pictures, [T, N, *shape]."""
        return self._draw(self.words)

    def take(self, steps: jax.Array, envs: jax.Array) -> PlainArray:
        """See `RolloutArray`."""
        return PlainArray(self._draw(self.words[steps, envs]))

    def _draw(self, words: jax.Array) -> jax.Array:
        flat = words.reshape(-1, words.shape[-1])
        pictures = self.redrawing.env.observe_states(self.redrawing.packing.unpack(flat.T, []))
        return pictures.reshape(*words.shape[:-1], *pictures.shape[1:])
