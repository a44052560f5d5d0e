"""Searing Spotlights in JAX is bit for bit equal to the released Memory Gym, in float64, where no disc is shifted."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import memory_gym.endless_searing_spotlights
import memory_gym.searing_spotlights
import numpy as np
import pytest
import scipy.stats

import trxl_jax.envs.tasks.memory_gym.endless_searing_spotlights as endless_device
import trxl_jax.envs.tasks.memory_gym.searing_spotlights as device
from tests.support.replay import EPISODES, SEED, Recording, record, replay
from trxl_jax.envs.tasks.memory_gym.spotlights import SpotlightDraws
from trxl_jax.errors import ConfigError

pytestmark = pytest.mark.optimised

MAX_SPAWNS, MAX_COINS = 24, 128


class RecordingHost:
    """A Memory Gym environment that records its spotlights and coins in order of creation."""

    def __init__(self, endless: bool) -> None:
        self.endless = endless
        self.module = memory_gym.endless_searing_spotlights if endless else memory_gym.searing_spotlights
        self.env = self.module.EndlessSearingSpotlightsEnv() if endless else self.module.SearingSpotlightsEnv()
        self.spotlights: list[Any] = []
        self.coins: list[Any] = []

    def fresh(self) -> Any:
        """The environment as if newly created: backgrounds and dark layer contain nothing of the previous episode."""
        env, module = self.env, self.module
        dim = env.screen_dim
        env.blue_background_surface = module.get_tiled_background_surface(env.screen, dim, (0, 0, 255), 0.25)
        env.red_background_surface = module.get_tiled_background_surface(env.screen, dim, (255, 0, 0), 0.25)
        env.spotlight_surface.fill(0)
        self.spotlights.clear()
        self.coins.clear()
        return env

    def make(self, options: dict[str, Any] | None = None) -> Any:
        """The JAX task and its parameters."""
        return (endless_device.EndlessSearingSpotlights if self.endless else device.SearingSpotlights).from_options(
            options or {}
        )

    def record(self, seed: int, options: dict[str, Any], policy: Any) -> Recording:
        """Records one episode, with the layouts of this task family."""
        initial = options.get("initial_spawns", 3 if self.endless else 4)
        max_coins = max(1, *options.get("num_coins", [1]))

        def layout(env: Any) -> Any:
            common = {
                "key": np.asarray(jax.random.PRNGKey(0)),
                "agent": np.array(env.agent.rect.center, np.int32),
                "rotation": np.int32(env.agent.rotation // 45),
                "spotlights": draws_of(self.spotlights[:initial]),
            }
            if self.endless:
                return endless_device.EndlessSearingSpotlightsLayout(
                    **common, coin=np.array(env.coin.location, np.int32)
                )
            coins = np.zeros((max_coins, 2), np.int32)
            for i, coin in enumerate(env.coins):
                coins[i] = coin.location
            return device.SearingSpotlightsLayout(
                **common, num_coins=np.int32(env.num_coins), coins=coins, exit=np.array(env.exit.location, np.int32)
            )

        def finish(env: Any, layout: Any) -> Any:
            layout = layout.replace(spawned=padded(draws_of(self.spotlights[initial:]), MAX_SPAWNS))
            if self.endless:
                coins = np.array([coin.location for coin in self.coins[1:]], np.int32).reshape(-1, 2)
                layout = layout.replace(next_coins=padded(coins, MAX_COINS))
            return layout

        return record(self.fresh(), seed, options, policy, layout, finish)


@pytest.fixture(scope="module")
def transition(task: Any) -> Any:
    """The compiled `transition` of one environment."""
    env, params = task
    return jax.jit(lambda state, action: env.transition(state, action, params))


@pytest.fixture(scope="module")
def layouts(task: Any) -> Any:
    """Layouts of 3,000 resets; the last 1,000 are marked as not needed."""
    env, params = task
    keys = jax.random.split(jax.random.key(SEED), 3000)
    return jax.jit(jax.vmap(env.init_layout, (0, None, 0)))(keys, params, jnp.arange(3000) < 2000)


def draws_of(spotlights: list[Any]) -> SpotlightDraws:
    """The random draws of Memory Gym's spotlights."""

    def angle(place: Any) -> int:
        return round(math.degrees(math.atan2(place.y - 42, place.x - 42))) % 360

    return SpotlightDraws(
        radius=np.array([spot.radius for spot in spotlights], np.int32),
        speed=np.array([spot.speed for spot in spotlights], float),
        life=np.array([life_of(spot.speed) for spot in spotlights], np.int32),
        angles=np.array(
            [[angle(s.spawn_location), angle(s.target_location), angle(s.offset_location)] for s in spotlights],
            np.int32,
        ).reshape(-1, 3),
    )


