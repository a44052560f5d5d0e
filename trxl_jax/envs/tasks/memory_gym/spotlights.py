"""The lights of Searing Spotlights: how they are drawn from a key, travel, hit and vanish."""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN, load

AGENT_RADIUS = 6


@struct.dataclass
class SpotlightDraws:
    """What is random in spotlights, of whatever leading shape.

    Fields:
        radius: i32[...], pixels.
        speed: f32[...], share of the way in a frame.
        life: i32[...], frames until it has gone all the way.
        angles: i32[..., 3], degrees in 0..359 of its start, its target and the place that bends its way.
    """

    radius: jax.Array
    speed: jax.Array
    life: jax.Array
    angles: jax.Array


@struct.dataclass
class Spotlights:
    """S slots; the lights in them are in the order in which they came, without gaps.

    Positions are in the default float type: float32 moves a disc by a pixel in a few of a million frames, float64
    (`jax_enable_x64`) in none, unless options fix a round speed: a disc may then stand on a whole pixel but for
    rounding, and Memory Gym adds speeds up, where a product is taken here.

    Fields:
        count: i32[], slots in use.
        radius: i32[S], pixels.
        speed: f32[S], share of the way in a frame.
        life: i32[S], frames until a light has gone all the way.
        age: i32[S], frames that it has been drawn in.
        way: f32[S, 3, 2], start, target and bend of its way, x and y.
        centre: i32[S, 2], where it was drawn last.
        drawn: bool[S], whether it is in this frame.
        overflowed: bool[], whether a light came that found no slot; it is left out.
    """

    count: jax.Array
    radius: jax.Array
    speed: jax.Array
    life: jax.Array
    age: jax.Array
    way: jax.Array
    centre: jax.Array
    drawn: jax.Array
    overflowed: jax.Array


def draw_spotlights(part: jax.Array, params: Any) -> SpotlightDraws:
    """Draws lights.

    Args:
        part: f32[5, I], uniform in 0..1; a float32 below 1 has bits enough for a few hundred equal parts.
        params: with min_radius and max_radius, both included, min_speed and max_speed.
    """
    radius = params.min_radius + jnp.floor(part[0] * (params.max_radius - params.min_radius + 1)).astype(jnp.int32)
    speed = params.min_speed + part[1] * (params.max_speed - params.min_speed)
    start, turn, bend = jnp.floor(part[2:] * jnp.array([[360.0], [90.0], [270.0]], jnp.float32)).astype(jnp.int32)
    target = start + 180 + turn - 45
    angles = jnp.stack([start, target, target + bend - 135], axis=-1) % 360
    return SpotlightDraws(
        radius=radius.astype(jnp.int32),
        speed=speed.astype(jnp.float32),
        life=jnp.ceil(1 / speed).astype(jnp.int32),
        angles=angles,
    )


def first_spotlights(draws: SpotlightDraws, capacity: int) -> Spotlights:
    """Slots that hold the given lights, draws with leading [I], I <= S; none is in the frame yet."""
    count = draws.radius.shape[0]

    def slots(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, capacity - count), *((0, 0),) * (x.ndim - 1)))

    return Spotlights(
        count=jnp.int32(count),
        radius=slots(draws.radius),
        speed=slots(draws.speed.astype(float)),
        life=slots(draws.life),
        age=jnp.zeros(capacity, jnp.int32),
        way=slots(_way(draws)),
        centre=jnp.zeros((capacity, 2), jnp.int32),
        drawn=jnp.zeros(capacity, bool),
        overflowed=jnp.bool_(False),
    )


def step_spotlights(
    lights: Spotlights, draws: SpotlightDraws, spawned: ArrayLike, agent: jax.Array
) -> tuple[Spotlights, jax.Array]:
    """One frame.

    Args:
        lights: the slots.
        draws: one light that may come, without leading axes.
        spawned: bool[], whether it comes.
        agent: i32[2].

    Returns:
        The slots, and whether a light is on the agent, bool[].
    """
    lights = _append(lights, draws, jnp.asarray(spawned))
    removed, drawn = _removed_and_drawn(lights)
    position = _position(lights)
    offset = position - agent
    hit = drawn & ((offset * offset).sum(axis=1) <= (lights.radius + AGENT_RADIUS) ** 2)
    lights = replace(
        lights,
        centre=jnp.where(drawn[:, None], jnp.trunc(position).astype(jnp.int32), lights.centre),
        age=lights.age + drawn,
        drawn=drawn,
    )
    return _close_gaps(lights, removed), hit.any()


