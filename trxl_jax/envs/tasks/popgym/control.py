"""POPGym's control tasks: CartPole and Pendulum of which only a part is seen, some of them with noise.

Equations are those of Gymnasium's `cartpole.py` (Euler) and `pendulum.py`. They are computed in the precision of the
layout: float32 where it is drawn here, float64 in the released package.
"""

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment as gymnax_environment
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.popgym.environment import POPGymEnvironment, RewardParams, share

_MAX_LENGTH = 10**6

# CartPole, in SI units.
_GRAVITY, _CART, _POLE, _HALF_LENGTH, _FORCE, _STEP = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
_TOTAL, _POLE_MOMENT = _CART + _POLE, _POLE * _HALF_LENGTH
X_LIMIT, ANGLE_LIMIT = 2.4, 12 * 2 * math.pi / 360
"""The cart's distance from the middle and the pole's angle at which an episode ends."""

_CART_POLE_BOUNDS = np.array([2 * X_LIMIT, 2 * ANGLE_LIMIT], np.float32)
_STARTS = 0.05

# Pendulum.
_TORQUE, _SPEED, _PENDULUM_STEP, _PENDULUM_GRAVITY = 2.0, 8.0, 0.05, 10.0
_LOWEST_REWARD = -16.2736044
_UNIT = np.ones(2, np.float32)


class ControlLayout(NamedTuple):
    """What a reset draws.

    Fields:
        body: float[4] (position, speed, angle, angular speed of CartPole), or float[2] (angle, speed of Pendulum).
        noise: f32[2], of the first observation; zeros in tasks without.
    """

    body: jax.Array
    noise: jax.Array