def life_of(speed: float) -> int:
    """Frames until the sum of speeds reaches 1."""
    frames, way = 0, 0.0
    while way < 1:
        frames, way = frames + 1, way + speed
    return frames


def padded(tree: Any, length: int) -> Any:
    return jax.tree.map(lambda x: np.pad(x, ((0, length - len(x)), *((0, 0),) * (x.ndim - 1))), tree)


def recording_class(original: Any, kept: list[Any]) -> Any:
    """A subclass that appends its instances to `kept`."""

    class Kept(original):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            kept.append(self)

    return Kept


@pytest.fixture(scope="module", params=[False, True], ids=["searing", "endless"])
def host_task(request: pytest.FixtureRequest) -> Iterator[RecordingHost]:
    made = RecordingHost(request.param)
    with pytest.MonkeyPatch.context() as patch:
        for name, kept in (("Spotlight", made.spotlights), ("Coin", made.coins)):
            patch.setattr(made.module, name, recording_class(getattr(made.module, name), kept))
        yield made


@pytest.fixture(scope="module")
def recordings(host_task: RecordingHost) -> list[Recording]:
    """Episodes with default options, by all policies in turn."""
    return [host_task.record(SEED + i, {}, POLICIES[i % len(POLICIES)]) for i in range(EPISODES)]


@pytest.fixture(scope="module")
def visited(host_task: RecordingHost, recordings: list[Recording]) -> list[Any]:
    """The states of the JAX task in these episodes, after comparing them bit for bit."""
    with jax.enable_x64(True):
        return replay(*host_task.make(), recordings)


@pytest.fixture(scope="module")
def task(host_task: RecordingHost) -> Any:
    """The task with default options, and its parameters."""
    return host_task.make()


def towards(env: Any, place: Any) -> list[int]:
    """One step of the direct way to a position."""
    x, y = env.agent.rect.center
    return [0 if abs(d) < 2 else 1 if d < 0 else 2 for d in (place[0] - x, place[1] - y)]


def oracle(env: Any, generator: np.random.Generator) -> list[int]:
    if hasattr(env, "coin"):
        return towards(env, env.coin.location)
    return towards(env, env.coins[0].location if env.coins else env.exit.location)


def random(env: Any, generator: np.random.Generator) -> list[int]:
    return [int(x) for x in generator.integers(0, 3, 2)]


def noisy(env: Any, generator: np.random.Generator) -> list[int]:
    return (random if generator.random() < 0.4 else oracle)(env, generator)


def hiding(env: Any, generator: np.random.Generator) -> list[int]:
    """Evades spotlights, for long episodes."""
    x, y = env.agent.rect.center
    moves = [(a, b) for a in range(3) for b in range(3)]

    def danger(move: tuple[int, int]) -> float:
        step = (0, -3, 3)
        place = (min(max(x + step[move[0]], 6), 78), min(max(y + step[move[1]], 10), 78))
        return min((spot.current_location.distance_to(place) - spot.radius for spot in env.spotlights), default=0.0)

    return list(max(moves, key=danger))


POLICIES = (oracle, noisy, random, hiding)


