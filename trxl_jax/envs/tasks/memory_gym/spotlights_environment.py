"""What the two tasks of Searing Spotlights have in common: the agent, the lights, the bar, and places that are free."""

import math
from abc import abstractmethod
from typing import Any

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym.environment import WALK, MemoryGymEnvironment, direction, rotation_after
from trxl_jax.envs.tasks.memory_gym.spotlights import (
    AGENT_RADIUS,
    SpotlightDraws,
    Spotlights,
    draw_spotlights,
    first_spotlights,
    step_spotlights,
)
from trxl_jax.envs.tasks.memory_gym.spotlights_drawing import BAR_HEIGHT, Look, Scene, draw, draw_debug
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN

_NUM_PURPOSES = 4
START, PLACES, COINS, _SPOTLIGHTS = range(_NUM_PURPOSES)
"""Purposes of keys; see `key_of`."""

AGENT_REACH = 28
"""Around the agent, and around the last coin of the endless task, nothing else is drawn within this distance."""
COIN_TOUCHES = 3 + AGENT_RADIUS
MARGIN = 7
"""Pixels from the screen's edge within which no coin and no exit has its centre."""


@struct.dataclass(kw_only=True)
class SpotlightsParams(gymnax_environment.EnvParams):
    """What both tasks are parametrised by.

    Fields:
        max_steps_in_episode: what the agent is told.
        max_steps: an episode's last step; -1 for none.
        spawn_interval: steps from one new light to the next.
        min_radius, max_radius: of lights, both included.
        min_speed, max_speed: of lights, in shares of their way.
        health_left: f32[H], share of the health after so many hits; the last is where it stays, dead or immortal.
        health_bar: i32[H], columns of the bar that are red then.
        rewards: f32[2, 2, C + 1, 2], by hit, death, coins in the step, exit.
        light_start, light_step, light_steps: opacity of the dark, what a step adds, and in how many steps.
        visual_feedback: whether the floor turns red.
        sample_agent_position: rather than the middle.
        straight_speed, diagonal_speed: of the agent, pixels along each axis.
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
    """What both tasks' states hold.

    Fields:
        time: i32[], steps made.
        key: of what steps draw.
        agent: i32[2], its centre.
        rotation: i32[], eighths of a turn to the left.
        spotlights: the lights.
        hits: i32[], steps in a light, as far as the table of health goes.
        hit: bool[], whether this step was one.
        action: i32[2], the last one.
        reward: f32[], the last one.
        shown_action: i32[2], the one before, which the bar shows.
        shown_reward: f32[], the one before.
        spawned: see the layout.
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
    """What both tasks do.

    Args:
        initial_spawns: lights at the start.
        capacity: lights at a time. One more is left out, and the episode is cut.
        look: what concerns the picture alone.
    """

    nvec = WALK
    fps = 25

    def __init__(self, *, initial_spawns: int, capacity: int, look: Look) -> None:
        if capacity < max(initial_spawns, 1):
            raise ValueError(f"{initial_spawns} spotlights don't fit into {capacity} slots")
        self.initial_spawns, self.capacity, self.look = initial_spawns, capacity, look

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        """Whether a light came that found no slot, which `from_options` makes impossible."""
        return state.spotlights.overflowed

    def render(self, state: Any, params: Any) -> jax.Array:
        """What the agent sees, u8[84, 84, 3], x first."""
        return draw(self._things(state, params), self.look)

    def render_debug(self, state: Any, params: Any) -> jax.Array:
        """What a person sees, u8[336, 336, 3]: agent, coins and exit above the dark."""
        return draw_debug(self._things(state, params), self.look)

    @abstractmethod
    def _things(self, state: Any, params: Any) -> Scene:
        """What `_scene` makes of the state, with the task's coins and exit."""

    def _first_fields(self, layout: Any) -> dict[str, Any]:
        return {
            "time": jnp.int32(0),
            "key": layout.key,
            "agent": layout.agent,
            "rotation": layout.rotation,
            "spotlights": first_spotlights(layout.spotlights, self.capacity),
            "hits": jnp.int32(0),
            "hit": jnp.bool_(False),
            "action": jnp.zeros(2, jnp.int32),
            "reward": jnp.float32(0),
            "shown_action": jnp.zeros(2, jnp.int32),
            "shown_reward": jnp.float32(0),
            "spawned": layout.spawned,
        }

    def _advance(self, state: Any, action: jax.Array, params: Any, most_spawns: ArrayLike | None = None) -> Any:
        """The agent, the lights and the bar; coins and the reward are the tasks' own."""
        time = state.time + 1
        agent, rotation = _move(state.agent, state.rotation, action, params)
        index = time // params.spawn_interval - 1
        spawned = time % params.spawn_interval == 0
        if most_spawns is not None:
            spawned &= index < most_spawns
        if state.spawned is None:
            part = jax.random.uniform(key_of(state.key, _SPOTLIGHTS, index), (5, 1), jnp.float32)
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

    def _scene(self, state: Any, params: Any, **things: Any) -> Scene:
        steps = jnp.minimum(state.time, params.light_steps)
        return Scene(
            agent=state.agent,
            # A reset draws the agent as it was made; a step turns it.
            rotation=jnp.where(state.time == 0, 0, state.rotation),
            lights=state.spotlights,
            hit=state.hit & params.visual_feedback,
            alpha=jnp.minimum(params.light_start + params.light_step * steps, 255),
            health_bar=jnp.asarray(params.health_bar)[state.hits],
            action=state.shown_action,
            rewarded=state.shown_reward > 0,
            started=state.time > 0,
            **things,
        )


