"""Searing Spotlights and its endless form: find coins, and an exit, in the dark, and keep out of the lights."""

import math
from typing import Any, ClassVar

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS
from trxl_jax.envs.memory_gym import spotlights_options
from trxl_jax.envs.memory_gym.environment import MemoryGymEnvironment, MultiDiscrete
from trxl_jax.envs.memory_gym.spotlights import (
    AGENT_RADIUS,
    SpotlightDraws,
    Spotlights,
    draw_spotlights,
    first_spotlights,
    step_spotlights,
)
from trxl_jax.envs.memory_gym.spotlights_drawing import BAR_HEIGHT, Look, Scene, draw, draw_debug
from trxl_jax.envs.memory_gym.spotlights_options import SpotlightsOptions
from trxl_jax.envs.memory_gym.sprites import SCREEN

_AGENT_REACH, _THING_REACH = 28, 21
"""Around the agent and around coins and exits there is nothing else within these distances at first."""
_COIN_TOUCHES, _EXIT_TOUCHES = 3 + AGENT_RADIUS, 5 + AGENT_RADIUS
_MARGIN = 7
_START, _PLACES, _SPOTLIGHTS, _COINS = range(4)
"""Purposes of keys; see `_key_of`."""

# By horizontal (none, left, right) and vertical choice (none, up, down), in eighths of a turn; -1 keeps the last.
_ROTATIONS = np.array([[-1, 0, 4], [2, 1, 3], [6, 7, 5]], np.int32)


@struct.dataclass
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

    max_steps_in_episode: int = 256
    max_steps: int = 256
    spawn_interval: int = 40
    min_radius: int = 7
    max_radius: int = 13
    min_speed: float = 0.0025
    max_speed: float = 0.0075
    health_left: Any = None
    health_bar: Any = None
    rewards: Any = None
    light_start: int = 0
    light_step: int = 42
    light_steps: int = 7
    visual_feedback: bool = True
    sample_agent_position: bool = True
    straight_speed: int = 3
    diagonal_speed: int = 2


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


class _SpotlightsEnvironment(MemoryGymEnvironment):
    """What both tasks do.

    Args:
        initial_spawns: lights at the start.
        capacity: lights at a time. One more is left out, and the episode is cut.
        look: what concerns the picture alone.
    """

    fps = 25

    def __init__(self, *, initial_spawns: int, capacity: int, look: Look) -> None:
        if capacity < max(initial_spawns, 1):
            raise ValueError(f"{initial_spawns} spotlights don't fit into {capacity} slots")
        self.initial_spawns, self.capacity, self.look = initial_spawns, capacity, look

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        """Whether a light came that found no slot, which `from_options` makes impossible."""
        return state.spotlights.overflowed

    def action_space(self, params: Any = None) -> MultiDiscrete:
        """Nothing, left or right; nothing, up or down."""
        return MultiDiscrete(3, 3)

    @property
    def num_actions(self) -> int:
        """Of all branches together."""
        return 9

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
            part = jax.random.uniform(_key_of(state.key, _SPOTLIGHTS, index), (5, 1), jnp.float32)
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