@struct.dataclass
class ControlState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        body, noise: as in the layout, at present.
    """

    time: Any
    body: jax.Array
    noise: jax.Array


class ControlTask(POPGymEnvironment):
    """Base class of the tasks.

    Args:
        max_episode_length: steps after which an episode is truncated.
        noise_sigma: standard deviation of the noise of observations; None: without noise.
    """

    fps = 30
    bounds: np.ndarray

    def __init__(self, max_episode_length: int = 200, noise_sigma: float | None = None) -> None:
        noise = {} if noise_sigma is None else {"noise_sigma": noise_sigma}
        super().__init__(max_episode_length=max_episode_length, **noise)
        self.noise_sigma = noise_sigma

    def read_options(self, read: Options) -> dict[str, Any]:
        """See `POPGymEnvironment`."""
        settings: dict[str, Any] = {"max_episode_length": read.integer("max_episode_length", 1, _MAX_LENGTH)}
        return settings | ({"noise_sigma": read.number("noise_sigma", 0)} if read.has("noise_sigma") else {})

    @property
    def default_params(self) -> RewardParams:
        """All rewards of the longest episode are worth 1 at best."""
        length = self.settings["max_episode_length"]
        return RewardParams(length, share(1, length))

    def init_layout(self, key: jax.Array, params: RewardParams) -> ControlLayout:
        """Draws the body's state, and the first noise, from a key[]."""
        body_key, noise_key = jax.random.split(key)
        return ControlLayout(self.first_body(body_key), self._noise(noise_key))

    def reset_from_layout(self, layout: ControlLayout, params: RewardParams) -> ControlState:
        """The state at the start of an episode."""
        return ControlState(time=jnp.int32(0), body=layout.body, noise=layout.noise)

    def transition(
        self, key: jax.Array, state: ControlState, action: jax.Array, params: RewardParams
    ) -> tuple[ControlState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[] of CartPole, 0 left, 1 right; f32[1] of Pendulum, the torque."""
        body, reward, terminated = self.move(state.body, action)
        state = ControlState(time=state.time + 1, body=body, noise=self._noise(key))
        truncated = jnp.asarray(state.time >= params.max_steps_in_episode)
        return state, (reward * params.reward).astype(jnp.float32), terminated, truncated

    def observation(self, state: ControlState) -> jax.Array:
        """What is seen of the body, f32[2], with noise within the bounds."""
        seen = self.seen(state).astype(jnp.float32)
        return seen if self.noise_sigma is None else jnp.clip(seen + state.noise, -self.bounds, self.bounds)

    def observation_space(self, params: Any = None) -> gymnax_spaces.Box:
        """See `observation`; a position may lie outside where an episode ends."""
        return gymnax_spaces.Box(-self.bounds, self.bounds, (2,), jnp.float32)

    @abstractmethod
    def first_body(self, key: jax.Array) -> jax.Array:
        """Draws the body's state float[n] from a key[]."""

    @abstractmethod
    def move(self, body: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The next body float[n], the reward float[] as a share of the best one, and whether it fell, bool[]."""

    @abstractmethod
    def seen(self, state: ControlState) -> jax.Array:
        """The part float[2] of the body that is seen."""

    def _noise(self, key: jax.Array) -> jax.Array:
        if self.noise_sigma is None:
            return jnp.zeros(2, jnp.float32)
        return jnp.float32(self.noise_sigma) * jax.random.normal(key, (2,), jnp.float32)


class PositionOnlyCartPole(ControlTask):
    """CartPole without its speeds; also the noisy one."""

    bounds = _CART_POLE_BOUNDS

    def first_body(self, key: jax.Array) -> jax.Array:
        """Near the upright, float[4]."""
        return jax.random.uniform(key, (4,), jnp.float32, -_STARTS, _STARTS)

    def move(self, body: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """One Euler step of float[4]; see `ControlTask`. The step with which the pole falls is rewarded too."""
        _, speed, angle, turn = body
        force = jnp.where(action == 1, _FORCE, -_FORCE)
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
        push = (force + _POLE_MOMENT * turn**2 * sine) / _TOTAL
        turning = (_GRAVITY * sine - cosine * push) / (_HALF_LENGTH * (4 / 3 - _POLE * cosine**2 / _TOTAL))
        pushed = push - _POLE_MOMENT * turning * cosine / _TOTAL
        body = body + _STEP * jnp.stack([speed, pushed, turn, turning])
        fell = (jnp.abs(body[0]) > X_LIMIT) | (jnp.abs(body[2]) > ANGLE_LIMIT)
        return body, jnp.float32(1), fell

    def seen(self, state: ControlState) -> jax.Array:
        """Position and angle, float[2]."""
        return state.body[jnp.array([0, 2])]

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """Push to the left, to the right."""
        return gymnax_spaces.Discrete(2)

    def render_debug(self, state: ControlState, params: RewardParams) -> jax.Array:
        """A picture u8[100, 240, 3] of cart and pole."""
        cart = 120 + state.body[0] * 48
        tip = cart + 70 * jnp.sin(state.body[2]), 85 - 70 * jnp.cos(state.body[2])
        picture = _draw_line(jnp.full((100, 240, 3), 255.0), (0, 95), (240, 95), 1, (150, 150, 150))
        picture = _draw_line(picture, (cart - 12, 87), (cart + 12, 87), 6, (60, 60, 60))
        return _draw_line(picture, (cart, 85), tip, 3, (190, 100, 40)).astype(jnp.uint8)


class VelocityOnlyCartPole(PositionOnlyCartPole):
    """CartPole without position and angle, except in the first observation, which shows them instead of the speeds."""

    bounds = np.full(2, np.inf, np.float32)

    def seen(self, state: ControlState) -> jax.Array:
        """Both speeds, float[2]; first position and angle, as in the released package."""
        return jnp.where(state.time == 0, state.body[jnp.array([0, 2])], state.body[jnp.array([1, 3])])


class PositionOnlyPendulum(ControlTask):
    """Pendulum without its speed; also the noisy one."""

    bounds = _UNIT

    def first_body(self, key: jax.Array) -> jax.Array:
        """Any angle, and a speed in -1..1, float[2]."""
        limits = jnp.array([jnp.pi, 1.0], jnp.float32)
        return jax.random.uniform(key, (2,), jnp.float32, -limits, limits)

    def move(self, body: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """One step of float[2]; see `ControlTask`."""
        angle, speed = body
        torque = jnp.clip(action.astype(jnp.float32), -_TORQUE, _TORQUE)[0]
        from_top = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = from_top**2 + 0.1 * speed**2 + 0.001 * torque**2
        speed = speed + (1.5 * _PENDULUM_GRAVITY * jnp.sin(angle) + 3 * torque) * _PENDULUM_STEP
        speed = jnp.clip(speed, -_SPEED, _SPEED)
        half = -_LOWEST_REWARD / 2
        return jnp.stack([angle + speed * _PENDULUM_STEP, speed]), (half - cost) / half, jnp.bool_(False)

    def seen(self, state: ControlState) -> jax.Array:
        """Cosine and sine of the angle from the top, float[2]."""
        return jnp.stack([jnp.cos(state.body[0]), jnp.sin(state.body[0])])

    def action_space(self, params: Any = None) -> gymnax_spaces.Box:
        """The torque, f32[1]."""
        return gymnax_spaces.Box(-_TORQUE, _TORQUE, (1,), jnp.float32)

    @property
    def num_actions(self) -> int:
        """Dimensions of an action: 1."""
        return 1

    def render_debug(self, state: ControlState, params: RewardParams) -> jax.Array:
        """A picture u8[120, 120, 3] of the pendulum; up is the goal."""
        tip = 60 - 50 * jnp.sin(state.body[0]), 60 - 50 * jnp.cos(state.body[0])
        picture = _draw_line(jnp.full((120, 120, 3), 255.0), (60, 60), tip, 4, (200, 70, 70))
        return picture.astype(jnp.uint8)


def _draw_line(picture: jax.Array, start: Any, end: Any, radius: float, colour: tuple[int, int, int]) -> jax.Array:
    """A picture f32[height, width, 3] with a thick line between two points (x, y); its edge is smooth."""
    x, y = jnp.arange(picture.shape[1])[None, :] - start[0], jnp.arange(picture.shape[0])[:, None] - start[1]
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = jnp.clip((x * dx + y * dy) / (dx**2 + dy**2), 0, 1)
    distance = jnp.hypot(x - along * dx, y - along * dy)
    share = jnp.clip(radius + 0.5 - distance, 0, 1)[..., None]
    return picture + share * (jnp.array(colour, jnp.float32) - picture)
