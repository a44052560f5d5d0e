"""Small environments on the device."""

from typing import Any, NamedTuple

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces

from tests.support.actions import score
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec, TimeStep
from trxl_jax.envs.device.environment import DeviceEnvironment
from trxl_jax.envs.observations import numbers
from trxl_jax.envs.stats import EpisodeStats

_UNIT = 64  # positions are multiples of 1 / 64: all arithmetic is exact, however it is compiled


class WanderingState(NamedTuple):
    """position i32[N, 2], time i32[N], episode i32[N], its number, and episode_return f32[N]."""

    position: jax.Array
    time: jax.Array
    episode: jax.Array
    episode_return: jax.Array


class Wandering(DeviceEnvironment):
    """N points that actions push about and that earn by their place. Everything else is a function of its number.

    An episode terminates after 1 to 14 steps and is truncated after 9; in some both happen at once.

    Args:
        num_envs: N.
        nvec: choices of each action branch.
        max_episode_steps: E, of the positional encoding.
    """

    longest = 9

    def __init__(self, num_envs: int, nvec: tuple[int, ...] = (3,), max_episode_steps: int = 16) -> None:
        self.num_envs = num_envs
        self.spec = EnvSpec(numbers(3), DiscreteActions(nvec), max_episode_steps)

    def reset(self, key: jax.Array) -> tuple[WanderingState, jax.Array]:
        zeros = jnp.zeros(self.num_envs, jnp.int32)
        state = WanderingState(self._start(zeros), zeros, zeros, zeros.astype(jnp.float32))
        return state, _observe(state)

    def step(self, env_state: WanderingState, action: jax.Array) -> tuple[WanderingState, TimeStep]:
        position, time, episode, episode_return = env_state
        time = time + 1
        drift = self._draw(61, episode, time)[:, None] - 30 + jnp.array([20, -20])
        push = 24 * action[:, [0, -1]] - 20
        position = position * 3 // 4 + drift + push
        reward = (position[:, 0] * position[:, 1] + _UNIT * push.sum(axis=1)) / _UNIT**2
        terminated = time == 1 + self._draw(14, episode, 0)
        truncated = time == self.longest
        done = terminated | truncated
        stats = EpisodeStats(done, episode_return + reward, time)
        last = WanderingState(position, time, episode, stats.episode_return)
        first = WanderingState(self._start(episode + 1), 0 * time, episode + 1, 0 * episode_return)
        following = jax.tree.map(lambda x, y: jnp.where(done if x.ndim == 1 else done[:, None], x, y), first, last)
        return following, TimeStep(_observe(following), reward, terminated, truncated, _observe(last), stats)

    def _start(self, episode: jax.Array) -> jax.Array:
        return jnp.stack([self._draw(201, episode, salt) - 100 for salt in (100, 200)], axis=1)

    def _draw(self, below: int, episode: jax.Array, salt: Any) -> jax.Array:
        """i32[N] in 0 to `below` - 1, by multiplicative hashing."""
        number = (jnp.arange(self.num_envs) * 1000 + episode) * 1000 + salt
        mixed = number.astype(jnp.uint32) * jnp.uint32(2654435761)
        mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(2246822519)
        return ((mixed >> 16) % below).astype(jnp.int32)


def _observe(state: WanderingState) -> jax.Array:
    return jnp.concatenate([state.position / _UNIT, state.time[:, None] / 8], axis=1)


@struct.dataclass
class RememberingState(gymnax_environment.EnvState):
    """time i32[]; ones i32[], how often action 1 was taken."""

    time: Any
    ones: jax.Array


