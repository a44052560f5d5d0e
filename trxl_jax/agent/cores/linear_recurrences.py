"""Cores whose state is a linear function of the one before: minGRU and the linear recurrent unit (LRU)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import normal

from trxl_jax.agent.cores.recurrent import StackedCore, State
from trxl_jax.agent.initializers import dense
from trxl_jax.agent.numerics import Numerics

_TINY = float(np.finfo(np.float32).tiny)  # instead of zero, whose logarithm weight decay would turn into NaN


def linear_recurrence(decay: jax.Array, drive: jax.Array, state: jax.Array, *, sequential: bool) -> jax.Array:
    """States s_t = decay_t * s_{t-1} + drive_t of G steps.

    Args:
        decay: [G, B, S], real or complex; zero where a sequence starts anew.
        drive: [G, B, S].
        state: [B, S], before the first step.
        sequential: one step after the other, or in log G rounds by an associative scan. A CPU takes two to four times
            as long for the rounds and their gradients; on an accelerator each step is a launch.

    Returns:
        [G, B, S].
    """
    if sequential:

        def step(state: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            state = now[0] * state + now[1]
            return state, state

        return jax.lax.scan(step, state, (decay, drive))[1]
    drive = drive.at[0].add(decay[0] * state)
    return jax.lax.associative_scan(_compose, (decay, drive))[1]


def _compose(earlier: tuple[jax.Array, jax.Array], later: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The map s -> decay * s + drive that is equal to two such maps, one after the other."""
    return later[0] * earlier[0], later[0] * earlier[1] + later[1]


