"""Searing Spotlights: collect coins and reach the exit in the dark while avoiding spotlights."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym import spotlights_options
from trxl_jax.envs.tasks.memory_gym.spotlights import AGENT_RADIUS, SpotlightDraws, draw_spotlights
from trxl_jax.envs.tasks.memory_gym.spotlights_drawing import DrawingOptions, Scene
from trxl_jax.envs.tasks.memory_gym.spotlights_environment import (
    COIN_TOUCH_DISTANCE,
    MARGIN,
    MIN_DISTANCE,
    SpotlightsEnvironment,
    SpotlightsParams,
    SpotlightsState,
    jitter,
    sample_free_position,
    split_uniforms,
    touches,
)
from trxl_jax.envs.tasks.memory_gym.spotlights_options import SpotlightsOptions
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN
from trxl_jax.envs.tasks.options import MAX_INT

_MIN_OBJECT_DISTANCE = 21
"""Minimum distance in pixels between coins, exit and agent at the start."""
_EXIT_TOUCH_DISTANCE = 5 + AGENT_RADIUS


@struct.dataclass(kw_only=True)
class SearingSpotlightsParams(SpotlightsParams):
    """Parameters, in addition to the common ones.

    Fields:
        num_spawns: number of spotlights that appear after the initial ones.
        num_coins: i32[choices], numbers of coins, sampled uniformly.
    """

    num_spawns: int
    num_coins: Any


@struct.dataclass
class SearingSpotlightsLayout:
    """What a reset samples.

    Fields:
        key: key[], random key of what is sampled in steps.
        agent: i32[2], centre of the agent in pixels, x and y.
        rotation: i32[], direction of the agent in multiples of 45 degrees counter-clockwise; 0 is up.
        spotlights: the initial spotlights, with leading axis [I].
        num_coins: i32[], number of coins.
        coins: i32[C, 2], centres of the coins; only the first `num_coins` are used.
        exit: i32[2], centre of the exit.
        spawned: recorded spotlights that appear in steps, with leading axis [M]; None: sample them.
    """

    key: jax.Array
    agent: jax.Array
    rotation: jax.Array
    spotlights: SpotlightDraws
    num_coins: jax.Array
    coins: jax.Array
    exit: jax.Array
    spawned: SpotlightDraws | None = None


@struct.dataclass
class SearingSpotlightsState(SpotlightsState):
    """State, in addition to the common fields.

    Fields:
        num_coins: i32[], number of coins of the episode.
        coins: i32[C, 2], centres of the coins.
        coins_left: bool[C], which coins have not been collected.
        exit: i32[2], centre of the exit.
    """

    num_coins: jax.Array
    coins: jax.Array
    coins_left: jax.Array
    exit: jax.Array


class SearingSpotlights(SpotlightsEnvironment):
    """SearingSpotlights-v0: collect all coins, which opens the exit, and reach the exit.

    Args:
        max_coins: capacity C for coins.
        initial_spawns: number of spotlights at the start.
        capacity: maximum number of spotlights at a time. If there would be more, the episode is truncated.
        drawing_options: options of drawing.
    """

    task = "SearingSpotlights-v0"
    result_names: ClassVar[tuple[str, ...]] = ("agent_health", "coins_collected", "success")

    def __init__(
        self,
        *,
        max_coins: int = 1,
        initial_spawns: int = 4,
        capacity: int = 16,
        drawing_options: DrawingOptions | None = None,
    ) -> None:
        super().__init__(
            initial_spawns=initial_spawns, capacity=capacity, drawing_options=drawing_options or DrawingOptions()
        )
        self.max_coins = max_coins

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> tuple["SearingSpotlights", SearingSpotlightsParams]:
        """Creates the task and its parameters from the options of Memory Gym's `reset`.

        Raises:
            ConfigError: an option is unknown, not supported, or has an invalid value.
        """
        read = SpotlightsOptions(options, spotlights_options.SEARING_SPOTLIGHTS)
        # Memory Gym fails without an exit.
        read.require_default("use_exit", "exit_scale")
        for without_effect in ("spawn_interval_decay", "reward_max_steps"):
            read.number(without_effect)
        num_coins = read.integer_list("num_coins", 0, spotlights_options.MAX_COINS)
        max_coins = max(1, *num_coins)
        common = read.common_params()
        first, more = (
            read.number(name, -MAX_INT, MAX_INT) for name in ("initial_spawn_interval", "spawn_interval_threshold")
        )
        interval = max(1, int(first + more))
        num_spawns = read.integer("num_spawns", 0)
        initial_spawns = read.integer("initial_spawns", 0)
        max_steps = common["max_steps"]
        params = SearingSpotlightsParams(
            **common,
            max_steps_in_episode=max(max_steps, 0),
            spawn_interval=interval,
            num_spawns=num_spawns,
            num_coins=np.array(num_coins, np.int32),
            rewards=read.rewards(max_coins, read.number("reward_exit")),
        )
        max_spawns = min(num_spawns, max_steps // interval) if max_steps > 0 else num_spawns
        env = cls(
            max_coins=max_coins,
            initial_spawns=initial_spawns,
            capacity=read.capacity(initial_spawns, interval, max_spawns, common["min_speed"]),
            drawing_options=read.drawing_options(grey_bar=True, exit_visible=read.boolean("exit_visible")),
        )
        return env, params

    def init_layout(self, key: jax.Array, params: Any, needed: ArrayLike = True) -> SearingSpotlightsLayout:
        """Samples spotlights, agent, coins and exit from a key[]; see the base class."""
        max_count = self.max_coins + 2
        first, offsets, lights, (turn, coins) = split_uniforms(
            key, (2,), (max_count, 2), (5, self.initial_spawns), (2,)
        )
        num_coins = jnp.asarray(params.num_coins)[jnp.floor(coins * len(params.num_coins)).astype(jnp.int32)]
        sampled = params.sample_agent_position
        first = jnp.where(sampled, jnp.floor(first * SCREEN), SCREEN // 2).astype(jnp.int32)
        reach = jnp.where(sampled, MIN_DISTANCE, _MIN_OBJECT_DISTANCE)
        positions = jitter(offsets, _sample_separate_positions(key, first, reach, max_count, num_coins + 2, needed))
        objects = jnp.clip(positions[1:], MARGIN, SCREEN - MARGIN)
        return SearingSpotlightsLayout(
            key=key,
            agent=jnp.where(sampled, positions[0], first),
            rotation=jnp.floor(turn * 8).astype(jnp.int32),
            spotlights=draw_spotlights(lights, params),
            num_coins=num_coins,
            coins=objects[:-1],
            exit=objects[num_coins],
        )

    def reset_from_layout(self, layout: SearingSpotlightsLayout, params: Any) -> SearingSpotlightsState:
        """The state at the start of an episode."""
        return SearingSpotlightsState(
            **self._initial_fields(layout),
            num_coins=layout.num_coins,
            coins=layout.coins,
            coins_left=jnp.arange(self.max_coins) < layout.num_coins,
            exit=layout.exit,
        )

    def transition(
        self, state: SearingSpotlightsState, action: jax.Array, params: Any
    ) -> tuple[SearingSpotlightsState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step with actions i32[2]; see the base class."""
        state = self._advance(state, action, params, params.num_spawns)
        health = jnp.asarray(params.health_left)[state.hits]
        dead = health <= 0
        coins_left = state.coins_left & ~_collected(state)
        collected = (state.coins_left & ~coins_left).sum(dtype=jnp.int32)
        exited = ~coins_left.any() & touches(state.agent, state.exit, _EXIT_TOUCH_DISTANCE)
        reward = jnp.asarray(params.rewards)[state.hit.astype(int), dead.astype(int), collected, exited.astype(int)]
        state = state.replace(coins_left=coins_left, reward=reward)
        all_collected = state.num_coins - coins_left.sum(dtype=jnp.int32)
        info = {
            "agent_health": health,
            # NaN if there are no coins, as in Memory Gym.
            "coins_collected": all_collected.astype(jnp.float32) / state.num_coins.astype(jnp.float32),
            # Dying at the exit gives its reward, but is no success.
            "success": (exited & ~dead).astype(jnp.float32),
        }
        return state, reward, dead | exited | (state.time == params.max_steps), info

    def _task_scene(self, state: SearingSpotlightsState, params: Any) -> Scene:
        return self._scene(
            state,
            params,
            coins=state.coins,
            coins_drawn=state.coins_left,
            coins_shown=jnp.bool_(False),
            exit=state.exit,
            # Without coins, the exit opens in the first step.
            exit_open=~state.coins_left.any() & (state.time > 0),
        )