class Remembering(gymnax_environment.Environment[RememberingState, gymnax_environment.EnvParams]):
    """Always shows the same; an episode of 64 steps earns what shows which actions were taken in it."""

    result_names = ("ones",)

    @property
    def default_params(self) -> gymnax_environment.EnvParams:
        return gymnax_environment.EnvParams(max_steps_in_episode=64)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, RememberingState]:
        return jnp.zeros(1), RememberingState(time=jnp.int32(0), ones=jnp.int32(0))

    def step_env(self, key: jax.Array, state: RememberingState, action: Any, params: Any) -> tuple:
        reward = action * jnp.sin(1.0 + state.time)
        state = state.replace(time=state.time + 1, ones=state.ones + action)
        return jnp.zeros(1), state, reward, jnp.bool_(False), {"ones": state.ones}

    def observation_space(self, params: Any) -> spaces.Box:
        return spaces.Box(0.0, 0.0, (1,), jnp.float32)

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(2)


@struct.dataclass
class CuedState(gymnax_environment.EnvState):
    """time i32[]; cue f32[], 1 or -1."""

    time: Any
    cue: jax.Array


class Cued(gymnax_environment.Environment[CuedState, gymnax_environment.EnvParams]):
    """Each step of 8 shows 1 or -1, which decides the best action; `probes.Cued` on the host.

    Args:
        space: of actions, gymnax's or Gymnasium's.
    """

    def __init__(self, space: Any) -> None:
        super().__init__()
        self.space = space

    @property
    def default_params(self) -> gymnax_environment.EnvParams:
        return gymnax_environment.EnvParams(max_steps_in_episode=8)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, CuedState]:
        state = CuedState(time=jnp.int32(0), cue=jax.random.rademacher(key, (), jnp.float32))
        return state.cue[None], state

    def step_env(self, key: jax.Array, state: CuedState, action: Any, params: Any) -> tuple:
        reward = score(self.space, action, state.cue)
        state = CuedState(time=state.time + 1, cue=jax.random.rademacher(key, (), jnp.float32))
        return state.cue[None], state, reward, jnp.bool_(False), {}

    def observation_space(self, params: Any) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,), jnp.float32)

    def action_space(self, params: Any = None) -> Any:
        return self.space


@struct.dataclass
class MagnifiedState(gymnax_environment.EnvState):
    """time i32[]; place i32[]."""

    time: Any
    place: jax.Array


class Counting(gymnax_environment.Environment[gymnax_environment.EnvState, gymnax_environment.EnvParams]):
    """Shows the number of the step, earns by step and action, is truncated after 5; `probes.Paying` on the host."""

    @property
    def default_params(self) -> gymnax_environment.EnvParams:
        return gymnax_environment.EnvParams(max_steps_in_episode=5)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, gymnax_environment.EnvState]:
        return jnp.zeros(1), gymnax_environment.EnvState(time=jnp.int32(0))

    def step_env(self, key: jax.Array, state: Any, action: Any, params: Any) -> tuple:
        state = state.replace(time=state.time + 1)
        obs = state.time.astype(jnp.float32)[None]
        return obs, state, obs[0] * (action + 0.5), jnp.bool_(False), {}

    def observation_space(self, params: Any) -> spaces.Box:
        return spaces.Box(0.0, 5.0, (1,), jnp.float32)

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(2)


class Magnified(gymnax_environment.Environment[gymnax_environment.EnvState, gymnax_environment.EnvParams]):
    """Shows one of four places in tens of thousands, and pays a thousand for naming it; 8 steps."""

    @property
    def default_params(self) -> gymnax_environment.EnvParams:
        return gymnax_environment.EnvParams(max_steps_in_episode=8)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, MagnifiedState]:
        state = MagnifiedState(time=jnp.int32(0), place=jax.random.randint(key, (), 0, 4))
        return self._observe(state), state

    def step_env(self, key: jax.Array, state: MagnifiedState, action: Any, params: Any) -> tuple:
        reward = 1e3 * (action == state.place)
        state = state.replace(time=state.time + 1, place=jax.random.randint(key, (), 0, 4))
        return self._observe(state), state, reward, jnp.bool_(False), {}

    def _observe(self, state: MagnifiedState) -> jax.Array:
        return 1e4 * (3 + jax.nn.one_hot(state.place, 4))

    def observation_space(self, params: Any) -> spaces.Box:
        return spaces.Box(0.0, 1e5, (4,), jnp.float32)

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(4)