def joined(visited: list[Any]) -> Any:
    """The states of all episodes, concatenated."""
    return jax.tree.map(lambda *x: np.concatenate(x), *[states.replace(spawned=None) for states in visited])


def num_skipped(states: Any) -> np.ndarray:
    """Number of spotlights in each state that Memory Gym's loop skipped."""
    lights = states.spotlights
    there = np.arange(lights.radius.shape[-1]) < lights.count[:, None]
    return (there & ~lights.drawn).sum(axis=1) * (states.time > 0)


def test_default_episodes_are_equal_and_cover_all_branches(host_task, recordings, visited, task) -> None:
    _, params = task
    states = joined(visited)
    lengths = [len(recording.actions) for recording in recordings]
    infos = [recording.info for recording in recordings if recording.dones[-1]]

    assert num_skipped(states).any(), "no spotlight was skipped after a removed one"
    assert states.hit.any()
    assert any(info["agent_health"] == 0 for info in infos), "no agent died"
    assert set(range(10)) <= set(states.time.tolist()), "not all opacities were covered"
    assert max(lengths) >= 2 * params.spawn_interval, "fewer than two spotlights appeared in steps"
    assert not states.spotlights.overflowed.any()
    if host_task.endless:
        assert (states.coin_time < 6).any()
        assert (states.coin_time >= 6).any()
        assert states.coins_collected.max() > 3
        assert (states.coin_time == 160).any(), "no episode ended without collecting a coin"
    else:
        opened = ~states.coins_left.any(axis=1)
        assert opened.any()
        assert not opened.all()
        assert any(info["success"] for info in infos), "no agent reached the exit"
        assert any(info["coins_collected"] == 1 and not info["success"] for info in infos)
        assert max(lengths) == 256, "no episode reached the time limit"


@pytest.mark.slow
def test_float32_shifts_discs_by_a_pixel_in_few_pictures_and_changes_nothing_else(host_task, recordings, task) -> None:
    env, params = task
    render = jax.jit(env.render)
    shifted = []

    def explain(state: Any, picture: np.ndarray) -> None:
        for slot in np.flatnonzero(state.spotlights.drawn):
            for shift in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                centre = state.spotlights.centre.copy()
                centre[slot] += shift
                moved = state.replace(spotlights=state.spotlights.replace(centre=centre))
                if (np.asarray(render(moved, params)) == picture).all():
                    shifted.append(state.time)
                    return
        raise AssertionError(f"the picture after step {state.time} differs by more than a shifted disc")

    replay(env, params, in_float32(recordings), on_difference=explain)
    pictures = sum(len(recording.actions) for recording in recordings)
    print(f"{len(shifted)} of {pictures} pictures with a shifted disc")
    # Few episodes don't allow an estimate of the rate.
    assert len(shifted) <= max(1, 1e-4 * pictures)


def in_float32(recordings: list[Recording]) -> list[Recording]:
    def narrow(x: Any) -> Any:
        return x.astype(np.float32) if x.dtype == np.float64 else x

    return [dataclasses.replace(recording, layout=jax.tree.map(narrow, recording.layout)) for recording in recordings]


