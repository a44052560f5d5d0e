"""MiniGrid's Memory tasks in JAX are equal to the released package, with the wrappers used here and symbolic."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import minigrid  # noqa: F401 - registers its tasks
import numpy as np
import pytest
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Key, Wall
from minigrid.wrappers import ImgObsWrapper
from scipy import stats

from tests.support.replay import EPISODES, SEED, record, replay
from trxl_jax.envs.registry import make_single
from trxl_jax.envs.tasks.minigrid import NAMES, find_task, tiles
from trxl_jax.envs.tasks.minigrid.host import MAX_STEPS
from trxl_jax.envs.tasks.minigrid.memory import GO, TURN_LEFT, TURN_RIGHT, MiniGridMemory, MiniGridMemoryLayout
from trxl_jax.envs.tasks.minigrid.rooms import BALL, EMPTY, KEY, UNSEEN, WALL, field_of_view

pytestmark = pytest.mark.optimised

P_VALUE = 1e-4
BATCH = 4096
OBJECT_TYPES = ("key", "ball")

Policy = Callable[[Any, np.random.Generator], int]


# The released package.


@cache
def host(name: str, *, view: int | None = None) -> Any:
    """As the original's, or with symbols of a view."""
    if view is None:
        return make_single(name, render_mode="rgb_array")
    env = ImgObsWrapper(gymnasium.make(name, agent_view_size=view, disable_env_checker=True))
    return gymnasium.wrappers.TimeLimit(env, MAX_STEPS)


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    yield
    host.cache_clear()


def read_layout(plain: Any) -> MiniGridMemoryLayout:
    end, middle = int(plain.success_pos[0]) - 1, plain.height // 2
    start, upper = plain.grid.get(1, middle - 1).type, plain.grid.get(end + 1, middle - 2).type
    numbers = end, int(plain.agent_pos[0]), OBJECT_TYPES.index(start), OBJECT_TYPES.index(upper)
    return MiniGridMemoryLayout(*map(np.int32, numbers))


def random_policy(plain: Any, generator: np.random.Generator) -> int:
    return int(generator.integers(7))


def walker(plain: Any, generator: np.random.Generator) -> int:
    """Mostly moves, so that it gets everywhere."""
    return int(generator.choice([GO, GO, GO, TURN_LEFT, TURN_RIGHT, generator.integers(7)]))


def visitor(plain: Any, generator: np.random.Generator) -> int:
    """Goes to the room at the start and walks about there."""
    return towards_room(plain) if plain.step_count < 30 else walker(plain, generator)


def oracle(plain: Any, generator: np.random.Generator) -> int:
    return towards(plain, plain.success_pos)


def fool(plain: Any, generator: np.random.Generator) -> int:
    return towards(plain, plain.failure_pos)


def towards(plain: Any, goal: tuple[int, int]) -> int:
    """Along the middle row to the goal's column, then up or down."""
    (x, y), middle = plain.agent_pos, plain.height // 2
    if y != middle and x != goal[0]:
        wanted = 1 if y < middle else 3
    elif x != goal[0]:
        wanted = 0
    else:
        wanted = 1 if goal[1] > y else 3
    turn = (wanted - plain.agent_dir) % 4
    return (GO, TURN_RIGHT, TURN_RIGHT, TURN_LEFT)[turn]


def looking_back(plain: Any, generator: np.random.Generator) -> int:
    """Perfect memory: turns and walks back until it sees the object, then goes to its match."""
    return oracle(plain, generator) if plain.looked_back else towards_room(plain)


def towards_room(plain: Any) -> int:
    x, _ = plain.agent_pos
    turn = (2 - plain.agent_dir) % 4
    plain.looked_back = turn == 0 and x <= 3
    return GO if turn == 0 and x > 3 else TURN_RIGHT


def recordings(name: str, episodes: int, policies: tuple[Policy, ...], *, view: int | None = None) -> list[Any]:
    env = host(name, view=view)
    return [
        record(env, SEED + i, {}, policies[i % len(policies)], read_layout, max_steps=MAX_STEPS)
        for i in range(episodes)
    ]


# Replays.