class _LinearLayer(nn.Module):
    """A layer s_t = decay_t * s_{t-1} + drive_t, whose coefficients depend on the input alone."""

    dim: int
    numerics: Numerics

    def coefficients(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Inputs f32[..., D] to decay and drive, which broadcast to [..., S]."""
        raise NotImplementedError

    def read(self, state: State) -> jax.Array:
        """The state as one array [B, S], real or complex."""
        return state

    def write(self, value: jax.Array) -> State:
        """Inverse of `read`: of [B, S], a pytree of real arrays."""
        return value

    def output(self, value: jax.Array, x: jax.Array) -> jax.Array:
        """States [..., S] and inputs f32[..., D] to outputs f32[..., D]."""
        return value

    def step(self, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        decay, drive = self.coefficients(x)
        value = decay * self.read(state) + drive
        return self.write(value), self.output(value, x)

    def unroll(self, state: State, x: jax.Array, first: jax.Array) -> tuple[State, jax.Array]:
        decay, drive = self.coefficients(x)
        decay = jnp.where(first[..., None], 0, decay)
        sequential = self.numerics.platform == "cpu"
        values = linear_recurrence(decay, drive, self.read(state), sequential=sequential)
        return self.write(values[-1]), self.output(values, x)


def positive(x: jax.Array) -> jax.Array:
    """The activation g of Feng et al. 2024, [...] to [...]: sigmoid below zero and x + 1/2 above, always positive."""
    return jnp.where(x >= 0, x + 0.5, nn.sigmoid(x))


_CANDIDATES: dict[str, Callable[[jax.Array], jax.Array]] = {"linear": lambda x: x, "positive": positive}


class MinGRULayer(_LinearLayer):
    """One layer of `MinGRU`."""

    candidate: str

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self.z = dense(self.dim, self.dim, self.numerics)
        self.h = dense(self.dim, self.dim, self.numerics)

    def coefficients(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `_LinearLayer.coefficients`."""
        z = nn.sigmoid(self.z(x))
        return 1 - z, z * _CANDIDATES[self.candidate](self.h(x))


class MinGRU(StackedCore):
    """Minimal gated recurrent units (Feng et al. 2024, section 3.1), with PyTorch's initial distribution.

        z  = sigmoid(W_z x + b_z)
        h' = (1 - z) * h + z * c(W_h x + b_h)

    Computed as written, not in log-space: a reset would be a logarithm of zero there.

    Fields:
        candidate: c: linear (itself), or positive, the paper's g that keeps states positive.
    """

    candidate: str = "linear"

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self.layers = [MinGRULayer(self.dim, self.numerics, self.candidate) for _ in range(self.num_layers)]


class ComplexState(NamedTuple):
    """Complex numbers as real arrays, which every checkpoint format knows.

    Fields:
        real: f32[N, S].
        imag: f32[N, S].
    """

    real: jax.Array
    imag: jax.Array


class LRULayer(_LinearLayer):
    """One layer of `LRU`, whose fields and parameters it has."""

    state_dim: int
    r_min: float
    r_max: float
    max_phase: float

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        d, s = self.dim, self.state_dim
        nu_log = self.nu_log = self.param("nu_log", self._draw_nu_log)
        self.theta_log = self.param("theta_log", self._draw_theta_log)
        self.gamma_log = self.param("gamma_log", lambda _: 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(nu_log))))
        self.b_re, self.b_im = (self.param(name, normal((2 * d) ** -0.5), (d, s)) for name in ("b_re", "b_im"))
        self.c_re, self.c_im = (self.param(name, normal(s**-0.5), (s, d)) for name in ("c_re", "c_im"))
        self.d = self.param("d", normal(1.0), (d,))

    def _draw_nu_log(self, key: jax.Array) -> jax.Array:
        squared = jax.random.uniform(key, (self.state_dim,), minval=max(self.r_min**2, _TINY), maxval=self.r_max**2)
        return jnp.log(-0.5 * jnp.log(squared))

    def _draw_theta_log(self, key: jax.Array) -> jax.Array:
        return jnp.log(jax.random.uniform(key, (self.state_dim,), minval=_TINY, maxval=self.max_phase))

    def coefficients(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `_LinearLayer.coefficients`; both are complex."""
        modulus, phase, gamma = jnp.exp(-jnp.exp(self.nu_log)), jnp.exp(self.theta_log), jnp.exp(self.gamma_log)
        decay = jax.lax.complex(modulus * jnp.cos(phase), modulus * jnp.sin(phase))
        return decay, jax.lax.complex(gamma * self._product(x, self.b_re), gamma * self._product(x, self.b_im))

    def read(self, state: ComplexState) -> jax.Array:
        """See `_LinearLayer.read`, complex64[B, S]."""
        return jax.lax.complex(state.real, state.imag)

    def write(self, value: jax.Array) -> ComplexState:
        """See `_LinearLayer.write`."""
        return ComplexState(value.real, value.imag)

    def output(self, value: jax.Array, x: jax.Array) -> jax.Array:
        """See `_LinearLayer.output`."""
        return self._product(value.real, self.c_re) - self._product(value.imag, self.c_im) + self.d * x

    def _product(self, rows: jax.Array, weight: jax.Array) -> jax.Array:
        return self.numerics.product(rows, weight).astype(jnp.float32)


class LRU(StackedCore):
    """Linear recurrent units (Orvieto et al. 2023), with a complex diagonal recurrence s of width S.

        lambda = exp(-exp(nu_log) + i exp(theta_log))
        s' = lambda * s + exp(gamma_log) * (B x)
        y  = Re(C s') + d * x

    Initial distribution as there: lambda uniform on a ring of the complex plane, gamma = sqrt(1 - |lambda|^2), so that
    the scale of s does not depend on lambda; B and C normal, with variance 1 / 2D and 1 / S in real and imaginary
    parts; d standard normal. gamma is a parameter of its own afterwards. The paper's blocks, with a normalisation and a
    nonlinearity round each recurrence, are not part of it: several layers are still a linear map.

    Fields:
        state_dim: S, complex numbers; D by default.
        r_min: inner radius of the ring; |lambda| of 0.9 is a memory of ten steps.
        r_max: outer radius; 0.999 is a memory of a thousand steps. The paper's listing draws from the whole disc, and
            closer to 1 for its longer tasks.
        max_phase: largest angle of lambda, in radians.
    """

    state_dim: int | None = None
    r_min: float = 0.9
    r_max: float = 0.999
    max_phase: float = 2 * math.pi

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        ring = (self.r_min, self.r_max, self.max_phase)
        self.layers = [LRULayer(self.dim, self.numerics, self._state_dim, *ring) for _ in range(self.num_layers)]

    @nn.nowrap
    def layer_state(self, num_envs: int) -> ComplexState:
        """See `StackedCore.layer_state`."""
        shape = (num_envs, self._state_dim)
        return ComplexState(jnp.zeros(shape), jnp.zeros(shape))

    @property
    def _state_dim(self) -> int:
        return self.dim if self.state_dim is None else self.state_dim
