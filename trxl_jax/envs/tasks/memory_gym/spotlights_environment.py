"""What both Searing Spotlights tasks share: agent, spotlights, bar, and sampling of free positions."""

import math
from abc import abstractmethod
from typing import Any

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym.environment import FREE_NVEC, MemoryGymEnvironment, direction, next_rotation
from trxl_jax.envs.tasks.memory_gym.spotlights import (
    AGENT_RADIUS,
    SpotlightDraws,
    Spotlights,
    draw_spotlights,
    initial_spotlights,
    step_spotlights,
)
from trxl_jax.envs.tasks.memory_gym.spotlights_drawing import BAR_HEIGHT, DrawingOptions, Scene, draw, draw_debug
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN

_NUM_PURPOSES = 4
RESET, POSITIONS, COINS, _SPOTLIGHTS = range(_NUM_PURPOSES)
"""What random keys are used for; see `derive_key`."""

MIN_DISTANCE = 28
"""Minimum distance in pixels of new objects to the agent and, in the endless task, to the previous coin."""
COIN_TOUCH_DISTANCE = 3 + AGENT_RADIUS
MARGIN = 7
"""Minimum distance in pixels of the centre of coins and exit to the screen's edge."""


@struct.dataclass(kw_only=True)
class SpotlightsParams(gymnax_environment.EnvParams):
    """Parameters of both tasks.

    Fields:
        max_steps_in_episode: as `max_steps`, or 0 if there is no limit.
        max_steps: steps after which an episode terminates; -1 for no limit.
        spawn_interval: steps between new spotlights.
        min_radius, max_radius: range of radii of spotlights in pixels, inclusive.
        min_speed, max_speed: range of speeds of spotlights, in fractions of the trajectory per frame.
        health_left: f32[H], fraction of health left by number of hits; further hits don't change the last entry.
        health_bar: i32[H], number of red columns of the bar, by number of hits.
        rewards: f32[2, 2, C + 1, 2], reward of a step, indexed by hit, death, coins collected, exit reached.
        light_start, light_step, light_steps: initial opacity of the dark layer, increment per step, number of
            increments.
        visual_feedback: whether the floor turns red in a hit.
        sample_agent_position: start at a random position instead of the centre.
        straight_speed, diagonal_speed: speed of the agent along each axis, in pixels per step.
    """

    max_steps_in_episode: int
    max_steps: int
    spawn_interval: int
    min_radius: int
    max_radius: int
    min_speed: float
    max_speed: float
    health_left: Any
    health_bar: Any
    rewards: Any
    light_start: int
    light_step: int
    light_steps: int
    visual_feedback: bool
    sample_agent_position: bool
    straight_speed: int
    diagonal_speed: int


@struct.dataclass
class SpotlightsState(gymnax_environment.EnvState):
    """Common fields of both tasks' states.

    Fields:
        time: i32[], steps so far.
        key: key[], random key of what is sampled in steps.
        agent: i32[2], centre of the agent in pixels, x and y.
        rotation: i32[], direction of the agent in multiples of 45 degrees counter-clockwise; 0 is up.
        spotlights: the spotlights.
        hits: i32[], number of steps with a hit, limited to the size of the health table.
        hit: bool[], whether the agent was hit in this step.
        action: i32[2], the last action.
        reward: f32[], the last reward.
        shown_action: i32[2], the action before the last, which the bar shows.
        shown_reward: f32[], the reward before the last.
        spawned: as in the layout.
    """

    time: Any
    key: jax.Array
    agent: jax.Array
    rotation: jax.Array
    spotlights: Spotlights
    hits: jax.Array
    hit: jax.Array
    action: jax.Array
    reward: jax.Array
    shown_action: jax.Array
    shown_reward: jax.Array
    spawned: SpotlightDraws | None


