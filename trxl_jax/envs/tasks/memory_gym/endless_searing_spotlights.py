"""Endless Searing Spotlights: collect one coin after the other in the dark, and keep out of the lights."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS
from trxl_jax.envs.tasks.memory_gym import spotlights_options
from trxl_jax.envs.tasks.memory_gym.environment import OVERFLOW
from trxl_jax.envs.tasks.memory_gym.options import MOST
from trxl_jax.envs.tasks.memory_gym.spotlights import SpotlightDraws, draw_spotlights
from trxl_jax.envs.tasks.memory_gym.spotlights_drawing import Look, Scene
from trxl_jax.envs.tasks.memory_gym.spotlights_environment import (
    AGENT_REACH,
    COIN_TOUCHES,
    COINS,
    MARGIN,
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
from trxl_jax.envs.tasks.memory_gym.spotlights_options import SpotlightsOptions
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN


@struct.dataclass(kw_only=True)
class EndlessSearingSpotlightsParams(SpotlightsParams):
    """Beside the common ones.

    Fields:
        steps_per_coin: after which an episode without a coin ends; -1 for never.
        coin_show_duration: steps that a new coin is shown for.
    """

    steps_per_coin: int
    coin_show_duration: int


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
    def from_options(
        cls, options: Mapping[str, Any]
    ) -> tuple["EndlessSearingSpotlights", EndlessSearingSpotlightsParams]:
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

    def init_layout(self, key: jax.Array, params: Any, needed: ArrayLike = True) -> EndlessSearingSpotlightsLayout:
        """Draws lights, agent and coin, which may be anywhere; see the base class."""
        where, offsets, lights, turn = parts(key, (2, 2), (2, 2), (5, self.initial_spawns), ())
        agent, coin = scatter(offsets, jnp.floor(where * SCREEN).astype(jnp.int32))
        return EndlessSearingSpotlightsLayout(
            key=key,
            agent=jnp.where(params.sample_agent_position, agent, SCREEN // 2),
            rotation=jnp.floor(turn * 8).astype(jnp.int32),
            spotlights=draw_spotlights(lights, params),
            coin=jnp.clip(coin, MARGIN, SCREEN - MARGIN),
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
        collected = touches(state.agent, state.coin, COIN_TOUCHES)
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


def _next_coin(state: EndlessSearingSpotlightsState, needed: jax.Array) -> jax.Array:
    """Where the coin after this one is, away from it."""
    key = key_of(state.key, COINS, state.coins_collected)
    place = free_place(key, 0, state.coin[None], jnp.full(1, AGENT_REACH, jnp.int32), needed)
    part = jax.random.uniform(key_of(key, START), (2,), jnp.float32)
    return jnp.clip(scatter(part, place), MARGIN, SCREEN - MARGIN)
