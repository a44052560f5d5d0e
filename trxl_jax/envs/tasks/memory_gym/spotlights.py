"""The spotlights of Searing Spotlights: sampling, movement, hits and removal."""

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
    """The random draws of spotlights, with any leading axes.

    Fields:
        radius: i32[...], in pixels.
        speed: f32[...], fraction of the trajectory per frame.
        life: i32[...], frames until the end of the trajectory.
        angles: i32[..., 3], positions of start, target and control point of the trajectory around the screen, in
            degrees 0..359.
    """

    radius: jax.Array
    speed: jax.Array
    life: jax.Array
    angles: jax.Array


@struct.dataclass
class Spotlights:
    """Spotlights in S slots, ordered by age without gaps.

    Positions are computed in the default float type. In float32, a disc is shifted by one pixel in a few of a million
    frames. In float64 (`jax_enable_x64`) this doesn't happen, unless options fix a speed such as 0.05: positions can
    then be whole pixels up to rounding, and Memory Gym adds up speeds where this code multiplies.

    Fields:
        count: i32[], number of slots in use.
        radius: i32[S], in pixels.
        speed: f32[S], fraction of the trajectory per frame.
        life: i32[S], frames until the end of the trajectory.
        age: i32[S], number of frames in which the spotlight has been drawn.
        way: f32[S, 3, 2], start, target and control point of the trajectory, x and y.
        centre: i32[S, 2], position in the last frame in which it was drawn.
        drawn: bool[S], whether it is drawn in this frame.
        overflowed: bool[], whether a new spotlight was dropped because all slots were in use.
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
    """Converts uniform random numbers to spotlights with Memory Gym's distributions.

    Args:
        part: f32[5, I], uniform in [0, 1). float32 is precise enough for a few hundred equal intervals.
        params: has min_radius and max_radius (inclusive), min_speed and max_speed.

    Returns:
        Draws with leading axis [I].
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


def initial_spotlights(draws: SpotlightDraws, capacity: int) -> Spotlights:
    """Creates `capacity` slots that hold the spotlights of `draws`, with leading axis [I]; none is drawn yet."""
    count = draws.radius.shape[0]

    def slots(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, capacity - count), *((0, 0),) * (x.ndim - 1)))

    return Spotlights(
        count=jnp.int32(count),
        radius=slots(draws.radius),
        speed=slots(draws.speed.astype(float)),
        life=slots(draws.life),
        age=jnp.zeros(capacity, jnp.int32),
        way=slots(_trajectory(draws)),
        centre=jnp.zeros((capacity, 2), jnp.int32),
        drawn=jnp.zeros(capacity, bool),
        overflowed=jnp.bool_(False),
    )


def step_spotlights(
    lights: Spotlights, draws: SpotlightDraws, spawned: ArrayLike, agent: jax.Array
) -> tuple[Spotlights, jax.Array]:
    """Advances spotlights by one frame.

    Args:
        lights: the spotlights.
        draws: a spotlight to add, without leading axes.
        spawned: bool[], whether to add it.
        agent: i32[2], centre of the agent.

    Returns:
        The spotlights, and whether one hits the agent, bool[].
    """
    lights = _append(lights, draws, jnp.asarray(spawned))
    removed, drawn = _find_removed_and_drawn(lights)
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


def _trajectory(draws: SpotlightDraws) -> jax.Array:
    # Looked up in a table, so that numbers don't depend on the compiler and, in float64, equal Memory Gym's.
    return jnp.asarray(_TRAJECTORY_POINTS, float)[draws.radius[..., None], draws.angles]


def _trajectory_points() -> np.ndarray:
    """Points on a circle around the screen, by radius of the spotlight and angle in degrees, f64[R + 1, 360, 2]."""
    angles = [angle * math.pi / 180 for angle in range(360)]
    directions = np.array([(math.cos(angle), math.sin(angle)) for angle in angles])
    # pygame treats multiples of 90 degrees exactly.
    directions[::90] = directions[::90].round()
    radius = np.arange(load()["disc"].shape[0])
    # Just far enough outside that the spotlight is invisible.
    distance = math.sqrt(2 * SCREEN**2) / 2 + radius
    return SCREEN // 2 + distance[:, None, None] * directions


_TRAJECTORY_POINTS = _trajectory_points()


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
        way=jnp.where(here[:, None, None], _trajectory(draws), lights.way),
        overflowed=lights.overflowed | (spawned & ~fits),
    )


def _find_removed_and_drawn(lights: Spotlights) -> tuple[jax.Array, jax.Array]:
    """Which spotlights are removed and which are drawn in this frame, bool[S] each.

    Memory Gym removes spotlights from a list while iterating over it. The one after a removed spotlight is therefore
    skipped in that frame: it is not moved, drawn, tested for a hit, or removed. In a run of spotlights at the end of
    their trajectories, every other one is removed, starting with the first.
    """
    slot = jnp.arange(lights.radius.shape[0], dtype=jnp.int32)
    present = slot < lights.count
    at_end = present & (lights.age >= lights.life)
    run_length = slot - jax.lax.cummax(jnp.where(at_end, -1, slot))
    removed = at_end & (run_length % 2 == 1)
    skipped = jnp.pad(removed[:-1], (1, 0))
    return removed, present & ~removed & ~skipped


def _position(lights: Spotlights) -> jax.Array:
    """Positions f32[S, 2] on the trajectories, which are quadratic curves."""
    done = (lights.age * lights.speed)[:, None]
    start, target, bend = lights.way[:, 0], lights.way[:, 1], lights.way[:, 2]
    goal = target * (1 - done) + bend * done
    return start * (1 - done) + goal * done


def _close_gaps(lights: Spotlights, removed: jax.Array) -> Spotlights:
    slot = jnp.arange(removed.shape[0], dtype=jnp.int32)
    target = jnp.where(removed, -1, slot - jnp.cumsum(removed, dtype=jnp.int32))
    # The source of each slot by comparison, which is cheaper than sorting so few.
    source = jnp.where(target[None, :] == slot[:, None], slot[None, :], 0).sum(axis=1, dtype=jnp.int32)
    moved = {
        name: getattr(lights, name)[source] for name in ("radius", "speed", "life", "age", "way", "centre", "drawn")
    }
    count = lights.count - removed.sum(dtype=jnp.int32)
    return replace(lights, **moved | {"count": count, "drawn": moved["drawn"] & (slot < count)})
