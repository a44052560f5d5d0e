"""Searing Spotlights and its endless form: find coins, and an exit, in the dark, and keep out of the lights."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS
from trxl_jax.envs.memory_gym import spotlights_options
from trxl_jax.envs.memory_gym.environment import OVERFLOW
from trxl_jax.envs.memory_gym.options import MOST
from trxl_jax.envs.memory_gym.spotlights import AGENT_RADIUS, SpotlightDraws, draw_spotlights
from trxl_jax.envs.memory_gym.spotlights_drawing import Look, Scene, draw, draw_debug
from trxl_jax.envs.memory_gym.spotlights_environment import (
    COINS,
    START,
    SpotlightsEnvironment,
    SpotlightsParams,
    SpotlightsState,
    free_place,
    key_of,
    parts,
    scatter,
    touches,
)
from trxl_jax.envs.memory_gym.spotlights_options import SpotlightsOptions
from trxl_jax.envs.memory_gym.sprites import SCREEN

_AGENT_REACH, _THING_REACH = 28, 21
"""Around the agent and around coins and exits there is nothing else within these distances at first."""
_COIN_TOUCHES, _EXIT_TOUCHES = 3 + AGENT_RADIUS, 5 + AGENT_RADIUS
_MARGIN = 7


@struct.dataclass
class SearingSpotlightsParams(SpotlightsParams):
    """Beside the common ones.

    Fields:
        num_spawns: lights that come after the first.
        num_coins: i32[choices].
    """

    num_spawns: int = 30
    num_coins: Any = None


@struct.dataclass
class EndlessSearingSpotlightsParams(SpotlightsParams):
    """Beside the common ones.

    Fields:
        steps_per_coin: after which an episode without a coin ends; -1 for never.
        coin_show_duration: steps that a new coin is shown for.
    """

    steps_per_coin: int = 160
    coin_show_duration: int = 6


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
class EndlessSearingSpotlightsLayout:
    """What a reset draws.

    Fields:
        key: of what steps draw.
        agent: i32[2], its centre.
        rotation: i32[], eighths of a turn to the left.
        spotlights: the first ones, [I].
        coin: i32[2], its centre.
        spawned: [M] lights that come in steps, in place of the key's; None to draw them.
        next_coins: i32[M, 2], coins that come in steps, in place of the key's; None to draw them.
    """

    key: jax.Array
    agent: jax.Array
    rotation: jax.Array
    spotlights: SpotlightDraws
    coin: jax.Array
    spawned: SpotlightDraws | None = None
    next_coins: jax.Array | None = None


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


@struct.dataclass
class EndlessSearingSpotlightsState(SpotlightsState):
    """Beside the common fields.

    Fields:
        coin: i32[2], its centre.
        coin_time: i32[], steps since the last coin.
        coins_collected: i32[].
        next_coins: see the layout.
    """

    coin: jax.Array
    coin_time: jax.Array
    coins_collected: jax.Array
    next_coins: jax.Array | None


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
    def from_options(cls, options: dict[str, Any]) -> tuple["SearingSpotlights", SearingSpotlightsParams]:
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

    @property
    def default_params(self) -> SearingSpotlightsParams:
        """Memory Gym's own."""
        return self.from_options({})[1]

    def init_layout(self, key: jax.Array, params: Any, needed: ArrayLike = True) -> SearingSpotlightsLayout:
        """Draws lights, agent, coins and exit; see the base class."""
        most = self.max_coins + 2
        first, offsets, lights, (turn, coins) = parts(key, (2,), (most, 2), (5, self.initial_spawns), (2,))
        num_coins = jnp.asarray(params.num_coins)[jnp.floor(coins * len(params.num_coins)).astype(jnp.int32)]
        sampled = params.sample_agent_position
        first = jnp.where(sampled, jnp.floor(first * SCREEN), SCREEN // 2).astype(jnp.int32)
        reach = jnp.where(sampled, _AGENT_REACH, _THING_REACH)
        places = scatter(offsets, _separate_places(key, first, reach, most, num_coins + 2, needed))
        things = jnp.clip(places[1:], _MARGIN, SCREEN - _MARGIN)
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

    def render(self, state: SearingSpotlightsState, params: Any) -> jax.Array:
        """What the agent sees, u8[84, 84, 3], x first."""
        return draw(self._things(state, params), self.look)

    def render_debug(self, state: SearingSpotlightsState, params: Any) -> jax.Array:
        """What a person sees, u8[336, 336, 3]: agent, coins and exit above the dark."""
        return draw_debug(self._things(state, params), self.look)

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


class EndlessSearingSpotlights(SpotlightsEnvironment):
    """Endless-SearingSpotlights-v0: collect one coin after the other.

    Args:
        initial_spawns: lights at the start.
        capacity: lights at a time. One more is left out, and the episode is cut.
        look: what concerns the picture alone.
    """

    task = "Endless-SearingSpotlights-v0"
    result_names: ClassVar[tuple[str, ...]] = ("agent_health", "coins_collected", OVERFLOW)

    def __init__(self, *, initial_spawns: int = 3, capacity: int = 16, look: Look | None = None) -> None:
        super().__init__(initial_spawns=initial_spawns, capacity=capacity, look=look or Look(bar_is_grey=False))

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> tuple["EndlessSearingSpotlights", EndlessSearingSpotlightsParams]:
        """The task and its parameters from Memory Gym's reset options.

        Raises:
            ConfigError: an option that is unknown, or a value that can't be used.
        """
        read = SpotlightsOptions(options, spotlights_options.ENDLESS_SEARING_SPOTLIGHTS)
        # Memory Gym itself fails without it.
        read.fixed("show_last_action")
        common = read.common_params()
        interval = max(1, int(np.ceil(read.number("spawn_interval", -MOST, MOST))))
        initial_spawns = read.whole("initial_spawns", 0)
        max_steps = common["max_steps"]
        params = EndlessSearingSpotlightsParams(
            **common,
            max_steps_in_episode=max_steps if max_steps > 0 else ENDLESS_MAX_EPISODE_STEPS,
            spawn_interval=interval,
            rewards=read.rewards(1, 0.0),
            steps_per_coin=read.limit("steps_per_coin"),
            coin_show_duration=int(np.ceil(read.number("coin_show_duration", -MOST, MOST))),
        )
        most_spawns = max_steps // interval if max_steps > 0 else np.inf
        env = cls(
            initial_spawns=initial_spawns,
            capacity=read.capacity(initial_spawns, interval, most_spawns, common["min_speed"]),
            look=read.look(bar_is_grey=False, exit_visible=False),
        )
        return env, params

    @property
    def default_params(self) -> EndlessSearingSpotlightsParams:
        """Memory Gym's own."""
        return self.from_options({})[1]

    def init_layout(self, key: jax.Array, params: Any, needed: ArrayLike = True) -> EndlessSearingSpotlightsLayout:
        """Draws lights, agent and coin, which may be anywhere; see the base class."""
        where, offsets, lights, turn = parts(key, (2, 2), (2, 2), (5, self.initial_spawns), ())
        agent, coin = scatter(offsets, jnp.floor(where * SCREEN).astype(jnp.int32))
        return EndlessSearingSpotlightsLayout(
            key=key,
            agent=jnp.where(params.sample_agent_position, agent, SCREEN // 2),
            rotation=jnp.floor(turn * 8).astype(jnp.int32),
            spotlights=draw_spotlights(lights, params),
            coin=jnp.clip(coin, _MARGIN, SCREEN - _MARGIN),
        )

    def reset_from_layout(self, layout: EndlessSearingSpotlightsLayout, params: Any) -> EndlessSearingSpotlightsState:
        """The state at the start of an episode."""
        return EndlessSearingSpotlightsState(
            **self._first_fields(layout),
            coin=layout.coin,
            coin_time=jnp.int32(0),
            coins_collected=jnp.int32(0),
            next_coins=layout.next_coins,
        )

    def transition(
        self, state: EndlessSearingSpotlightsState, action: jax.Array, params: Any
    ) -> tuple[EndlessSearingSpotlightsState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step; see the base class."""
        state = self._advance(state, action, params)
        health = jnp.asarray(params.health_left)[state.hits]
        dead = health <= 0
        collected = touches(state.agent, state.coin, _COIN_TOUCHES)
        coin = _next_coin(state, collected) if state.next_coins is None else state.next_coins[state.coins_collected]
        reward = jnp.asarray(params.rewards)[state.hit.astype(int), dead.astype(int), collected.astype(int), 0]
        coin_time = jnp.where(collected, 0, state.coin_time) + 1
        state = state.replace(
            coin=jnp.where(collected, coin, state.coin),
            coin_time=coin_time,
            coins_collected=state.coins_collected + collected,
            reward=reward,
        )
        late = (coin_time == params.steps_per_coin) | (state.time == params.max_steps)
        info = {"agent_health": health, "coins_collected": state.coins_collected.astype(jnp.float32)}
        return state, reward, dead | late, info

    def render(self, state: EndlessSearingSpotlightsState, params: Any) -> jax.Array:
        """What the agent sees, u8[84, 84, 3], x first."""
        return draw(self._things(state, params), self.look)

    def render_debug(self, state: EndlessSearingSpotlightsState, params: Any) -> jax.Array:
        """What a person sees, u8[336, 336, 3]: agent and coin above the dark."""
        return draw_debug(self._things(state, params), self.look)

    def _things(self, state: EndlessSearingSpotlightsState, params: Any) -> Scene:
        return self._scene(
            state,
            params,
            coins=state.coin[None],
            coins_drawn=jnp.ones(1, bool),
            coins_shown=state.coin_time < params.coin_show_duration,
            exit=None,
            exit_open=jnp.bool_(False),
        )


def _collected(state: SearingSpotlightsState) -> jax.Array:
    """Which coins the agent collects, bool[C].

    Memory Gym removes coins from the list that it is walking through, so that the one after a collected one is passed
    over until the next step.
    """
    touched = touches(state.agent, state.coins, _COIN_TOUCHES)
    taken = []
    passed_over = jnp.bool_(False)
    for left, touch in zip(state.coins_left, touched):
        takes = left & touch & ~passed_over
        passed_over = jnp.where(left, takes, passed_over)
        taken.append(takes)
    return jnp.stack(taken)


def _next_coin(state: EndlessSearingSpotlightsState, needed: jax.Array) -> jax.Array:
    """Where the coin after this one is, away from it."""
    key = key_of(state.key, COINS, state.coins_collected)
    place = free_place(key, 0, state.coin[None], jnp.full(1, _AGENT_REACH, jnp.int32), needed)
    part = jax.random.uniform(key_of(key, START), (2,), jnp.float32)
    return jnp.clip(scatter(part, place), _MARGIN, SCREEN - _MARGIN)


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
