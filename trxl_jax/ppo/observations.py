"""The observations of a rollout: how they are recorded, encoded while acting, and encoded again while learning.

On CPUs equal frames are encoded once (`agent/cpu/frames.py`); elsewhere each observation is encoded by itself. This
module is the only place that knows which of the two happens: `make_recorder` chooses.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.agent.cpu import frames
from trxl_jax.agent.cpu.frames import FrameTable, UniqueIndices
from trxl_jax.ppo.losses import reconstruction_loss

_NEW_FRAMES_A_CHUNK = 16


class MinibatchObservations(Protocol):
    """The observations of Q steps in each of M rows."""

    def encode(self, agent: ActorCritic, params: Any) -> jax.Array:
        """f32[M, Q, D]."""
        ...

    def reconstruction_loss(self, agent: ActorCritic, params: Any, features: jax.Array) -> jax.Array:
        """The loss f32[] of the observations reconstructed from features f32[M, Q, D]; see `losses`."""
        ...


class RolloutObservations(Protocol):
    """The observations of T steps of N environments.

    Fields:
        obs: [T, N, *obs_shape].
    """

    obs: jax.Array

    def take(self, steps: jax.Array, envs: jax.Array) -> MinibatchObservations:
        """Those of the steps i32[M, Q] of environments i32[M, 1]."""
        ...


class Recorder(Protocol):
    """Encodes observations while acting and collects them; its state is carried through the rollout's scan."""

    def start(self) -> Any:
        """The state before the first step."""
        ...

    def record(self, state: Any, t: jax.Array, first_env: int, obs: jax.Array) -> tuple[Any, jax.Array, Any]:
        """Encodes the observations [n, *obs_shape] of step t of the environments `first_env`, `first_env` + 1, ...

        Returns:
            The next state, features f32[n, D], and what the scan is to stack over time, in arrays [n, ...].
        """
        ...

    def finish(self, state: Any, stacked: Any) -> RolloutObservations:
        """All observations, from the last state and what the scan stacked, [T, N, ...]."""
        ...


def make_recorder(agent: ActorCritic, params: Any, obs: jax.Array, num_steps: int) -> Recorder:
    """The recorder of a rollout of T = `num_steps` steps whose observations are like `obs`, [N, *obs_shape]."""
    if agent.shares_frames:
        return _SharedFrameRecorder(agent, params, obs, num_steps)
    return _PlainRecorder(agent, params)


@struct.dataclass
class PlainObservations:
    """Observations that are encoded one by one; [T, N, *obs_shape] of a rollout, [M, Q, *obs_shape] of a minibatch."""

    obs: jax.Array

    def take(self, steps: jax.Array, envs: jax.Array) -> "PlainObservations":
        """See `RolloutObservations`."""
        return PlainObservations(self.obs[steps, envs])

    def encode(self, agent: ActorCritic, params: Any) -> jax.Array:
        """See `MinibatchObservations`."""
        return agent.apply(params, self.obs, method="encode")

    def reconstruction_loss(self, agent: ActorCritic, params: Any, features: jax.Array) -> jax.Array:
        """See `MinibatchObservations`."""
        return reconstruction_loss(agent.apply(params, features, method="reconstruct"), self.obs)


class _PlainRecorder(NamedTuple):
    agent: ActorCritic
    params: Any

    def start(self) -> None:
        return None

    def record(self, state: None, t: jax.Array, first_env: int, obs: jax.Array) -> tuple[None, jax.Array, jax.Array]:
        return None, self.agent.apply(self.params, obs, method="encode"), obs

    def finish(self, state: None, stacked: jax.Array) -> PlainObservations:
        return PlainObservations(stacked)


@struct.dataclass
class SharedFrames:
    """The frames of a rollout, of which equal ones are encoded once.

    Fields:
        obs: u8[T, N, 84, 84, 3].
        first_index: i32[T, N], for each frame the index t * N + n of the first equal one.
    """

    obs: jax.Array
    first_index: jax.Array

    def take(self, steps: jax.Array, envs: jax.Array) -> "SharedMinibatchFrames":
        """See `RolloutObservations`."""
        frames_of_rollout = self.obs.reshape(-1, *self.obs.shape[2:])
        unique = frames.unique_indices(self.first_index[steps, envs].reshape(-1))
        return SharedMinibatchFrames(frames_of_rollout, steps, unique)


class SharedMinibatchFrames(NamedTuple):
    """The frames of a minibatch, of which equal ones are encoded once.

    Fields:
        flat: u8[T * N, 84, 84, 3], all frames of the rollout.
        steps: i32[M, Q], the minibatch's.
        unique: the distinct frames among them; `inverse` has M * Q elements.
    """

    flat: jax.Array
    steps: jax.Array
    unique: UniqueIndices

    def encode(self, agent: ActorCritic, params: Any) -> jax.Array:
        """See `MinibatchObservations`."""
        features = agent.apply(params, self.flat, self.unique.indices, self.unique.num_unique, method="encode_at")
        return features[self.unique.inverse].reshape(*self.steps.shape, -1)

    def reconstruction_loss(self, agent: ActorCritic, params: Any, features: jax.Array) -> jax.Array:
        """See `MinibatchObservations`."""
        flat_features = features.reshape(-1, features.shape[-1])
        indices = self.unique.indices[self.unique.inverse]
        return agent.apply(params, flat_features, self.flat, indices, method="reconstruction_loss_at")


class _SharedFrameRecorder(NamedTuple):
    agent: ActorCritic
    params: Any
    obs: jax.Array
    num_steps: int

    def start(self) -> FrameTable:
        return frames.empty_frame_table(self.num_steps * self.obs.shape[0], self.obs, self.agent.core.dim)

    def record(
        self, state: FrameTable, t: jax.Array, first_env: int, obs: jax.Array
    ) -> tuple[FrameTable, jax.Array, None]:
        state, encoded = frames.add_step(state, t * self.obs.shape[0] + first_env, obs, self._encode)
        return state, encoded, None

    def finish(self, state: FrameTable, stacked: None) -> SharedFrames:
        shape = (self.num_steps, self.obs.shape[0])
        return SharedFrames(state.obs.reshape(*shape, *self.obs.shape[1:]), state.first_index.reshape(shape))

    def _encode(self, new: jax.Array, count: jax.Array) -> jax.Array:
        return self.agent.apply(
            self.params, new, jnp.arange(new.shape[0]), count, _NEW_FRAMES_A_CHUNK, method="encode_at"
        )