# With these speeds, spotlights that appear together end in the same frame. Speeds such as 0.05 would put discs on whole
# pixels up to rounding, and Memory Gym adds up speeds.
RICH = {
    "spot_min_speed": 0.049, "spot_max_speed": 0.0491, "spot_min_radius": 3, "spot_max_radius": 25.0,
    "agent_health": 9, "spot_damage": 0.7, "light_dim_off_duration": 3, "light_threshold": 200,
    "reward_inside_spotlight": -0.1, "reward_outside_spotlight": 0.001, "reward_death": -0.7, "reward_coin": 0.3,
}  # fmt: skip
PLAIN = {
    "black_background": True, "hide_chessboard": True, "light_dim_off_duration": 10, "light_threshold": 150,
    "sample_agent_position": False, "visual_feedback": False, "agent_speed": 4.5,
}  # fmt: skip
SEARING_OPTIONS = [
    RICH | {"num_coins": [2, 4], "initial_spawns": 6, "initial_spawn_interval": 4, "spawn_interval_threshold": 5.5,
            "num_spawns": 4, "max_steps": 60, "reward_exit": 0.9},
    PLAIN | {"max_steps": 70, "coins_visible": True, "show_last_action": False},
    {"hide_chessboard": True, "coins_visible": True, "exit_visible": True, "agent_visible": True, "num_coins": [0, 3],
     "show_last_positive_reward": False, "light_dim_off_duration": 0, "light_threshold": 180, "initial_spawns": 0,
     "visual_feedback": False, "max_steps": 90},
    {"exit_visible": True, "agent_visible": True, "show_last_action": False, "show_last_positive_reward": False,
     "spot_damage": 0, "max_steps": 90, "light_dim_off_duration": 300},
]  # fmt: skip
ENDLESS_OPTIONS = [
    RICH | {"initial_spawns": 6, "spawn_interval": 6.5, "steps_per_coin": 30, "coin_show_duration": 2,
            "max_steps": 100, "agent_health": 8, "spot_damage": 1.5},
    PLAIN | {"max_steps": 70, "coins_visible": True, "agent_visible": True, "show_last_positive_reward": False},
]  # fmt: skip


