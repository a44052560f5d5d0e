"""Cores whose past is a state: their contract, GRU and LSTM. Others are in `linear_recurrences.py`."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax.agent.cores.base import Carry, Core, Queries
from trxl_jax.agent.initializers import dense
from trxl_jax.agent.numerics import Numerics

State = Any
"""A pytree of arrays f32[N, ...] of N sequences."""


@struct.dataclass
class RecurrentCarry(Carry):
    """The states of N environments between two rollouts.

    Fields:
        state: after the last step.
    """

    state: State


@struct.dataclass
class RolloutStates:
    """The state of N environments in a rollout.

    Fields:
        now: after the last step.
        starts: before the first step of each segment, arrays f32[N, T / G, ...]; None if nothing will be learned.
        segment_length: G.
    """

    now: State
    starts: State | None
    segment_length: int = struct.field(pytree_node=False)


class RecurrentCore(Core):
    """Base of cores whose past is a state: learning goes on from the state that acting had before each segment.

    A core of one's own writes `initial_state` and `step_state`; it may write a faster `unroll` that gives the same.
    """

    @nn.nowrap
    def init_carry(self, num_envs: int) -> RecurrentCarry:
        """See `Core`."""
        return RecurrentCarry(jnp.zeros(num_envs, jnp.int32), self.initial_state(num_envs))

    def start(self, carry: RecurrentCarry, num_steps: int, segment_length: int = 1) -> RolloutStates:
        """See `Core`."""

        def empty(state: jax.Array) -> jax.Array:
            return jnp.zeros((state.shape[0], num_steps // segment_length, *state.shape[1:]), state.dtype)

        starts = jax.tree.map(empty, carry.state) if num_steps else None
        return RolloutStates(carry.state, starts, segment_length)

    def step(
        self, x: jax.Array, state: RolloutStates, t: jax.Array, episode_step: jax.Array
    ) -> tuple[jax.Array, State]:
        """See `Core`: f32[N, D], and the state after the step."""
        before = reset(state.now, self.initial_state(x.shape[0]), episode_step == 0)
        after, y = self.step_state(before, x)
        return y, after

    def write(self, state: RolloutStates, entry: State, t: jax.Array, episode_step: jax.Array) -> RolloutStates:
        """See `Core`; arrays are [N, ...]."""
        if state.starts is None:
            return dataclasses.replace(state, now=entry)
        segment, is_start = t // state.segment_length, t % state.segment_length == 0

        def record(starts: jax.Array, now: jax.Array) -> jax.Array:
            kept = jax.lax.dynamic_index_in_dim(starts, segment, axis=1, keepdims=False)
            return jax.lax.dynamic_update_index_in_dim(starts, jnp.where(is_start, now, kept), segment, axis=1)

        return dataclasses.replace(state, now=entry, starts=jax.tree.map(record, state.starts, state.now))

    @nn.nowrap
    def finish(self, state: RolloutStates, episode_step: jax.Array) -> tuple[RecurrentCarry, State]:
        """See `Core`: the record holds the states before each segment, f32[N, T / G, ...]."""
        assert state.starts is not None, "the rollout was started without recording"
        return RecurrentCarry(episode_step, state.now), state.starts

    @nn.nowrap
    def carry_of(self, record: State, episode_step: jax.Array) -> RecurrentCarry:
        """See `Core`: the state before the first segment, arrays f32[N, ...]."""
        return RecurrentCarry(episode_step, jax.tree.map(lambda starts: starts[:, 0], record))

    def learn(self, x: jax.Array, prepared: State, queries: Queries, segment_length: int = 1) -> jax.Array:
        """See `Core`: f32[M, Q, D]. Segments of all rows are unrolled side by side."""
        m, q, dim = x.shape
        env = jnp.arange(m) if queries.env is None else queries.env
        segment = queries.step[:, ::segment_length] // segment_length

        def of_segments(starts: jax.Array) -> jax.Array:
            return starts[env[:, None], segment].reshape(-1, *starts.shape[2:])

        first = (queries.episode_step == 0).reshape(-1, segment_length)
        _, y = self.unroll(jax.tree.map(of_segments, prepared), x.reshape(-1, segment_length, dim), first)
        return y.reshape(m, q, dim)

    @nn.nowrap
    def initial_state(self, num_envs: int) -> State:
        """The state of N sequences before their first step, a pytree of arrays f32[N, ...]; it has no parameters."""
        raise NotImplementedError

    def step_state(self, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        """One step of B sequences without resets: inputs f32[B, D]; the state after it, and outputs f32[B, D]."""
        raise NotImplementedError

    def unroll(self, state: State, x: jax.Array, first: jax.Array) -> tuple[State, jax.Array]:
        """G steps of B sequences; gradients flow through all of them and stop at resets.

        Args:
            state: before the first of the steps.
            x: f32[B, G, D].
            first: bool[B, G], before which steps the state is replaced by the initial one.

        Returns:
            The state after the last step, and outputs f32[B, G, D].
        """
        chex.assert_shape(first, x.shape[:2])
        initial = self.initial_state(x.shape[0])

        def body(core: RecurrentCore, state: State, now: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
            x, first = now
            return core.step_state(reset(state, initial, first), x)

        scan = nn.scan(body, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1)
        return scan(self, state, (x, first))


def reset(state: State, initial: State, first: jax.Array) -> State:
    """The initial state where `first`, bool[B], and the present one elsewhere; both pytrees of arrays [B, ...]."""

    def choose(now: jax.Array, start: jax.Array) -> jax.Array:
        return jnp.where(first.reshape(-1, *[1] * (now.ndim - 1)), start, now)

    return jax.tree.map(choose, state, initial)


class StackedCore(RecurrentCore):
    """L layers, each with a state of its own that starts at zero; the output of one is the input of the next.

    Fields:
        num_layers: L.
        numerics: platform and precision of the matrix products; states and sums are float32.

    Subclasses set `layers` to modules with the methods `step`, as that of a core, and `unroll`, whose arrays are
    time-major, [G, B, ...].
    """

    num_layers: int
    numerics: Numerics

    @nn.nowrap
    def layer_state(self, num_envs: int) -> State:
        """The initial state of one layer, arrays f32[N, ...] of zeros."""
        return jnp.zeros((num_envs, self.dim))

    @nn.nowrap
    def initial_state(self, num_envs: int) -> State:
        """A tuple of L times `layer_state`."""
        return tuple(self.layer_state(num_envs) for _ in range(self.num_layers))

    def step_state(self, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        """See `RecurrentCore`: f32[B, D] to f32[B, D]."""
        chex.assert_rank(x, 2)
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            layer_state, x = layer.step(before, x)
            after.append(layer_state)
        return tuple(after), x

    def unroll(self, state: State, x: jax.Array, first: jax.Array) -> tuple[State, jax.Array]:
        """See `RecurrentCore.unroll`."""
        chex.assert_shape(first, x.shape[:2])
        x, first = jnp.swapaxes(x, 0, 1), first.T
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            layer_state, x = layer.unroll(before, x, first)
            after.append(layer_state)
        return tuple(after), jnp.swapaxes(x, 0, 1)


class _GatedLayer(nn.Module):
    """One layer whose gates are sums of a product with the input and one with the output of the step before.

    PyTorch has a bias in both, and draws every parameter from +-1/sqrt(D). Both are kept, so that its weights can be
    loaded and training is the same.
    """

    dim: int
    numerics: Numerics
    num_gates: ClassVar[int]

    def setup(self) -> None:
        self.input = dense(self.num_gates * self.dim, self.dim, self.numerics)
        self.recurrent = dense(self.num_gates * self.dim, self.dim, self.numerics)

    def advance(self, state: State, gates: list[jax.Array]) -> tuple[State, jax.Array]:
        """One step: the products with the input, f32[B, D] a gate; the state after it, and outputs f32[B, D]."""
        raise NotImplementedError

    def step(self, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        return self.advance(state, self._split(self.input(x)))

    def unroll(self, state: State, x: jax.Array, first: jax.Array) -> tuple[State, jax.Array]:
        initial = jax.tree.map(jnp.zeros_like, state)

        def body(layer: _GatedLayer, state: State, now: Any) -> tuple[State, jax.Array]:
            gates, first = now
            return layer.advance(reset(state, initial, first), gates)

        # Split before the loop: XLA's CPU backend does not vectorise functions of a part of a step's slice, and a
        # forward pass of width 64 would take twice as long.
        inputs = (self._split(self.input(x)), first)
        return nn.scan(body, variable_broadcast="params", split_rngs={"params": False})(self, state, inputs)

    def _split(self, gates: jax.Array) -> list[jax.Array]:
        return jnp.split(gates, self.num_gates, axis=-1)


class GRULayer(_GatedLayer):
    """A layer of `torch.nn.GRU`; gates in the order r, z, n."""

    num_gates: ClassVar[int] = 3

    def advance(self, state: jax.Array, gates: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """One step from the hidden state f32[B, D], see `_GatedLayer.advance`."""
        recurrent = self._split(self.recurrent(state))
        r, z = (nn.sigmoid(i + h) for i, h in zip(gates[:2], recurrent[:2], strict=True))
        n = jnp.tanh(gates[2] + r * recurrent[2])
        state = (1 - z) * n + z * state
        return state, state


class LSTMState(NamedTuple):
    """State of an LSTM layer.

    Fields:
        hidden: f32[N, D], the layer's last output.
        cell: f32[N, D].
    """

    hidden: jax.Array
    cell: jax.Array


class LSTMLayer(_GatedLayer):
    """A layer of `torch.nn.LSTM`; gates in the order i, f, g, o."""

    num_gates: ClassVar[int] = 4

    def advance(self, state: LSTMState, gates: list[jax.Array]) -> tuple[LSTMState, jax.Array]:
        """One step from a state of arrays f32[B, D], see `_GatedLayer.advance`."""
        recurrent = self._split(self.recurrent(state.hidden))
        i, f, g, o = (x + h for x, h in zip(gates, recurrent, strict=True))
        cell = nn.sigmoid(f) * state.cell + nn.sigmoid(i) * jnp.tanh(g)
        hidden = nn.sigmoid(o) * jnp.tanh(cell)
        return LSTMState(hidden, cell), hidden


class GRU(StackedCore):
    """Gated recurrent units (Cho et al. 2014) as in `torch.nn.GRU`, its initial distribution included.

        r, z = sigmoid(W_i x + b_i + W_h h + b_h)
        n    = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h'   = (1 - z) * n + z * h

    Cho et al. multiply r with h, before W_hn; cuDNN and PyTorch after it.
    """

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self.layers = [GRULayer(self.dim, self.numerics) for _ in range(self.num_layers)]


class LSTM(StackedCore):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000) as in `torch.nn.LSTM`.

        i, f, o = sigmoid(W_i x + b_i + W_h h + b_h),  g = tanh of the same
        c' = f * c + i * g,  h' = o * tanh(c')

    The initial distribution is PyTorch's too: nothing is added to the forget gate's bias.
    """

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self.layers = [LSTMLayer(self.dim, self.numerics) for _ in range(self.num_layers)]

    @nn.nowrap
    def layer_state(self, num_envs: int) -> LSTMState:
        """See `StackedCore.layer_state`."""
        return LSTMState(jnp.zeros((num_envs, self.dim)), jnp.zeros((num_envs, self.dim)))