@pytest.mark.parametrize("name", NAMES)
def test_pictures_rewards_and_ends_are_the_packages(name: str) -> None:
    task, params = find_task(name).from_options({})
    played = recordings(name, EPISODES, (oracle, random_policy, visitor, fool, walker))
    visited = replay(task, params, played, MAX_STEPS)
    assert any(reward > 0 for recording in played for reward in recording.rewards)
    assert any(recording.dones[-1] and recording.rewards[-1] == 0 for recording in played)
    assert any(not recording.dones[-1] for recording in played)
    states = jax.tree.map(lambda *x: np.concatenate(x), *visited)
    assert set(states.direction) == {0, 1, 2, 3}
    assert {1, 2} <= set(states.x[states.row == 2]), "nobody was in the room's lower row"
    assert (states.start == 0).any()
    assert (states.start == 1).any()


@pytest.mark.parametrize(
    ("name", "view"), [(name, 7) for name in NAMES] + [("MiniGrid-MemoryS9-v0", v) for v in (3, 11)]
)
def test_symbols_rewards_and_ends_are_the_packages(name: str, view: int) -> None:
    options = {"symbolic": True} if view == 7 else {"symbolic": True, "agent_view_size": view}
    task, params = find_task(name).from_options(options)
    space = task.observation_space(params)
    kinds = [len(names) for names in (OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX)]
    np.testing.assert_array_equal(space.nvec, np.broadcast_to(kinds, (view, view, 3)))
    played = recordings(name, EPISODES, (visitor, oracle, random_policy, walker), view=view)
    replay(task, params, played, MAX_STEPS)


@pytest.mark.parametrize("name", ["MiniGrid-MemoryS9-v0", "MiniGrid-MemoryS17Random-v0"])
def test_pictures_for_people_are_the_packages(name: str) -> None:
    task, params = find_task(name).from_options({})
    render, step = jax.jit(task.render_debug), jax.jit(task.transition)
    env, generator = host(name), np.random.default_rng(SEED)
    for episode in range(3):
        env.reset(seed=SEED + episode)
        state = task.reset_from_layout(jax.tree.map(jnp.asarray, read_layout(env.unwrapped)), params)
        for _ in range(40):
            np.testing.assert_array_equal(render(state, params), env.render())
            action = walker(env.unwrapped, generator)
            state, *_ = step(state, action, params)
            *_, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break


def test_the_time_limit_is_the_packages() -> None:
    """Also where the last step reaches an object: it is an end, and no cut."""
    task, params = find_task("MiniGrid-MemoryS9-v0").from_options({"num_actions": 3})
    env = make_single("MiniGrid-MemoryS9-v0", num_actions=3)
    assert env.action_space.n == task.action_space(params).n == 3
    step, plain = jax.jit(task.step), env.unwrapped

    def steps_to_object(seed: int) -> int:
        env.reset(seed=seed)
        return int(plain.success_pos[0] - plain.agent_pos[0]) + 2

    # Turning round and round, then straight to the object, so that the last step gets there.
    seed = next(seed for seed in range(SEED, SEED + 100) if steps_to_object(seed) % 4 == 0)
    for waits in (False, True):
        way = steps_to_object(seed)
        state = task.reset_from_layout(jax.tree.map(jnp.asarray, read_layout(plain)), params)
        for i in range(MAX_STEPS):
            action = TURN_LEFT if waits or i < MAX_STEPS - way else oracle(plain, np.random.default_rng())
            _, reward, terminated, truncated, _ = env.step(action)
            _, state, ours, our_end, our_cut, info = step(jax.random.key(i), state, action, params)
            assert (np.float32(reward), terminated, truncated and not terminated) == (ours, our_end, our_cut)
            assert (our_end, our_cut) == (info["terminated"], info["truncated"])
            if terminated or truncated:
                break
        assert (terminated, truncated, i) == (not waits, True, MAX_STEPS - 1)


def test_final_observations_are_those_before_the_reset() -> None:
    task, params = find_task("MiniGrid-MemoryS9-v0").from_options({})
    params = params.replace(max_steps_in_episode=1)
    key = jax.random.key(SEED)
    _, state = task.reset(key, params)
    obs, following, _, _, truncated, info = task.step(key, state, TURN_LEFT, params)
    assert truncated
    turned = state.replace(direction=jnp.int32(3), time=jnp.int32(1))
    np.testing.assert_array_equal(info["final_observation"], task.render(turned, params))
    assert (following.time, following.direction) == (0, 0)
    np.testing.assert_array_equal(obs, task.render(following, params))