@pytest.mark.slow
# Memory Gym divides by the number of coins, which may be 0.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_episodes_with_other_options_are_equal(host_task) -> None:
    several = max(6, EPISODES // 8)
    for options in ENDLESS_OPTIONS if host_task.endless else SEARING_OPTIONS:
        recordings = [host_task.record(SEED + i, options, POLICIES[i % len(POLICIES)]) for i in range(several)]
        rich = "reward_death" in options
        if rich and not host_task.endless:
            recordings += [record_near_coins(host_task, seed, options) for seed in range(SEED, SEED + 4)]
        with jax.enable_x64(True):
            states = joined(replay(*host_task.make(options), recordings))
        assert not states.spotlights.overflowed.any()
        if rich:
            assert (num_skipped(states) > 1).any(), "no run of spotlights ended together"
            assert any(recording.info.get("agent_health", 1) < 0 for recording in recordings)
        if rich and not host_task.endless:
            collected = -np.diff(states.coins_left.sum(axis=1))
            assert (collected == 2).any(), "the first and the third coin were not collected together"
            touched = ((states.coins - states.agent[:, None]) ** 2).sum(axis=-1) <= 81
            assert (touched & states.coins_left & (states.time > 0)[:, None]).any(), "no coin was skipped"


def record_near_coins(host_task: RecordingHost, seed: int, options: dict[str, Any]) -> Recording:
    """An episode whose coins are so close together that the agent touches several at once."""
    places = iter([(30, 40), (42, 40), (44, 42), (43, 38), (70, 70), (60, 60)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_task.env.grid_sampler, "sample", lambda *_: next(places))
        return host_task.record(seed, options | {"num_coins": [4]}, oracle)


def test_debug_pictures_equal_memory_gyms(host_task, task, visited) -> None:
    env, params = task
    pictures: list[np.ndarray] = []

    def policy(host: Any, generator: np.random.Generator) -> list[int]:
        host.render_mode = "debug_rgb_array"
        pictures.append(host.render())
        return POLICIES[0](host, generator)

    host_task.record(SEED, {}, policy)
    with jax.enable_x64(True):
        states = jax.tree.map(lambda x: x[: len(pictures)], visited[0])
        ours = jax.jit(lambda states: jax.lax.map(lambda state: env.render_debug(state, params), states))(states)
    np.testing.assert_array_equal(ours, pictures)


@pytest.mark.slow
def test_layouts_have_memory_gyms_distributions(host_task, layouts) -> None:
    host = [host_task.record(i, {}, random_once).layout for i in range(300)]
    host = jax.tree.map(lambda *x: np.stack(x), *[layout.replace(spawned=None) for layout in host])
    ours = jax.tree.map(lambda x: np.asarray(x[:2000]), without_keys(layouts))

    def numbers(layout: Any) -> Iterator[tuple[str, np.ndarray]]:
        yield "rotation", layout.rotation
        things = {"agent": layout.agent}
        if host_task.endless:
            things["coin"] = layout.coin
        else:
            things |= {"coin": layout.coins[:, 0], "exit": layout.exit}
            yield "coin's distance", np.hypot(*(things["coin"] - things["agent"]).T)
            yield "exit's distance", np.hypot(*(things["exit"] - things["coin"]).T)
        for name, place in things.items():
            yield f"{name}'s column", place[:, 0]
            yield f"{name}'s row", place[:, 1]
        lights = layout.spotlights
        start, target, bend = lights.angles.reshape(-1, 3).T
        yield "radius", lights.radius.ravel()
        yield "speed", lights.speed.ravel()
        yield "life", lights.life.ravel()
        yield "start", start
        yield "target", (target - start) % 360
        yield "bend", (bend - target + 135) % 360

    for (name, theirs), (_, mine) in zip(numbers(host), numbers(ours)):
        if len(np.unique(theirs)) <= 12:
            values = np.union1d(theirs, mine)
            table = [[(x == value).sum() for value in values] for x in (theirs, mine)]
            assert scipy.stats.chi2_contingency(table).pvalue > 1e-4, name
        else:
            assert scipy.stats.ks_2samp(theirs, mine).pvalue > 1e-4, name
    assert set(np.unique(ours.spotlights.radius)) == set(range(7, 14))


def random_once(env: Any, generator: np.random.Generator) -> list[int]:
    """Ends the episode after one step."""
    env.max_episode_steps = 1
    return random(env, generator)


@pytest.mark.slow
def test_random_play_has_memory_gyms_distribution_of_lengths_and_returns(host_task, task, layouts) -> None:
    env, params = task
    generator = np.random.default_rng(SEED)
    host = []
    for seed in range(60):
        plain = host_task.fresh()
        plain.reset(seed=seed)
        done = False
        while not done:
            _, _, done, _, info = plain.step(generator.integers(0, 3, 2))
        host.append((info["length"], info["reward"]))

    def play(layout: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(carry: Any, key: jax.Array) -> Any:
            state, over = carry
            state, reward, done, _ = env.transition(state, jax.random.randint(key, (2,), 0, 3), params)
            return (state, over | done), (~over, jnp.where(over, 0, reward))

        first = env.reset_from_layout(layout, params)
        _, (running, rewards) = jax.lax.scan(step, (first, False), jax.random.split(key, 400))
        return running.sum(), rewards.sum()

    some = jax.tree.map(lambda x: x[:200], layouts)
    ours = jax.jit(jax.vmap(play))(some, jax.random.split(jax.random.key(SEED), 200))
    for theirs, mine in zip(np.transpose(host), ours):
        assert scipy.stats.ks_2samp(theirs, np.asarray(mine)).pvalue > 1e-4


@pytest.mark.slow
def test_coins_and_spotlights_sampled_in_steps_have_the_initial_distribution(host_task, task, layouts) -> None:
    env, params = task
    states = jax.jit(jax.vmap(lambda layout: env.reset_from_layout(layout, params)))(layouts)
    waiting = states.replace(time=states.time + params.spawn_interval - 1)
    if host_task.endless:
        middle = jnp.full_like(states.agent, 42)
        waiting = waiting.replace(agent=middle, coin=middle)
    none = jnp.zeros_like(states.action)
    after = jax.jit(jax.vmap(lambda state, action: env.transition(state, action, params)[0]))(waiting, none)

    first, new = states.spotlights, env.initial_spawns
    assert (after.spotlights.count == new + 1).all()
    for name in ("radius", "speed", "life"):
        mine, theirs = (np.asarray(getattr(x, name)) for x in (after.spotlights, first))
        assert scipy.stats.ks_2samp(mine[:, new], theirs[:, :new].ravel()).pvalue > 1e-4, name
        assert (mine[:, new] != theirs[:, 0]).any()

    if host_task.endless:
        host = []
        plain = host_task.fresh()
        plain.reset(seed=SEED)
        for _ in range(400):
            plain.coin.location = (42, 42)
            plain._spawn_coin()
            host.append(plain.coin.location)
        for axis in range(2):
            assert scipy.stats.ks_2samp(np.array(host)[:, axis], np.asarray(after.coin)[:, axis]).pvalue > 1e-4
        far = np.hypot(*(np.asarray(after.coin) - 42).T)
        assert far.min() > 28 - 3 * 2**0.5 - 0.1, "a new coin is too close to the previous one"


@pytest.mark.slow
def test_batched_steps_equal_single_steps_and_ended_episodes_reset(task, layouts, transition) -> None:
    env, params = task
    num_envs, ends = 3, 1
    keys = jax.random.split(jax.random.key(SEED), len(layouts.rotation))[:num_envs]
    firsts = [env.reset_from_layout(jax.tree.map(lambda x: x[i], layouts), params) for i in range(num_envs)]  # noqa: B023
    states = [
        first.replace(hits=jnp.int32(i == ends) * (len(params.health_left) - 1)) for i, first in enumerate(firsts)
    ]
    actions = jnp.array([[1, 0], [2, 2], [0, 1]], jnp.int32)
    together = jax.tree.map(lambda *x: jnp.stack(x), *states)
    obs, following, rewards, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
        keys, together, actions, params
    )

    render = jax.jit(env.render)
    assert terminated.tolist() == [i == ends for i in range(num_envs)]
    assert not truncated.any()
    for i in range(num_envs):
        state, reward, _, own_info = transition(states[i], actions[i])
        assert rewards[i] == reward
        assert {name: info[name][i] for name in own_info} == own_info
        np.testing.assert_array_equal(info["final_observation"][i], render(state, params))
        expected = firsts[i] if i == ends else state
        np.testing.assert_array_equal(obs[i], render(expected, params))
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a[i], b),  # noqa: B023
            without_keys(following),
            without_keys(expected),
        )


