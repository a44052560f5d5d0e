"""Endless Searing Spotlights: collect one coin after another in the dark while avoiding spotlights."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym import spotlights_options
from trxl_jax.envs.tasks.memory_gym.environment import OVERFLOW
from trxl_jax.envs.tasks.memory_gym.spotlights import SpotlightDraws, draw_spotlights
from trxl_jax.envs.tasks.memory_gym.spotlights_drawing import DrawingOptions, Scene
from trxl_jax.envs.tasks.memory_gym.spotlights_environment import (
    COIN_TOUCH_DISTANCE,
    COINS,
    MARGIN,
    MIN_DISTANCE,
    RESET,
    SpotlightsEnvironment,
    SpotlightsParams,
    SpotlightsState,
    derive_key,
    jitter,
    sample_free_position,
    split_uniforms,
    touches,
)
from trxl_jax.envs.tasks.memory_gym.spotlights_options import SpotlightsOptions
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN
from trxl_jax.envs.tasks.options import MAX_INT


@struct.dataclass(kw_only=True)
class EndlessSearingSpotlightsParams(SpotlightsParams):
    """Parameters, in addition to the common ones.

    Fields:
        steps_per_coin: steps without collecting a coin after which an episode terminates; -1 for no limit.
        coin_show_duration: steps for which a new coin is visible.
    """

    steps_per_coin: int
    coin_show_duration: int


@struct.dataclass
class EndlessSearingSpotlightsLayout:
    """What a reset samples.

    Fields:
        key: key[], random key of what is sampled in steps.
        agent: i32[2], centre of the agent in pixels, x and y.
        rotation: i32[], direction of the agent in multiples of 45 degrees counter-clockwise; 0 is up.
        spotlights: the initial spotlights, with leading axis [I].
        coin: i32[2], centre of the coin.
        spawned: recorded spotlights that appear in steps, with leading axis [M]; None: sample them.
        next_coins: i32[M, 2], recorded coins that appear in steps; None: sample them.
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
    """State, in addition to the common fields.

    Fields:
        coin: i32[2], centre of the coin.
        coin_time: i32[], steps since the coin appeared.
        coins_collected: i32[], number of coins collected.
        next_coins: as in the layout.
    """

    coin: jax.Array
    coin_time: jax.Array
    coins_collected: jax.Array
    next_coins: jax.Array | None


class EndlessSearingSpotlights(SpotlightsEnvironment):
    """Endless-SearingSpotlights-v0: collect one coin after another.

    Args:
        initial_spawns: number of spotlights at the start.
        capacity: maximum number of spotlights at a time. If there would be more, the episode is truncated.
        drawing_options: options of drawing.
    """

    task = "Endless-SearingSpotlights-v0"
    result_names: ClassVar[tuple[str, ...]] = ("agent_health", "coins_collected", OVERFLOW)

    def __init__(
        self, *, initial_spawns: int = 3, capacity: int = 16, drawing_options: DrawingOptions | None = None
    ) -> None:
        super().__init__(
            initial_spawns=initial_spawns,
            capacity=capacity,
            drawing_options=drawing_options or DrawingOptions(grey_bar=False),
        )

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any]
    ) -> tuple["EndlessSearingSpotlights", EndlessSearingSpotlightsParams]:
        """Creates the task and its parameters from the options of Memory Gym's `reset`.

        Raises:
            ConfigError: an option is unknown, not supported, or has an invalid value.
        """
        read = SpotlightsOptions(options, spotlights_options.ENDLESS_SEARING_SPOTLIGHTS)
        # Memory Gym fails without this option.
        read.require_default("show_last_action")
        common = read.common_params()
        interval = max(1, int(np.ceil(read.number("spawn_interval", -MAX_INT, MAX_INT))))
        initial_spawns = read.integer("initial_spawns", 0)
        max_steps = common["max_steps"]
        params = EndlessSearingSpotlightsParams(
            **common,
            max_steps_in_episode=max(max_steps, 0),
            spawn_interval=interval,
            rewards=read.rewards(1, 0.0),
            steps_per_coin=read.step_limit("steps_per_coin"),
            coin_show_duration=int(np.ceil(read.number("coin_show_duration", -MAX_INT, MAX_INT))),
        )
        max_spawns = max_steps // interval if max_steps > 0 else np.inf
        env = cls(
            initial_spawns=initial_spawns,
            capacity=read.capacity(initial_spawns, interval, max_spawns, common["min_speed"]),
            drawing_options=read.drawing_options(grey_bar=False, exit_visible=False),
        )
        return env, params

    def init_layout(self, key: jax.Array, params: Any, needed: ArrayLike = True) -> EndlessSearingSpotlightsLayout:
        """Samples spotlights, agent and coin from a key[], without a minimum distance; see the base class."""
        where, offsets, lights, turn = split_uniforms(key, (2, 2), (2, 2), (5, self.initial_spawns), ())
        agent, coin = jitter(offsets, jnp.floor(where * SCREEN).astype(jnp.int32))
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
            **self._initial_fields(layout),
            coin=layout.coin,
            coin_time=jnp.int32(0),
            coins_collected=jnp.int32(0),
            next_coins=layout.next_coins,
        )

    def transition(
        self, state: EndlessSearingSpotlightsState, action: jax.Array, params: Any
    ) -> tuple[EndlessSearingSpotlightsState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step with actions i32[2]; see the base class."""
        state = self._advance(state, action, params)
        health = jnp.asarray(params.health_left)[state.hits]
        dead = health <= 0
        collected = touches(state.agent, state.coin, COIN_TOUCH_DISTANCE)
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

    def _task_scene(self, state: EndlessSearingSpotlightsState, params: Any) -> Scene:
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
    """Samples the next coin's centre i32[2], with a minimum distance to the current one."""
    key = derive_key(state.key, COINS, state.coins_collected)
    place = sample_free_position(key, 0, state.coin[None], jnp.full(1, MIN_DISTANCE, jnp.int32), needed)
    part = jax.random.uniform(derive_key(key, RESET), (2,), jnp.float32)
    return jnp.clip(jitter(part, place), MARGIN, SCREEN - MARGIN)