class SearingSpotlights(_SpotlightsEnvironment):
    """SearingSpotlights-v0: collect every coin, which opens the exit, and leave.

    Args:
        max_coins: C.
        initial_spawns: lights at the start.
        capacity: lights at a time. One more is left out, and the episode is cut.
        look: what concerns the picture alone.
    """

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
        interval = max(1, int(read.number("initial_spawn_interval") + read.number("spawn_interval_threshold")))
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

    @property
    def name(self) -> str:
        """Id of the task."""
        return "SearingSpotlights-v0"

    def init_layout(self, key: jax.Array, params: Any, needed: ArrayLike = True) -> SearingSpotlightsLayout:
        """Draws lights, agent, coins and exit; see the base class."""
        most = self.max_coins + 2
        first, offsets, lights, (turn, coins) = _parts(key, (2,), (most, 2), (5, self.initial_spawns), (2,))
        num_coins = jnp.asarray(params.num_coins)[jnp.floor(coins * len(params.num_coins)).astype(jnp.int32)]
        sampled = params.sample_agent_position
        first = jnp.where(sampled, jnp.floor(first * SCREEN), SCREEN // 2).astype(jnp.int32)
        reach = jnp.where(sampled, _AGENT_REACH, _THING_REACH)
        places = _scatter(offsets, _separate_places(key, first, reach, most, num_coins + 2, needed))
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
        exited = ~coins_left.any() & _touches(state.agent, state.exit, _EXIT_TOUCHES)
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


class EndlessSearingSpotlights(_SpotlightsEnvironment):
    """Endless-SearingSpotlights-v0: collect one coin after the other.

    Args:
        initial_spawns: lights at the start.
        capacity: lights at a time. One more is left out, and the episode is cut.
        look: what concerns the picture alone.
    """

    result_names: ClassVar[tuple[str, ...]] = ("agent_health", "coins_collected")

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
        interval = max(1, int(np.ceil(read.number("spawn_interval"))))
        initial_spawns = read.whole("initial_spawns", 0)
        max_steps = common["max_steps"]
        params = EndlessSearingSpotlightsParams(
            **common,
            max_steps_in_episode=max_steps if max_steps > 0 else ENDLESS_MAX_EPISODE_STEPS,
            spawn_interval=interval,
            rewards=read.rewards(1, 0.0),
            steps_per_coin=read.limit("steps_per_coin"),
            coin_show_duration=int(np.ceil(read.number("coin_show_duration"))),
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

    @property
    def name(self) -> str:
        """Id of the task."""
        return "Endless-SearingSpotlights-v0"

    def init_layout(self, key: jax.Array, params: Any, needed: ArrayLike = True) -> EndlessSearingSpotlightsLayout:
        """Draws lights, agent and coin, which may be anywhere; see the base class."""
        where, offsets, lights, turn = _parts(key, (2, 2), (2, 2), (5, self.initial_spawns), ())
        agent, coin = _scatter(offsets, jnp.floor(where * SCREEN).astype(jnp.int32))
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
        collected = _touches(state.agent, state.coin, _COIN_TOUCHES)
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


def _move(agent: jax.Array, rotation: jax.Array, action: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
    """The agent one step on, within the screen below the bar."""
    direction = (action == 2).astype(jnp.int32) - (action == 1).astype(jnp.int32)
    speed = jnp.where((direction != 0).all(), params.diagonal_speed, params.straight_speed)
    agent = agent + direction * speed
    upper_left = np.array([AGENT_RADIUS, BAR_HEIGHT + AGENT_RADIUS], np.int32)
    turned = jnp.asarray(_ROTATIONS)[action[0], action[1]]
    return (
        jnp.clip(agent, upper_left, SCREEN - AGENT_RADIUS).astype(jnp.int32),
        jnp.where(turned < 0, rotation, turned),
    )


def _touches(agent: jax.Array, thing: jax.Array, distance: int) -> jax.Array:
    """Whether the agent is at most this far from things i32[..., 2]; in whole numbers, hence exactly."""
    return ((thing - agent) ** 2).sum(axis=-1) <= distance**2


def _collected(state: SearingSpotlightsState) -> jax.Array:
    """Which coins the agent collects, bool[C].

    Memory Gym removes coins from the list that it is walking through, so that the one after a collected one is passed
    over until the next step.
    """
    touched = _touches(state.agent, state.coins, _COIN_TOUCHES)
    taken = []
    passed_over = jnp.bool_(False)
    for left, touch in zip(state.coins_left, touched):
        takes = left & touch & ~passed_over
        passed_over = jnp.where(left, takes, passed_over)
        taken.append(takes)
    return jnp.stack(taken)


def _key_of(key: jax.Array, purpose: int, index: ArrayLike = 0) -> jax.Array:
    return jax.random.fold_in(key, index * (_COINS + 1) + purpose)


def _parts(key: jax.Array, *shapes: tuple[int, ...]) -> list[jax.Array]:
    """What a reset draws, uniform in 0..1 and of these shapes; in one call, which is less to compile."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(jax.random.uniform(_key_of(key, _START), (ends[-1],), jnp.float32), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes)]


def _scatter(part: jax.Array, places: jax.Array) -> jax.Array:
    """Moves places by 2 or 3 pixels right and down each; part is uniform in 0..1."""
    return places + 2 + (part < 0.5)


def _next_coin(state: EndlessSearingSpotlightsState, needed: jax.Array) -> jax.Array:
    """Where the coin after this one is, away from it."""
    key = _key_of(state.key, _COINS, state.coins_collected)
    place = _free_place(key, 0, state.coin[None], jnp.full(1, _AGENT_REACH, jnp.int32), needed)
    part = jax.random.uniform(_key_of(key, _START), (2,), jnp.float32)
    return jnp.clip(_scatter(part, place), _MARGIN, SCREEN - _MARGIN)


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
        place = _free_place(key, i, places, reaches, jnp.asarray(needed) & (i < count))
        return places.at[i].set(place), reaches.at[i].set(_THING_REACH)

    return jax.lax.fori_loop(1, most, add, (places, reaches))[0]


def _free_place(key: jax.Array, index: ArrayLike, taken: jax.Array, reach: jax.Array, needed: ArrayLike) -> jax.Array:
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
        part = jax.random.uniform(_key_of(key, _PLACES, index * tries + tried), (at_once, 2), jnp.float32)
        places = jnp.floor(part * SCREEN).astype(jnp.int32)
        distance = ((places[:, None] - taken[None]) ** 2).sum(axis=-1)
        free = (distance >= reach**2).all(axis=1)
        return tried + 1, places[jnp.argmax(free)], free.any()

    start = (jnp.int32(0), jnp.zeros(2, jnp.int32), ~jnp.asarray(needed))
    return jax.lax.while_loop(is_open, look, start)[1]