def without_keys(tree: Any) -> Any:
    """Converts typed PRNG keys to integers."""
    typed = jax.dtypes.prng_key
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, typed) else x, tree)


@pytest.mark.slow
def test_compiled_and_uncompiled_functions_agree(task, layouts, transition) -> None:
    env, params = task
    compiled = plain = env.reset_from_layout(jax.tree.map(lambda x: x[0], layouts), params)
    for action in jnp.array([[1, 2], [0, 1]], jnp.int32):
        compiled, *rest = transition(compiled, action)
        with jax.disable_jit():
            plain, *plain_rest = env.transition(plain, action, params)
        jax.tree.map(np.testing.assert_array_equal, without_keys((compiled, rest)), without_keys((plain, plain_rest)))


def test_an_unneeded_layout_is_not_searched(host_task, layouts) -> None:
    if host_task.endless:
        pytest.skip("the endless task samples initial positions without a search")
    needed, idle = np.split(np.asarray(layouts.exit), [2000])
    # Without a search the position is (0, 0), jittered and clipped to the margin.
    assert (idle == 7).all()
    assert (needed > 7).any(axis=1).mean() > 0.9


def test_exceeding_the_capacity_for_spotlights_truncates(task, layouts, transition) -> None:
    env, params = task
    state = env.reset_from_layout(jax.tree.map(lambda x: x[0], layouts), params)
    full = state.spotlights.replace(
        count=jnp.int32(env.capacity), life=jnp.full(env.capacity, 10_000, jnp.int32)
    )  # fmt: skip
    state = state.replace(time=jnp.int32(params.spawn_interval - 2), spotlights=full)
    truncations = []
    for _ in range(2):
        state, *_ = transition(state, jnp.zeros(2, jnp.int32))
        truncations.append(bool(env.is_truncated(state, params)))
    assert truncations == [False, True]
    assert state.spotlights.count == env.capacity
    with pytest.raises(ValueError, match="3 spotlights don't fit into 2 slots"):
        type(env)(initial_spawns=3, capacity=2)


