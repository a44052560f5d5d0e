"""The observations of a rollout: how they are recorded, encoded while acting, and encoded again while learning.

An observation is an array or a dict of them. Each array is recorded by itself: on CPUs equal pictures are encoded once
(`agent/cpu/frames.py`), everything else is encoded step by step. `_make_array_recorder` chooses between these two.
There is a third way, on GPUs and TPUs: pictures that are drawn again instead of stored (`redrawing.py`), which
`rollout.py` chooses.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.agent.cpu import frames
from trxl_jax.agent.cpu.frames import FrameTable, UniqueIndices
from trxl_jax.envs.observations import arrays_of
from trxl_jax.ppo.losses import reconstruction_loss

_NEW_FRAMES_A_CHUNK = 16


class MinibatchArray(Protocol):
    """One array of the observations of Q steps in each of M rows."""

    def encode(self, agent: ActorCritic, params: Any, name: str) -> jax.Array:
        """f32[M, Q, D]."""
        ...

    def reconstruction_loss(self, agent: ActorCritic, params: Any, features: jax.Array, name: str) -> jax.Array:
        """The loss f32[] of the pictures reconstructed from features f32[M, Q, D]; see `losses`."""
        ...


class RolloutArray(Protocol):
    """One array of the observations of T steps of N environments."""

    @property
    def obs(self) -> jax.Array:
        """[T, N, *shape]."""
        ...

    def take(self, steps: jax.Array, envs: jax.Array) -> MinibatchArray:
        """Those of the steps i32[M, Q] of environments i32[M, 1]."""
        ...


@struct.dataclass
class RolloutObservations:
    """The observations of T steps of N environments.

    Fields:
        arrays: by name, "" that of a single one.
    """

    arrays: Mapping[str, RolloutArray]

    @property
    def obs(self) -> Any:
        """[T, N, *obs_shape]."""
        return unnamed({name: array.obs for name, array in self.arrays.items()})

    def as_arrays(self) -> "RolloutObservations":
        """The same, stored as arrays [T, N, ...], for files."""
        stored = isinstance(next(iter(self.arrays.values())), PlainArray | SharedFrames)
        return self if stored else RolloutObservations({n: PlainArray(array.obs) for n, array in self.arrays.items()})

    def take(self, steps: jax.Array, envs: jax.Array) -> "MinibatchObservations":
        """Those of the steps i32[M, Q] of environments i32[M, 1]."""
        return MinibatchObservations({name: array.take(steps, envs) for name, array in self.arrays.items()})


class MinibatchObservations(NamedTuple):
    """The observations of Q steps in each of M rows.

    Fields:
        arrays: by name, as in `RolloutObservations`.
    """

    arrays: Mapping[str, MinibatchArray]

    @property
    def obs(self) -> Any:
        """[M, Q, *obs_shape], without the pictures of which equal ones are encoded once."""
        return unnamed({name: array.obs for name, array in self.arrays.items() if isinstance(array, PlainArray)})

    def encode(self, agent: ActorCritic, params: Any) -> jax.Array:
        """f32[M, Q, D]."""
        spaces = agent.spec.obs.arrays
        used = {name: array for name, array in self.arrays.items() if spaces[name].kind != "mask"}
        parts = {name: array.encode(agent, params, name) for name, array in used.items()}
        return agent.apply(params, parts, method="join_arrays")

    def reconstruction_loss(self, agent: ActorCritic, params: Any, features: jax.Array) -> jax.Array:
        """The loss f32[] of the pictures reconstructed from features f32[M, Q, D], mean over pictures; see `losses`."""
        losses = [self.arrays[name].reconstruction_loss(agent, params, features, name) for name in agent.pictures]
        return sum(losses[1:], losses[0]) / len(losses) if len(losses) > 1 else losses[0]


def unnamed(arrays: dict[str, Any]) -> Any:
    """Inverse of `envs.observations.arrays_of`: a dict of arrays [..., *shape], or the only array."""
    return arrays.get("", arrays)


class _ArrayRecorder(Protocol):
    """Records one array; for arguments and results see `Recorder`."""

    def start(self) -> Any: ...

    def record(self, state: Any, t: jax.Array, first_env: int, array: jax.Array) -> tuple[Any, jax.Array, Any]: ...

    def finish(self, state: Any, stacked: Any) -> RolloutArray: ...


class Recorder(NamedTuple):
    """Encodes observations while acting and collects them; its state is carried through the rollout's scan."""

    agent: ActorCritic
    params: Any
    recorders: Mapping[str, _ArrayRecorder]

    def start(self) -> Any:
        """The state before the first step."""
        return {name: recorder.start() for name, recorder in self.recorders.items()}

    def record(self, state: Any, t: jax.Array, first_env: int, obs: Any) -> tuple[Any, jax.Array, Any]:
        """Encodes the observations [n, *obs_shape] of step t of the environments `first_env`, `first_env` + 1, ...

        Returns:
            The next state, features f32[n, D], and what the scan is to stack over time, in arrays [n, ...].
        """
        recorded = {
            name: self.recorders[name].record(state[name], t, first_env, array)
            for name, array in arrays_of(obs).items()
        }
        states, encoded, stacked = ({name: values[i] for name, values in recorded.items()} for i in range(3))
        features = {name: part for name, part in encoded.items() if part is not None}
        return states, self.agent.apply(self.params, features, method="join_arrays"), stacked

    def finish(self, state: Any, stacked: Any) -> RolloutObservations:
        """All observations, from the last state and what the scan stacked, [T, N, ...]."""
        recorders = self.recorders.items()
        return RolloutObservations({name: array.finish(state[name], stacked[name]) for name, array in recorders})