def touches(agent: jax.Array, thing: jax.Array, distance: int) -> jax.Array:
    """Whether the agent is at most this far from things i32[..., 2]; in whole numbers, hence exactly."""
    return ((thing - agent) ** 2).sum(axis=-1) <= distance**2


def key_of(key: jax.Array, purpose: int, index: ArrayLike = 0) -> jax.Array:
    """The key for the index-th draw of a purpose; index i32[]."""
    return jax.random.fold_in(key, index * _NUM_PURPOSES + purpose)


def parts(key: jax.Array, *shapes: tuple[int, ...]) -> list[jax.Array]:
    """What a reset draws, uniform in 0..1 and of these shapes; in one call, which is less to compile."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    flat = jnp.split(jax.random.uniform(key_of(key, START), (ends[-1],), jnp.float32), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(flat, shapes)]


def scatter(part: jax.Array, places: jax.Array) -> jax.Array:
    """Moves places by 2 or 3 pixels right and down each; part is uniform in 0..1."""
    return places + 2 + (part < 0.5)


def free_place(key: jax.Array, index: ArrayLike, taken: jax.Array, reach: jax.Array, needed: ArrayLike) -> jax.Array:
    """A place i32[2] anywhere on the screen with no taken one i32[B, 2] closer than its reach i32[B].

    Draws until one is free, eight at a time, which is as if drawn from all free ones as Memory Gym does, but costs
    nothing in environments that need none. Where nothing is free it ends with one that isn't.

    Args:
        key: of the layout, or of a coin.
        index: i32[], of the place among those that are drawn with this key.
        taken: places that are.
        reach: how far to stay away from each.
        needed: bool[], whether to look at all.
    """
    at_once, tries = 8, 1_000

    def is_open(search: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        tried, _, found = search
        return ~found & (tried < tries)

    def look(search: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        tried = search[0]
        part = jax.random.uniform(key_of(key, PLACES, index * tries + tried), (at_once, 2), jnp.float32)
        places = jnp.floor(part * SCREEN).astype(jnp.int32)
        distance = ((places[:, None] - taken[None]) ** 2).sum(axis=-1)
        free = (distance >= reach**2).all(axis=1)
        return tried + 1, places[jnp.argmax(free)], free.any()

    start = (jnp.int32(0), jnp.zeros(2, jnp.int32), ~jnp.asarray(needed))
    return jax.lax.while_loop(is_open, look, start)[1]


def _move(agent: jax.Array, rotation: jax.Array, action: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
    """The agent one step on, within the screen below the bar."""
    towards = direction(action)
    speed = jnp.where((towards != 0).all(), params.diagonal_speed, params.straight_speed)
    agent = agent + towards * speed
    upper_left = np.array([AGENT_RADIUS, BAR_HEIGHT + AGENT_RADIUS], np.int32)
    return jnp.clip(agent, upper_left, SCREEN - AGENT_RADIUS).astype(jnp.int32), rotation_after(rotation, action)