def test_parameters_contain_the_maximum_episode_length(host_task) -> None:
    assert host_task.make()[1].max_steps_in_episode == (0 if host_task.endless else 256)
    assert host_task.make({"max_steps": 99})[1].max_steps_in_episode == 99
    assert host_task.make({"max_steps": -1})[1].max_steps_in_episode == 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"coin_count": 1}, r"unknown option 'coin_count'; this task has .*agent_health, "),
        ({"agent_scale": 0.5}, r"agent_scale can only be 0.25 on the device; use --backend host"),
        ({"coin_scale": 1}, r"coin_scale can only be 0.375"),
        ({"spot_max_radius": 43}, r"spot_max_radius must be a number from 0 to 42, not 43"),
        ({"spot_max_radius": 5}, r"spot_max_radius must be at least spot_min_radius"),
        ({"spot_min_speed": 0}, r"spot_min_speed must be a number above 0"),
        ({"spot_min_speed": 0.01}, r"spot_max_speed must be at least spot_min_speed"),
        ({"initial_spawns": 100}, r"spot_min_speed, the spawn interval and initial_spawns allow \d+ spotlights"),
        ({"initial_spawns": 2.5}, r"initial_spawns must be a whole number .*, not 2.5"),
        ({"initial_spawns": -1}, r"initial_spawns must be a whole number from 0 .*, not -1"),
        ({"agent_health": 0}, r"agent_health must be a number above 0"),
        ({"agent_health": "five"}, r"agent_health must be a number, not 'five'"),
        ({"spot_damage": -1}, r"spot_damage must be a number from 0, not -1"),
        ({"spot_damage": 1e-5}, r"spot_damage must be 0 or at least agent_health / 10000"),
        ({"light_threshold": 256}, r"light_threshold must be a whole number from 0 to 255"),
        ({"reward_coin": float("nan")}, r"reward_coin must be a number"),
        ({"visual_feedback": 1}, r"visual_feedback must be true or false, not 1"),
        ({"max_steps": 0}, r"max_steps must be a whole number .*, or -1 for no limit"),
    ],
)  # fmt: skip
def test_invalid_options_are_rejected_by_name(options, line) -> None:
    for cls in (device.SearingSpotlights, endless_device.EndlessSearingSpotlights):
        with pytest.raises(ConfigError, match="^--env_options: " + line):
            cls.from_options(options)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"use_exit": False}, r"use_exit can only be True on the device"),
        ({"num_coins": []}, r"num_coins must be a list of .*such as \[1\], not \[\]"),
        ({"num_coins": 2}, r"num_coins must be a list"),
        ({"num_coins": [9]}, r"num_coins must be a list of whole numbers from 0 to 8 .*, not \[9\]"),
        ({"exit_scale": 1}, r"exit_scale can only be 0.5"),
        ({"num_spawns": -1}, r"num_spawns must be a whole number from 0"),
        ({"steps_per_coin": 10}, r"unknown option 'steps_per_coin'"),
    ],
)
def test_invalid_options_of_the_finite_task_are_rejected(options, line) -> None:
    with pytest.raises(ConfigError, match="^--env_options: " + line):
        device.SearingSpotlights.from_options(options)


def test_invalid_options_of_the_endless_task_are_rejected() -> None:
    with pytest.raises(ConfigError, match=r"^--env_options: show_last_action can only be True on the device"):
        endless_device.EndlessSearingSpotlights.from_options({"show_last_action": False})
    with pytest.raises(
        ConfigError, match=r"^--env_options: spot_min_speed, the spawn interval and initial_spawns allow"
    ):
        endless_device.EndlessSearingSpotlights.from_options({"spot_min_speed": 1e-5})
    with pytest.raises(ConfigError, match=r"^--env_options: unknown option 'num_coins'"):
        endless_device.EndlessSearingSpotlights.from_options({"num_coins": [1]})