def make_recorder(agent: ActorCritic, params: Any, obs: Any, num_steps: int) -> Recorder:
    """The recorder of a rollout of T = `num_steps` steps whose observations are like `obs`, [N, *obs_shape]."""
    arrays = arrays_of(obs).items()
    made = {name: _make_array_recorder(agent, params, array, num_steps, name) for name, array in arrays}
    return Recorder(agent, params, made)


def _make_array_recorder(
    agent: ActorCritic, params: Any, array: jax.Array, num_steps: int, name: str
) -> _ArrayRecorder:
    if agent.shares_frames(name):
        return _SharedFrameRecorder(agent, params, array, num_steps, name)
    return _PlainRecorder(agent, params, name)


@struct.dataclass
class PlainArray:
    """Arrays that are encoded one by one; [T, N, *shape] of a rollout, [M, Q, *shape] of a minibatch."""

    obs: jax.Array

    def take(self, steps: jax.Array, envs: jax.Array) -> "PlainArray":
        """See `RolloutArray`."""
        return PlainArray(self.obs[steps, envs])

    def encode(self, agent: ActorCritic, params: Any, name: str) -> jax.Array:
        """See `MinibatchArray`."""
        return agent.apply(params, self.obs, name, method="encode_array")

    def reconstruction_loss(self, agent: ActorCritic, params: Any, features: jax.Array, name: str) -> jax.Array:
        """See `MinibatchArray`."""
        return reconstruction_loss(agent.apply(params, features, name, method="reconstruct"), self.obs)


class _PlainRecorder(NamedTuple):
    agent: ActorCritic
    params: Any
    name: str

    def start(self) -> None:
        return None

    def record(self, state: None, t: jax.Array, first_env: int, array: jax.Array) -> tuple[None, Any, jax.Array]:
        if self.agent.spec.obs.arrays[self.name].kind == "mask":
            return None, None, array
        return None, self.agent.apply(self.params, array, self.name, method="encode_array"), array

    def finish(self, state: None, stacked: jax.Array) -> PlainArray:
        return PlainArray(stacked)


@struct.dataclass
class SharedFrames:
    """The pictures of a rollout, of which equal ones are encoded once.

    Fields:
        obs: [T, N, *shape].
        first_index: i32[T, N], for each picture the index t * N + n of the first equal one.
    """

    obs: jax.Array
    first_index: jax.Array

    def take(self, steps: jax.Array, envs: jax.Array) -> "SharedMinibatchFrames":
        """See `RolloutArray`."""
        frames_of_rollout = self.obs.reshape(-1, *self.obs.shape[2:])
        unique = frames.unique_indices(self.first_index[steps, envs].reshape(-1))
        return SharedMinibatchFrames(frames_of_rollout, steps, unique)


class SharedMinibatchFrames(NamedTuple):
    """The pictures of a minibatch, of which equal ones are encoded once.

    Fields:
        flat: [T * N, *shape], all pictures of the rollout.
        steps: i32[M, Q], the minibatch's.
        unique: the distinct pictures among them; `inverse` has M * Q elements.
    """

    flat: jax.Array
    steps: jax.Array
    unique: UniqueIndices

    def encode(self, agent: ActorCritic, params: Any, name: str) -> jax.Array:
        """See `MinibatchArray`."""
        indices, count = self.unique.indices, self.unique.num_unique
        features = agent.apply(params, self.flat, indices, count, name=name, method="encode_at")
        return features[self.unique.inverse].reshape(*self.steps.shape, -1)

    def reconstruction_loss(self, agent: ActorCritic, params: Any, features: jax.Array, name: str) -> jax.Array:
        """See `MinibatchArray`."""
        flat_features = features.reshape(-1, features.shape[-1])
        indices = self.unique.indices[self.unique.inverse]
        return agent.apply(params, flat_features, self.flat, indices, name, method="reconstruction_loss_at")


class _SharedFrameRecorder(NamedTuple):
    agent: ActorCritic
    params: Any
    obs: jax.Array
    num_steps: int
    name: str

    def start(self) -> FrameTable:
        return frames.empty_frame_table(self.num_steps * self.obs.shape[0], self.obs, self.agent.core.dim)

    def record(
        self, state: FrameTable, t: jax.Array, first_env: int, array: jax.Array
    ) -> tuple[FrameTable, jax.Array, None]:
        state, encoded = frames.add_step(state, t * self.obs.shape[0] + first_env, array, self._encode)
        return state, encoded, None

    def finish(self, state: FrameTable, stacked: None) -> SharedFrames:
        shape = (self.num_steps, self.obs.shape[0])
        return SharedFrames(state.obs.reshape(*shape, *self.obs.shape[1:]), state.first_index.reshape(shape))

    def _encode(self, new: jax.Array, count: jax.Array) -> jax.Array:
        indices = jnp.arange(new.shape[0])
        chunk = _NEW_FRAMES_A_CHUNK
        return self.agent.apply(self.params, new, indices, count, chunk, self.name, method="encode_at")