# Parts.


@pytest.mark.parametrize("lit", [False, True])
def test_tiles_are_the_packages(lit: bool) -> None:
    for cell, drawn in ((EMPTY, None), (WALL, Wall()), (KEY, Key("green")), (BALL, Ball("green"))):
        theirs = Grid.render_tile(drawn, highlight=lit, tile_size=28).astype(np.uint8)
        np.testing.assert_array_equal(tiles.tiles()[cell + tiles.LIT * lit], theirs)
    for direction in range(4):
        theirs = Grid.render_tile(None, agent_dir=direction, highlight=True, tile_size=28).astype(np.uint8)
        np.testing.assert_array_equal(tiles.tiles()[tiles.AGENT + direction], theirs)
    assert (tiles.tiles()[UNSEEN] == tiles.tiles()[EMPTY]).all()


@pytest.mark.parametrize("view", [3, 5, 7])
def test_the_field_of_view_is_the_packages_in_any_room(view: int) -> None:
    generator = np.random.default_rng(SEED)
    for share in generator.uniform(0, 0.8, 200):
        opaque = generator.random((view, view)) < share
        opaque[view // 2, view - 1] = False
        grid = Grid(view, view)
        for column, row in np.argwhere(opaque):
            grid.set(column, row, Wall())
        np.testing.assert_array_equal(field_of_view(opaque), grid.process_vis((view // 2, view - 1)))


# Distributions.


def drawn(task: MiniGridMemory, seed: int) -> MiniGridMemoryLayout:
    keys = jax.random.split(jax.random.key(seed), BATCH)
    layouts = jax.jit(jax.vmap(task.init_layout, (0, None)))(keys, task.default_params)
    return jax.tree.map(np.asarray, layouts)


def counts(layout: MiniGridMemoryLayout, size: int) -> np.ndarray:
    """How often each layout occurs, i64[size, size, 2, 2]."""
    table = np.zeros((size, size, 2, 2), np.int64)
    np.add.at(table, (layout.hallway_end, layout.x, layout.start, layout.upper), 1)
    return table


@pytest.mark.parametrize("name", NAMES)
def test_layouts_are_distributed_as_in_the_package(name: str) -> None:
    task = find_task(name)
    size = int(name.removeprefix("MiniGrid-MemoryS").split("-")[0].removesuffix("Random"))
    ends = range(4, size - 2) if "Random" in name else [size - 3]
    expected = np.zeros((size, size, 2, 2))
    for end in ends:
        expected[end, 1 : end + 1] = 1 / (len(ends) * end * 4)
    ours = counts(drawn(task, SEED), size)
    assert (ours[expected == 0] == 0).all()
    possible = expected > 0
    assert stats.chisquare(ours[possible], BATCH * expected[possible]).pvalue > P_VALUE
    # The package itself, with fewer samples: both are one distribution.
    env, theirs = host(name).unwrapped, []
    env.reset(seed=SEED)
    for _ in range(200):
        env._gen_grid(size, size)
        theirs.append(read_layout(env))
    table = counts(MiniGridMemoryLayout(*np.array([jax.tree.leaves(layout) for layout in theirs]).T), size)
    assert (table[expected == 0] == 0).all()
    both = np.stack([table.sum(axis=(0, 2, 3)), ours.sum(axis=(0, 2, 3))])
    assert stats.chi2_contingency(both[:, both.sum(axis=0) > 0]).pvalue > P_VALUE
    both = np.stack([table.sum(axis=(0, 1)).reshape(-1), ours.sum(axis=(0, 1)).reshape(-1)])
    assert stats.chi2_contingency(both).pvalue > P_VALUE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MiniGrid-MemoryS7-v0", "MiniGrid-MemoryS13Random-v0"])
def test_random_play_returns_as_much_as_in_the_package(name: str) -> None:
    task, params = find_task(name).from_options({})
    ours = np.asarray(random_returns(task, params))
    played = recordings(name, 300, (random_policy,))
    theirs = np.array([sum(recording.rewards) for recording in played])
    assert stats.ttest_ind(ours, theirs, equal_var=False).pvalue > P_VALUE
    print(f"\n{name}, random play: {interval(ours)} here, {interval(theirs)} in the package")


def interval(returns: np.ndarray) -> str:
    return f"{returns.mean():.3f} ± {1.96 * returns.std() / len(returns) ** 0.5:.3f}"


def random_returns(task: MiniGridMemory, params: Any) -> jax.Array:
    """Return of the first episode of each environment, f32[BATCH]."""

    def play(key: jax.Array) -> jax.Array:
        state = task.reset_from_layout(task.init_layout(key, params), params)

        def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state, ended = carry
            action = jax.random.randint(key, (), 0, task.num_actions)
            state, reward, terminated, _ = task.transition(state, action, params)
            return (state, ended | terminated), jnp.where(ended, 0, reward)

        keys = jax.random.split(jax.random.fold_in(key, 1), MAX_STEPS)
        return jax.lax.scan(step, (state, jnp.bool_(False)), keys)[1].sum()

    return jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(SEED), BATCH))


# Memory.


@pytest.mark.parametrize("name", ["MiniGrid-MemoryS9-v0", "MiniGrid-MemoryS13Random-v0"])
def test_perfect_memory_is_rewarded_and_needed(name: str) -> None:
    """Whoever looks at the object first always finds its match; whoever always turns up does so half of the time."""
    env = host(name)

    def play(policy: Policy) -> np.ndarray:
        returns = []
        for seed in range(100):
            env.unwrapped.looked_back = False
            returns.append(sum(record(env, SEED + seed, {}, policy, read_layout, max_steps=MAX_STEPS).rewards))
        return np.array(returns)

    def upwards(plain: Any, generator: np.random.Generator) -> int:
        return towards(plain, (plain.success_pos[0], plain.height // 2 - 1))

    informed, remembering, guessing = play(oracle), play(looking_back), play(upwards)
    assert remembering.min() > 0.93
    assert 0 < informed.mean() - remembering.mean() < 0.05
    assert 0.3 < guessing.mean() < 0.7
    print(f"\n{name}: {informed.mean():.3f} oracle, {remembering.mean():.3f} memory, {guessing.mean():.3f} guessing")


@pytest.mark.parametrize(
    ("name", "symbolic"),
    [(name, False) for name in NAMES] + [("MiniGrid-MemoryS11-v0", True), ("MiniGrid-MemoryS13-v0", True)],
)
def test_no_observation_at_the_junction_tells_the_object_at_the_start(name: str, symbolic: bool) -> None:
    task, params = find_task(name).from_options({"symbolic": symbolic})
    layout = jax.tree.map(lambda x: jnp.asarray(x[:64]), drawn(task, SEED))

    def look(layout: MiniGridMemoryLayout, direction: int) -> jax.Array:
        state = task.reset_from_layout(layout, params)
        return task.render(state.replace(x=layout.hallway_end + 1, direction=jnp.int32(direction)), params)

    for direction in range(4):
        seen = jax.vmap(look, (0, None))(layout, direction)
        np.testing.assert_array_equal(
            seen, jax.vmap(look, (0, None))(layout.replace(start=1 - layout.start), direction)
        )


@pytest.mark.parametrize("in_sight", [False, True])
def test_the_object_may_always_be_in_sight_at_the_start(in_sight: bool) -> None:
    task, params = find_task("MiniGrid-MemoryS9-v0").from_options({"in_sight": in_sight})
    keys = jax.random.split(jax.random.key(SEED), 100)
    layout = jax.vmap(task.init_layout, (0, None))(keys, params)

    def look(layout: MiniGridMemoryLayout) -> jax.Array:
        return task.render(task.reset_from_layout(layout, params), params)

    one, other = jax.vmap(look)(layout), jax.vmap(look)(layout.replace(start=1 - layout.start))
    seen = np.asarray((one != other).any(axis=(1, 2, 3)))
    assert seen.all() if in_sight else 0.05 < seen.mean() < 0.4
