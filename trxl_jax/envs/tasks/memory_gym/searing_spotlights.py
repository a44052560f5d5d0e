"""Searing Spotlights: find coins and the exit in the dark, and keep out of the lights."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS
from trxl_jax.envs.tasks.memory_gym import spotlights_options
from trxl_jax.envs.tasks.memory_gym.options import MOST
from trxl_jax.envs.tasks.memory_gym.spotlights import AGENT_RADIUS, SpotlightDraws, draw_spotlights
from trxl_jax.envs.tasks.memory_gym.spotlights_drawing import Look, Scene
from trxl_jax.envs.tasks.memory_gym.spotlights_environment import (
    AGENT_REACH,
    COIN_TOUCHES,
    MARGIN,
    SpotlightsEnvironment,
    SpotlightsParams,
    SpotlightsState,
    free_place,
    parts,
    scatter,
    touches,
)
from trxl_jax.envs.tasks.memory_gym.spotlights_options import SpotlightsOptions
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN

_THING_REACH = 21
"""Around a coin or an exit there is nothing else within this distance at first."""
_EXIT_TOUCHES = 5 + AGENT_RADIUS


@struct.dataclass(kw_only=True)
class SearingSpotlightsParams(SpotlightsParams):
    """Beside the common ones.

    Fields:
        num_spawns: lights that come after the first.
        num_coins: i32[choices].
    """

    num_spawns: int
    num_coins: Any


@struct.dataclass
class SearingSpotlightsLayout:
    """What a reset draws.

    Fields:
        key: of what steps draw.
        agent: i32[2], its centre.
        rotation: i32[], eighths of a turn to the left.
        spotlights: the first ones, [I].
        num_coins: i32[].
        coins: i32[C, 2], their centres; only the first `num_coins` mean something.
        exit: i32[2], its centre.
        spawned: [M] lights that come in steps, in place of the key's; None to draw them.
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
    """Beside the common fields.

    Fields:
        num_coins: i32[], of the episode.
        coins: i32[C, 2], their centres.
        coins_left: bool[C].
        exit: i32[2], its centre.
    """

    num_coins: jax.Array
    coins: jax.Array
    coins_left: jax.Array
    exit: jax.Array