def _collected(state: SearingSpotlightsState) -> jax.Array:
    """Which coins the agent collects, bool[C].

    Memory Gym removes coins from a list while iterating over it, so that the coin after a collected one is skipped in
    that step.
    """
    touched = touches(state.agent, state.coins, COIN_TOUCH_DISTANCE)
    taken = []
    skipped = jnp.bool_(False)
    for left, touch in zip(state.coins_left, touched):
        takes = left & touch & ~skipped
        skipped = jnp.where(left, takes, skipped)
        taken.append(takes)
    return jnp.stack(taken)


def _sample_separate_positions(
    key: jax.Array, first: jax.Array, reach: jax.Array, max_count: int, count: jax.Array, needed: ArrayLike
) -> jax.Array:
    """Samples positions for coins and exit that keep a minimum distance to each other and to the agent.

    Args:
        key: random key of the layout.
        first: i32[2], position of the agent.
        reach: i32[], minimum distance to the agent.
        max_count: number of rows of the result.
        count: i32[], number of positions needed, including the agent's.
        needed: bool[], whether positions are needed at all.

    Returns:
        i32[max_count, 2], `first` and the sampled positions.
    """
    positions = jnp.zeros((max_count, 2), jnp.int32).at[0].set(first)
    distances = jnp.zeros(max_count, jnp.int32).at[0].set(reach)

    def add(i: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        positions, distances = found
        position = sample_free_position(key, i, positions, distances, jnp.asarray(needed) & (i < count))
        return positions.at[i].set(position), distances.at[i].set(_MIN_OBJECT_DISTANCE)

    return jax.lax.fori_loop(1, max_count, add, (positions, distances))[0]