class SpotlightsEnvironment(MemoryGymEnvironment):
    """Base class of both tasks.

    Args:
        initial_spawns: number of spotlights at the start.
        capacity: maximum number of spotlights at a time. If there would be more, the episode is truncated.
        drawing_options: options of drawing.

    Raises:
        ValueError: the initial spotlights exceed the capacity.
    """

    nvec = FREE_NVEC
    fps = 25

    def __init__(self, *, initial_spawns: int, capacity: int, drawing_options: DrawingOptions) -> None:
        if capacity < max(initial_spawns, 1):
            raise ValueError(f"{initial_spawns} spotlights don't fit into {capacity} slots")
        self.initial_spawns, self.capacity, self.drawing_options = initial_spawns, capacity, drawing_options

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        """Whether the capacity for spotlights was exceeded, bool[]; impossible with that chosen by `from_options`."""
        return state.spotlights.overflowed

    def picture(self, state: Any, params: Any) -> jax.Array:
        """The observation u8[84, 84, 3], indexed [x, y, channel]."""
        return draw(self._task_scene(state, params), self.drawing_options)

    def render_debug(self, state: Any, params: Any) -> jax.Array:
        """A picture with agent, coins and exit visible, u8[336, 336, 3], rows first."""
        return draw_debug(self._task_scene(state, params), self.drawing_options)

    @abstractmethod
    def _task_scene(self, state: Any, params: Any) -> Scene:
        """Calls `_scene` with the task's coins and exit."""

    def _initial_fields(self, layout: Any) -> dict[str, Any]:
        return {
            "time": jnp.int32(0),
            "key": layout.key,
            "agent": layout.agent,
            "rotation": layout.rotation,
            "spotlights": initial_spotlights(layout.spotlights, self.capacity),
            "hits": jnp.int32(0),
            "hit": jnp.bool_(False),
            "action": jnp.zeros(2, jnp.int32),
            "reward": jnp.float32(0),
            "shown_action": jnp.zeros(2, jnp.int32),
            "shown_reward": jnp.float32(0),
            "spawned": layout.spawned,
        }

    def _advance(self, state: Any, action: jax.Array, params: Any, max_spawns: ArrayLike | None = None) -> Any:
        """Advances agent, spotlights and bar by one step; coins and reward are left to the task."""
        time = state.time + 1
        agent, rotation = _move(state.agent, state.rotation, action, params)
        index = time // params.spawn_interval - 1
        spawned = time % params.spawn_interval == 0
        if max_spawns is not None:
            spawned &= index < max_spawns
        if state.spawned is None:
            part = jax.random.uniform(derive_key(state.key, _SPOTLIGHTS, index), (5, 1), jnp.float32)
            draws = jax.tree.map(lambda x: x[0], draw_spotlights(part, params))
        else:
            draws = jax.tree.map(lambda x: x[index], state.spawned)
        lights, hit = step_spotlights(state.spotlights, draws, spawned, agent)
        return state.replace(
            time=time,
            agent=agent,
            rotation=rotation,
            spotlights=lights,
            hits=jnp.minimum(state.hits + hit, len(params.health_left) - 1),
            hit=hit,
            action=action.astype(jnp.int32),
            shown_action=state.action,
            shown_reward=state.reward,
        )

    def _scene(self, state: Any, params: Any, **of_task: Any) -> Scene:
        steps = jnp.minimum(state.time, params.light_steps)
        return Scene(
            agent=state.agent,
            # Memory Gym applies the initial rotation only in the first step.
            rotation=jnp.where(state.time == 0, 0, state.rotation),
            lights=state.spotlights,
            hit=state.hit & params.visual_feedback,
            alpha=jnp.minimum(params.light_start + params.light_step * steps, 255),
            health_bar=jnp.asarray(params.health_bar)[state.hits],
            action=state.shown_action,
            rewarded=state.shown_reward > 0,
            started=state.time > 0,
            **of_task,
        )


def touches(agent: jax.Array, objects: jax.Array, distance: int) -> jax.Array:
    """Whether the agent i32[2] is within a distance of objects i32[..., 2], bool[...]. Integers make this exact."""
    return ((objects - agent) ** 2).sum(axis=-1) <= distance**2


def derive_key(key: jax.Array, purpose: int, index: ArrayLike = 0) -> jax.Array:
    """Derives the random key for the index-th use, i32[], for a purpose."""
    return jax.random.fold_in(key, index * _NUM_PURPOSES + purpose)


def split_uniforms(key: jax.Array, *shapes: tuple[int, ...]) -> list[jax.Array]:
    """Uniform random f32 in [0, 1) of several shapes, from one call of the generator, to reduce compile time."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    flat = jnp.split(jax.random.uniform(derive_key(key, RESET), (ends[-1],), jnp.float32), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(flat, shapes)]


def jitter(part: jax.Array, positions: jax.Array) -> jax.Array:
    """Shifts positions i32[..., 2] by 2 or 3 pixels along each axis; `part` f32[..., 2] is uniform in [0, 1)."""
    return positions + 2 + (part < 0.5)


def sample_free_position(
    key: jax.Array, index: ArrayLike, taken: jax.Array, reach: jax.Array, needed: ArrayLike
) -> jax.Array:
    """Samples a position on the screen that is not too close to other positions.

    Rejection sampling, eight candidates at a time. The distribution equals Memory Gym's, which samples from all free
    positions, but environments that don't need a position cost nothing. After 1,000 attempts without success the result
    is a position that is too close.

    Args:
        key: random key of the layout or of a coin.
        index: i32[], number of the position among those sampled with this key.
        taken: i32[B, 2], the other positions.
        reach: i32[B], minimum distance to each.
        needed: bool[], whether a position is needed; if not, the result is (0, 0).

    Returns:
        i32[2].
    """
    candidates, max_attempts = 8, 1_000

    def is_searching(search: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        tried, _, found = search
        return ~found & (tried < max_attempts)

    def try_candidates(search: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        tried = search[0]
        part = jax.random.uniform(
            derive_key(key, POSITIONS, index * max_attempts + tried), (candidates, 2), jnp.float32
        )
        positions = jnp.floor(part * SCREEN).astype(jnp.int32)
        distance = ((positions[:, None] - taken[None]) ** 2).sum(axis=-1)
        free = (distance >= reach**2).all(axis=1)
        return tried + 1, positions[jnp.argmax(free)], free.any()

    start = (jnp.int32(0), jnp.zeros(2, jnp.int32), ~jnp.asarray(needed))
    return jax.lax.while_loop(is_searching, try_candidates, start)[1]


def _move(agent: jax.Array, rotation: jax.Array, action: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
    """Moves the agent within the screen below the bar; returns its centre i32[2] and rotation i32[]."""
    towards = direction(action)
    speed = jnp.where((towards != 0).all(), params.diagonal_speed, params.straight_speed)
    agent = agent + towards * speed
    upper_left = np.array([AGENT_RADIUS, BAR_HEIGHT + AGENT_RADIUS], np.int32)
    return jnp.clip(agent, upper_left, SCREEN - AGENT_RADIUS).astype(jnp.int32), next_rotation(rotation, action)