class SearingSpotlights(SpotlightsEnvironment):
    """SearingSpotlights-v0: collect every coin, which opens the exit, and leave.

    Args:
        max_coins: C.
        initial_spawns: lights at the start.
        capacity: lights at a time. One more is left out, and the episode is cut.
        look: what concerns the picture alone.
    """

    task = "SearingSpotlights-v0"
    result_names: ClassVar[tuple[str, ...]] = ("agent_health", "coins_collected", "success")

    def __init__(
        self, *, max_coins: int = 1, initial_spawns: int = 4, capacity: int = 16, look: Look | None = None
    ) -> None:
        super().__init__(initial_spawns=initial_spawns, capacity=capacity, look=look or Look())
        self.max_coins = max_coins

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> tuple["SearingSpotlights", SearingSpotlightsParams]:
        """The task and its parameters from Memory Gym's reset options.

        Raises:
            ConfigError: an option that is unknown, or a value that can't be used.
        """
        read = SpotlightsOptions(options, spotlights_options.SEARING_SPOTLIGHTS)
        # Memory Gym itself fails without an exit.
        read.fixed("use_exit", "exit_scale")
        for without_effect in ("spawn_interval_decay", "reward_max_steps"):
            read.number(without_effect)
        num_coins = read.choices("num_coins", 0, spotlights_options.MOST_COINS)
        max_coins = max(1, *num_coins)
        common = read.common_params()
        first, more = (
            read.number(name, -MOST, MOST) for name in ("initial_spawn_interval", "spawn_interval_threshold")
        )
        interval = max(1, int(first + more))
        num_spawns = read.whole("num_spawns", 0)
        initial_spawns = read.whole("initial_spawns", 0)
        max_steps = common["max_steps"]
        params = SearingSpotlightsParams(
            **common,
            max_steps_in_episode=max_steps if max_steps > 0 else ENDLESS_MAX_EPISODE_STEPS,
            spawn_interval=interval,
            num_spawns=num_spawns,
            num_coins=np.array(num_coins, np.int32),
            rewards=read.rewards(max_coins, read.number("reward_exit")),
        )
        most_spawns = min(num_spawns, max_steps // interval) if max_steps > 0 else num_spawns
        env = cls(
            max_coins=max_coins,
            initial_spawns=initial_spawns,
            capacity=read.capacity(initial_spawns, interval, most_spawns, common["min_speed"]),
            look=read.look(bar_is_grey=True, exit_visible=read.flag("exit_visible")),
        )
        return env, params

    def init_layout(self, key: jax.Array, params: Any, needed: ArrayLike = True) -> SearingSpotlightsLayout:
        """Draws lights, agent, coins and exit; see the base class."""
        most = self.max_coins + 2
        first, offsets, lights, (turn, coins) = parts(key, (2,), (most, 2), (5, self.initial_spawns), (2,))
        num_coins = jnp.asarray(params.num_coins)[jnp.floor(coins * len(params.num_coins)).astype(jnp.int32)]
        sampled = params.sample_agent_position
        first = jnp.where(sampled, jnp.floor(first * SCREEN), SCREEN // 2).astype(jnp.int32)
        reach = jnp.where(sampled, AGENT_REACH, _THING_REACH)
        places = scatter(offsets, _separate_places(key, first, reach, most, num_coins + 2, needed))
        things = jnp.clip(places[1:], MARGIN, SCREEN - MARGIN)
        return SearingSpotlightsLayout(
            key=key,
            agent=jnp.where(sampled, places[0], first),
            rotation=jnp.floor(turn * 8).astype(jnp.int32),
            spotlights=draw_spotlights(lights, params),
            num_coins=num_coins,
            coins=things[:-1],
            exit=things[num_coins],
        )

    def reset_from_layout(self, layout: SearingSpotlightsLayout, params: Any) -> SearingSpotlightsState:
        """The state at the start of an episode."""
        return SearingSpotlightsState(
            **self._first_fields(layout),
            num_coins=layout.num_coins,
            coins=layout.coins,
            coins_left=jnp.arange(self.max_coins) < layout.num_coins,
            exit=layout.exit,
        )

    def transition(
        self, state: SearingSpotlightsState, action: jax.Array, params: Any
    ) -> tuple[SearingSpotlightsState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step; see the base class."""
        state = self._advance(state, action, params, params.num_spawns)
        health = jnp.asarray(params.health_left)[state.hits]
        dead = health <= 0
        coins_left = state.coins_left & ~_collected(state)
        collected = (state.coins_left & ~coins_left).sum(dtype=jnp.int32)
        exited = ~coins_left.any() & touches(state.agent, state.exit, _EXIT_TOUCHES)
        reward = jnp.asarray(params.rewards)[state.hit.astype(int), dead.astype(int), collected, exited.astype(int)]
        state = state.replace(coins_left=coins_left, reward=reward)
        all_collected = state.num_coins - coins_left.sum(dtype=jnp.int32)
        info = {
            "agent_health": health,
            # Nothing of nothing is not a number in Memory Gym, too.
            "coins_collected": all_collected.astype(jnp.float32) / state.num_coins.astype(jnp.float32),
            # Who dies at the exit gets its reward, but has not succeeded.
            "success": (exited & ~dead).astype(jnp.float32),
        }
        return state, reward, dead | exited | (state.time == params.max_steps), info

    def _things(self, state: SearingSpotlightsState, params: Any) -> Scene:
        return self._scene(
            state,
            params,
            coins=state.coins,
            coins_drawn=state.coins_left,
            coins_shown=jnp.bool_(False),
            exit=state.exit,
            # Even without coins it opens in the first step.
            exit_open=~state.coins_left.any() & (state.time > 0),
        )


def _collected(state: SearingSpotlightsState) -> jax.Array:
    """Which coins the agent collects, bool[C].

    Memory Gym removes coins from the list that it is walking through, so that the one after a collected one is passed
    over until the next step.
    """
    touched = touches(state.agent, state.coins, COIN_TOUCHES)
    taken = []
    passed_over = jnp.bool_(False)
    for left, touch in zip(state.coins_left, touched):
        takes = left & touch & ~passed_over
        passed_over = jnp.where(left, takes, passed_over)
        taken.append(takes)
    return jnp.stack(taken)


def _separate_places(
    key: jax.Array, first: jax.Array, reach: jax.Array, most: int, count: jax.Array, needed: ArrayLike
) -> jax.Array:
    """Places i32[most, 2]: the agent's, and then `count` - 1 for coins and exit, none near an earlier one.

    Args:
        key: of the layout.
        first: i32[2], the agent's.
        reach: i32[], how far the others stay away from it.
        most: places of the result.
        count: i32[], those that are looked for.
        needed: bool[], whether any is.
    """
    places = jnp.zeros((most, 2), jnp.int32).at[0].set(first)
    reaches = jnp.zeros(most, jnp.int32).at[0].set(reach)

    def add(i: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        places, reaches = found
        place = free_place(key, i, places, reaches, jnp.asarray(needed) & (i < count))
        return places.at[i].set(place), reaches.at[i].set(_THING_REACH)

    return jax.lax.fori_loop(1, most, add, (places, reaches))[0]
