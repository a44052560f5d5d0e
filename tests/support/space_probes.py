"""Tasks of any observation space with a known best return: each array shows a bit that the actions must repeat."""

from typing import Any

import gymnasium
import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.observations import leaves

LENGTH = 4

EVERYTHING = spaces.Dict(
    {
        "picture": spaces.Box(0, 255, (84, 84, 3), np.uint8),
        "cells": spaces.Box(0, 10, (7, 7, 3), np.uint8),
        "grey": spaces.Box(0, 255, (40, 44), np.uint8),
        "inside": spaces.Tuple(
            (
                spaces.Discrete(3, start=5),
                spaces.MultiDiscrete([[2, 3], [4, 2]]),
                spaces.Dict({"sides": spaces.MultiBinary(3), "speed": spaces.Box(-2, 2, (), np.float64)}),
            )
        ),
    }
)


def showing(space: Any, bit: int) -> Any:
    """An element of a simple space of Gymnasium that shows a bit."""
    if isinstance(space, spaces.Discrete):
        return space.start + bit
    if isinstance(space, spaces.MultiDiscrete):
        return space.start + bit
    if isinstance(space, spaces.MultiBinary):
        return np.full(space.shape, bit, np.int8)
    return np.asarray(space.high if bit else space.low).astype(space.dtype)


def rebuilt(space: Any, values: list[Any]) -> Any:
    """An element of a nested space from those of its leaves, in the order of `leaves`."""
    if isinstance(space, spaces.Dict):
        return {name: rebuilt(part, values) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(rebuilt(part, values) for part in space.spaces)
    return values.pop(0)


class Repeating(gymnasium.Env):
    """Shows a random bit in each leaf of a space; a branch of the actions for each of them must repeat it.

    The return of an episode of four steps is at most 1; guessing earns 0.5.
    """

    def __init__(self, space: gymnasium.Space) -> None:
        self.observation_space = space
        self.parts = [part for _, part in leaves(space)]
        self.action_space = spaces.MultiDiscrete([2] * len(self.parts))
        self.bits, self.time = np.zeros(len(self.parts), int), 0

    def _observe(self) -> Any:
        self.bits = self.np_random.integers(0, 2, len(self.parts))
        return rebuilt(
            self.observation_space, [showing(part, b) for part, b in zip(self.parts, self.bits, strict=True)]
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        reward = float((np.asarray(action) == self.bits).mean()) / LENGTH
        self.time += 1
        return self._observe(), reward, self.time == LENGTH, False, {}


@struct.dataclass
class ShowingState(gymnax_environment.EnvState):
    """time i32[]; bits i32[4]."""

    time: Any
    bits: jax.Array


class Showing(gymnax_environment.Environment[ShowingState, gymnax_environment.EnvParams]):
    """`Repeating` on the device, with a picture, a choice, a vector and a number in nested spaces of gymnax."""

    name = "Showing"

    @property
    def default_params(self) -> gymnax_environment.EnvParams:
        return gymnax_environment.EnvParams(max_steps_in_episode=LENGTH)

    def _observe(self, bits: jax.Array) -> Any:
        picture = jnp.full((9, 8, 2), 255, jnp.uint8) * bits[0].astype(jnp.uint8)
        sides = jnp.full((3,), 2.0) * bits[2]
        return {"seen": picture, "rest": (bits[1], {"sides": sides, "speed": bits[3] - 0.5})}

    def reset_env(self, key: jax.Array, params: Any) -> tuple[Any, ShowingState]:
        bits = jax.random.randint(key, (4,), 0, 2)
        return self._observe(bits), ShowingState(time=jnp.int32(0), bits=bits)

    def step_env(self, key: jax.Array, state: ShowingState, action: Any, params: Any) -> tuple:
        reward = (action == state.bits).mean() / LENGTH
        state = ShowingState(time=state.time + 1, bits=jax.random.randint(key, (4,), 0, 2))
        return self._observe(state.bits), state, reward, jnp.bool_(False), {}

    def observation_space(self, params: Any) -> gymnax_spaces.Dict:
        rest = gymnax_spaces.Tuple(
            [
                gymnax_spaces.Discrete(3),
                gymnax_spaces.Dict(
                    {
                        "sides": gymnax_spaces.Box(0.0, 2.0, (3,), jnp.float32),
                        "speed": gymnax_spaces.Box(-0.5, 0.5, (), jnp.float32),
                    }
                ),
            ]
        )
        return gymnax_spaces.Dict({"seen": gymnax_spaces.Box(0, 255, (9, 8, 2), jnp.uint8), "rest": rest})

    def action_space(self, params: Any = None) -> Any:
        return MultiDiscrete((2, 2, 2, 2))


class MultiDiscrete:
    """gymnax has none."""

    def __init__(self, nvec: tuple[int, ...]) -> None:
        self.nvec = np.array(nvec)
        self.shape, self.dtype = self.nvec.shape, jnp.int32