def _way(draws: SpotlightDraws) -> jax.Array:
    # Looked up and not computed, so that every compilation has the same numbers, and in float64 Memory Gym's own.
    return jnp.asarray(_PLACES, float)[draws.radius[..., None], draws.angles]


def _places() -> np.ndarray:
    """Where lights of each radius start, turn and end, by whole degrees around the screen, f64[R + 1, 360, 2]."""
    angles = [angle * math.pi / 180 for angle in range(360)]
    directions = np.array([(math.cos(angle), math.sin(angle)) for angle in angles])
    # Quarter turns are exact in pygame.
    directions[::90] = directions[::90].round()
    radius = np.arange(load()["disc"].shape[0])
    # So far out that they can't be seen yet.
    distance = math.sqrt(2 * SCREEN**2) / 2 + radius
    return SCREEN // 2 + distance[:, None, None] * directions


_PLACES = _places()


def _append(lights: Spotlights, draws: SpotlightDraws, spawned: jax.Array) -> Spotlights:
    capacity = lights.radius.shape[0]
    here = (jnp.arange(capacity) == lights.count) & spawned
    fits = lights.count < capacity
    return replace(
        lights,
        count=lights.count + (spawned & fits),
        radius=jnp.where(here, draws.radius, lights.radius),
        speed=jnp.where(here, draws.speed.astype(float), lights.speed),
        life=jnp.where(here, draws.life, lights.life),
        age=jnp.where(here, 0, lights.age),
        way=jnp.where(here[:, None, None], _way(draws), lights.way),
        overflowed=lights.overflowed | (spawned & ~fits),
    )


def _removed_and_drawn(lights: Spotlights) -> tuple[jax.Array, jax.Array]:
    """Which lights leave and which are in the frame, bool[S] both.

    Memory Gym removes lights from the list that it is walking through, so that whatever follows a removed one is passed
    over in that frame: it neither moves nor shows nor hits, nor is it removed. Of a run of lights at their end every
    other one leaves, therefore, beginning with the first.
    """
    slot = jnp.arange(lights.radius.shape[0], dtype=jnp.int32)
    present = slot < lights.count
    at_end = present & (lights.age >= lights.life)
    run = slot - jax.lax.cummax(jnp.where(at_end, -1, slot))
    removed = at_end & (run % 2 == 1)
    passed_over = jnp.pad(removed[:-1], (1, 0))
    return removed, present & ~removed & ~passed_over


def _position(lights: Spotlights) -> jax.Array:
    """Where lights are on their bent ways, f32[S, 2]."""
    done = (lights.age * lights.speed)[:, None]
    start, target, bend = lights.way[:, 0], lights.way[:, 1], lights.way[:, 2]
    goal = target * (1 - done) + bend * done
    return start * (1 - done) + goal * done


def _close_gaps(lights: Spotlights, removed: jax.Array) -> Spotlights:
    slot = jnp.arange(removed.shape[0], dtype=jnp.int32)
    place = jnp.where(removed, -1, slot - jnp.cumsum(removed, dtype=jnp.int32))
    # The source of each slot, by comparison: a sort of so few costs more.
    source = jnp.where(place[None, :] == slot[:, None], slot[None, :], 0).sum(axis=1, dtype=jnp.int32)
    moved = {
        name: getattr(lights, name)[source] for name in ("radius", "speed", "life", "age", "way", "centre", "drawn")
    }
    count = lights.count - removed.sum(dtype=jnp.int32)
    return replace(lights, **moved | {"count": count, "drawn": moved["drawn"] & (slot < count)})
