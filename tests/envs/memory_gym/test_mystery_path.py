"""Mystery Path in JAX is bit for bit equal to the released Memory Gym."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import memory_gym  # noqa: F401
import numpy as np
import pytest
from memory_gym.pygame_assets import MysteryPath as HostPath
from scipy import stats

from tests.support.replay import EPISODES, SEED, record, replay
from trxl_jax.envs.device.environment import DeviceEnvironment
from trxl_jax.envs.tasks.batching import GROUP_SIZE, only_where_needed
from trxl_jax.envs.tasks.memory_gym import path_search
from trxl_jax.envs.tasks.memory_gym.endless_mystery_path import EndlessMysteryPath
from trxl_jax.envs.tasks.memory_gym.endless_mystery_path_state import EndlessMysteryPathLayout
from trxl_jax.envs.tasks.memory_gym.mystery_path import MysteryPath, MysteryPathGrid
from trxl_jax.envs.tasks.memory_gym.mystery_path_environment import MysteryPathLayout
from trxl_jax.errors import ConfigError

pytestmark = pytest.mark.optimised

TASKS = {task.task: task for task in (MysteryPathGrid, MysteryPath, EndlessMysteryPath)}
GRID, CONTINUOUS, ENDLESS = TASKS
SEGMENTS = 64
LEFTWARD_SEEDS = (156, 168, 811, 1548)
"""Seeds whose first or second segment contains a step to the left, as about one in 650 does."""

P_VALUE = 1e-4

Policy = Callable[[Any, np.random.Generator], Any]

REWARDS = {"reward_fall_off": -0.1, "reward_path_progress": 0.2, "reward_step": -0.003}
SHOWN = {"show_origin": True, "show_goal": True, "visual_feedback": False, "cardinal_origin_choice": [1, 3]}
OPTIONS = {
    "grid": (GRID, {}),
    "grid, shown": (GRID, {**REWARDS, **SHOWN, "reward_goal": 0.7, "max_steps": 40}),
    "continuous": (CONTINUOUS, {}),
    "continuous, shown": (CONTINUOUS, {**REWARDS, **SHOWN, "reward_goal": 0.7, "max_steps": 120, "agent_speed": 4.7}),
    "endless": (ENDLESS, {}),
    "endless, all shown": (
        ENDLESS,
        {
            **REWARDS,
            **{"show_background": True, "show_stamina": True, "show_origin": True, "max_steps": 150},
            **{"stamina_level": 13, "camera_offset_scale": 2.25, "agent_speed": 5.5},
        },
    ),
    "endless, near": (ENDLESS, {"camera_offset_scale": 0.5, "agent_speed": 12, "max_steps": 200}),
    "endless, nothing shown": (ENDLESS, {"show_past_path": False, "visual_feedback": False, "max_steps": 100}),
}


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, Any]]:
    hosts = {task: gymnasium.make(task, disable_env_checker=True, render_mode="debug_rgb_array") for task in TASKS}
    yield hosts
    for host in hosts.values():
        host.close()


RANDOM_PLAY = {
    GRID: ({"reward_path_progress": 0.1, "reward_fall_off": -0.01}, 120),
    CONTINUOUS: ({"max_steps": 100, "reward_fall_off": -0.01}, 120),
    ENDLESS: ({}, 300),
}


BATCH_SIZE = 128


class Batch:
    """The compiled functions of a task, shared by most tests."""

    def __init__(self, task: str) -> None:
        self.env, self.params = TASKS[task].from_options(RANDOM_PLAY[task][0])
        self.reset = jax.jit(jax.vmap(self.env.reset, (0, None)))
        self.step = jax.jit(jax.vmap(self.env.step, (0, 0, 0, None)))
        self.branches = np.array(DeviceEnvironment(self.env, self.params, 1).spec.action.nvec)

    def keys(self, seed: int) -> jax.Array:
        return jax.random.split(jax.random.key(seed), BATCH_SIZE)

    def actions(self, generator: np.random.Generator) -> np.ndarray:
        actions = generator.integers(self.branches, size=(BATCH_SIZE, self.branches.size), dtype=np.int32)
        return actions if self.branches.size > 1 else actions[:, 0]


@pytest.fixture(scope="module")
def batches() -> dict[str, Batch]:
    return {task: Batch(task) for task in TASKS}


# Reading the state of the released package.


def bits(nodes: list[Any]) -> np.ndarray:
    columns = np.zeros(7, np.int32)
    for node in nodes:
        columns[node.x] |= 1 << node.y
    return columns


def read_layout(host: Any) -> MysteryPathLayout:
    path = host.mystery_path
    start, end = (np.array(tile, np.int32) for tile in (host.start, host.end))
    return MysteryPathLayout(start=start, end=end, path=bits(path.path), walls=bits(path.wall_nodes))


def read_endless_layout(host: Any) -> EndlessMysteryPathLayout:
    return EndlessMysteryPathLayout(key=jax.random.key(0), start_row=np.int32(host.start.y))


def finish_endless_layout(host: Any, layout: EndlessMysteryPathLayout) -> EndlessMysteryPathLayout:
    recorded = np.zeros((SEGMENTS, 8, 7), np.uint8)
    for segment, nodes in enumerate(host.endless_path.path):
        for place, node in enumerate(nodes):
            recorded[segment, node.x - 8 * segment, node.y] = place + 1
    return layout.replace(recorded=recorded)


def next_tile(host: Any) -> tuple[int, int] | None:
    """The next tile on the shortest way along the path from the agent's tile; None if there is none."""
    at = tuple(int(x) for x in host.normalized_agent_position)
    if hasattr(host, "endless_path"):
        tiles = {(node.x, node.y) for segment in host.endless_path.path[-3:] for node in segment}
        moves, goal = ((1, 0), (0, -1), (0, 1)), max(x for x, _ in tiles)
    else:
        tiles = {(node.x, node.y) for node in host.mystery_path.path}
        moves, goal = ((1, 0), (-1, 0), (0, -1), (0, 1)), None
    first, queue = {at: None}, deque([at])
    while queue:
        tile = queue.popleft()
        if tile == getattr(host, "end", None) or tile[0] == goal:
            return first[tile]
        for dx, dy in moves:
            following = tile[0] + dx, tile[1] + dy
            if following in tiles and following not in first:
                first[following] = first[tile] or following
                queue.append(following)
    return None


# Policies.


def is_continuous(host: Any) -> bool:
    return isinstance(host.action_space, gymnasium.spaces.MultiDiscrete)


def stand_still(host: Any, generator: np.random.Generator) -> Any:
    return np.array([0, 0]) if is_continuous(host) else 0


def random_policy(host: Any, generator: np.random.Generator) -> Any:
    return generator.integers(3, size=2) if is_continuous(host) else int(generator.integers(4))


def oracle(host: Any, generator: np.random.Generator) -> Any:
    tile = next_tile(host)
    if tile is None or host.is_off_path:
        return stand_still(host, generator)
    dx, dy = (int(a - b) for a, b in zip(tile, host.normalized_agent_position))
    if is_continuous(host):
        return np.array([-dx % 3, -dy % 3])
    if hasattr(host, "endless_path"):
        return {(1, 0): 1, (0, -1): 2, (0, 1): 3}[dx, dy]
    wanted = {(0, -1): 0, (-1, 0): 1, (0, 1): 2, (1, 0): 3}[dx, dy]
    return (3, 1, 1, 2)[(wanted - host.agent.face_direction.value) % 4]


def noisy(host: Any, generator: np.random.Generator, share: float = 0.04) -> Any:
    return (random_policy if generator.random() < share else oracle)(host, generator)


def mixed(host: Any, generator: np.random.Generator) -> Any:
    return (oracle, random_policy, stand_still)[host.t // 11 % 3](host, generator)


def stubborn(host: Any, generator: np.random.Generator) -> Any:
    """Repeatedly leaves the path at the same tile."""
    far = host.normalized_agent_position[0] >= 1 + host.current_seed % 9
    return 2 + host.current_seed % 2 if far else oracle(host, generator)


def policies(task: str) -> tuple[Policy, ...]:
    return (oracle, noisy, random_policy, mixed, *((stubborn, partial(noisy, share=0.01)) if task == ENDLESS else ()))


def readers(task: str) -> tuple[Callable[..., Any], ...]:
    return (read_endless_layout, finish_endless_layout) if task == ENDLESS else (read_layout,)


# Replays.


@pytest.mark.parametrize("name", OPTIONS)
def test_episodes_equal_memory_gyms_bit_for_bit(hosts: dict[str, Any], name: str) -> None:
    task, options = OPTIONS[name]
    host, played = hosts[task], policies(task)
    count = max(EPISODES // (3 if options else 1), 12)
    recordings = [
        record(host, seed, options, played[seed % len(played)], *readers(task))
        for seed in range(1000 * SEED, 1000 * SEED + count)
    ]
    if name == "endless":
        recordings += [record(host, seed, options, oracle, *readers(task), max_steps=140) for seed in LEFTWARD_SEEDS]
    debug_pictures = []

    def watched(host: Any, generator: np.random.Generator) -> Any:
        debug_pictures.append(host.render())
        return noisy(host, generator, 0.1)

    recordings.append(record(host, 3 + SEED, options, watched, *readers(task), max_steps=70))
    env, params = TASKS[task].from_options(options)
    visited = replay(env, params, recordings)

    states = jax.tree.map(lambda x: x[: len(debug_pictures)], visited[-1])
    ours = jax.jit(jax.vmap(env.render_debug, (0, None)))(states, params)
    np.testing.assert_array_equal(ours, np.stack(debug_pictures))

    covered = (endless_branches if task == ENDLESS else branches)(visited, params)
    expected = EXPECTED[task] if not options else {"time limit", "fall", "back at the start"}
    assert expected <= covered, f"not covered: {expected - covered}"


EXPECTED = {
    GRID: {"goal", "time limit", "fall", "back at the start", "held by the edge"},
    CONTINUOUS: {"goal", "time limit", "fall", "fall at the edge", "back at the start", "held by the edge", "diagonal"},
    ENDLESS: {
        *("fall", "fall above the screen or below", "back at the start", "fall to the left of the furthest column"),
        *("second fall on the same tile", "stamina spent", "segment found in a step", "start refreshes after a fall"),
        "path behind that turns back",
    },
}


def branches(visited: list[Any], params: Any) -> set[str]:
    covered = set()
    for states in visited:
        edge = ((states.centre == 6) | (states.centre == 78)).any(axis=1)
        moved = np.diff(states.centre, axis=0)
        steps = {
            "goal": (states.centre[1:] // 12 == states.end[1:]).all(axis=1),
            "time limit": states.time[1:] == params.max_steps_in_episode,
            "fall": states.fallen[1:] & ~edge[1:],
            "fall at the edge": states.fallen[1:] & edge[1:],
            "back at the start": states.fallen[:-1] & (states.centre == 12 * states.start + 6).all(axis=1)[1:],
            "held by the edge": edge[1:] & ~states.fallen[:-1] & (moved == 0).any(axis=1),
            "diagonal": (np.abs(moved) == params.diagonal).all(axis=1),
        }
        covered |= {name for name, where in steps.items() if where.any()}
    return covered


def endless_branches(visited: list[Any], params: Any) -> set[str]:
    covered = set()
    for states in visited:
        column, row = (states.centre // 12).T
        again = states.fallen[:-1] & (states.stamina[1:] == params.stamina - 1)
        first = states.refreshed[:, 0]
        steps = {
            "fall": states.fallen & (row >= 0) & (row < 7),
            "fall above the screen or below": states.fallen & ((row < 0) | (row > 6)),
            "back at the start": states.fallen[:-1] & (states.centre[1:, 0] == 6),
            "fall to the left of the furthest column": states.fallen & (column < states.max_x),
            "stamina spent": states.stamina == 0,
            "time limit": states.time == params.max_steps,
            # Memory Gym generates three in the reset.
            "segment found in a step": states.num_known > 3,
            "start refreshes after a fall": again & (first[:-1] == 0) & (first[1:] != 0),
        }
        covered |= {name for name, where in steps.items() if where.any()}
        fallen_at = [(c, r) for c, r, fallen in zip(column, row, states.fallen) if fallen]
        if fallen_at and states.fallen[-1] and fallen_at[-1] in fallen_at[:-1]:
            covered.add("second fall on the same tile")
        for segment, column, row in ((x // 8, x % 8, y) for x, y in np.unique(states.tile, axis=0)):
            places = states.places[-1, segment]
            behind = np.argsort(places, axis=None)[-np.count_nonzero(places) :][: places[column, row]]
            if (np.diff(behind // 7) < 0).any():
                covered.add("path behind that turns back")
    return covered


# The path generator.


class Recorder:
    """A random generator that records the draws of Memory Gym's path generator, for `path_search`."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.walls, self.border, self.num_border_walls = [], np.zeros(8, np.float32), 0
        self.noise = np.zeros(path_search.TILES, np.uint32)
        self.picked = 0

    def integers(self, low: int, high: int) -> int:
        value = int(self.generator.integers(low, high))
        if (low, high) == (0, 100):
            self.walls.append(value < path_search.WALL_PERCENT)
        else:
            names = sys._getframe(1).f_locals
            current, neighbour = names["current_node"], names["neighbor"]
            step = neighbour.x - current.x, neighbour.y - current.y
            shift = 3 * ((1, 0), (-1, 0), (0, 1), (0, -1)).index(step)
            self.noise[len(names["closed_set"]) - 1] |= np.uint32((value - low) << shift)
        return value

    def choice(self, values: list[Any]) -> Any:
        index = int(self.generator.integers(len(values)))
        if values == list(path_search.NUM_BORDER_WALLS):
            self.num_border_walls = values[index]
        else:
            self.border[self.picked] = (index + 0.5) / len(values)
            self.picked += 1
        return values[index]

    def draws(self) -> path_search.PathDraws:
        walls = np.array(self.walls).reshape(4, 4)
        return path_search.PathDraws(walls, np.int32(self.num_border_walls), self.border, self.noise)


def random_ends(generator: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    """Start and end tile on opposite edges."""
    from_edge, (start, end) = generator.integers(4), generator.integers(7, size=2)
    near, far = (0, 6) if from_edge % 2 == 0 else (6, 0)
    return ((near, start), (far, end)) if from_edge < 2 else ((start, near), (end, far))


def test_paths_equal_memory_gyms_for_recorded_draws() -> None:
    draws, ends, paths, walls = [], [], [], []
    for seed in range(3000 if EPISODES >= 300 else 300):
        recorder = Recorder(seed)
        start, end = random_ends(recorder.generator)
        host = HostPath(7, 7, start, end, recorder)
        places = np.zeros((7, 7), np.uint8)
        for place, node in enumerate(reversed(host.path)):
            places[node.x, node.y] = place + 1
        draws.append(recorder.draws())
        ends.append((start, end))
        paths.append(places)
        walls.append([[node.is_wall for node in column] for column in host.grid])
    ends = np.array(ends, np.int32)
    found = jax.jit(jax.vmap(path_search.find_path))(
        jax.tree.map(lambda *x: np.stack(x), *draws), ends[:, 0], ends[:, 1]
    )
    np.testing.assert_array_equal(found.walls, walls)
    np.testing.assert_array_equal(found.places, paths)


@pytest.mark.slow
def test_ends_walls_and_paths_have_memory_gyms_distributions(hosts: dict[str, Any], batches: dict[str, Batch]) -> None:
    count = 1500
    host = hosts[GRID]
    theirs = []
    for seed in range(count):
        host.reset(seed=seed)
        theirs.append(read_layout(host.unwrapped))
    theirs = jax.tree.map(lambda *x: np.stack(x), *theirs)
    batch = batches[GRID]
    ours = [batch.reset(batch.keys(100 * SEED + i), batch.params)[1] for i in range(40)]
    ours = jax.tree.map(lambda *x: np.concatenate(x), *ours)

    def features(layout: Any) -> dict[str, np.ndarray]:
        path, walls = ((columns[..., None] >> np.arange(7)) & 1 for columns in (layout.path, layout.walls))
        return {
            "start": layout.start[:, 0] * 7 + layout.start[:, 1],
            "end": layout.end[:, 0] * 7 + layout.end[:, 1],
            "tiles of the path": path.sum((1, 2)),
            "tiles in the middle": path[:, 2:5, 2:5].sum((1, 2)),
            "inner walls": walls[:, 1:5, 1:5].sum((1, 2)),
            "walls": walls.sum((1, 2)),
            "walls in the corner": walls[:, :2, :2].sum((1, 2)),
        }

    for name, values in features(theirs).items():
        assert_same_counts(values, features(ours)[name], name)


@pytest.mark.slow
def test_segments_have_memory_gyms_distributions(hosts: dict[str, Any], batches: dict[str, Batch]) -> None:
    host, theirs = hosts[ENDLESS], []
    for seed in range(300):
        host.reset(seed=seed)
        layout = finish_endless_layout(host.unwrapped, read_endless_layout(host.unwrapped))
        theirs.append(layout.recorded[:3])
    batch, ours, stand_still = batches[ENDLESS], [], np.zeros(BATCH_SIZE, np.int32)
    for i in range(10):
        keys = batch.keys(100 * SEED + i)
        _, state = batch.reset(keys, batch.params)
        for segment in range(3):
            entrance = jnp.stack([jnp.full(BATCH_SIZE, 96 * segment + 6), 12 * state.next_row + 6], axis=1)
            _, state, *_ = batch.step(keys, state.replace(centre=entrance), stand_still, batch.params)
            assert not state.fallen.any()
        ours.append(state.places[:, :3])
    ours = np.concatenate(ours)
    for segment in range(3):
        for name, feature in {
            "first row": lambda x: np.argmax(x[:, 0] == 1, axis=-1),
            "last row": lambda x: np.argmax(x[:, 7], axis=-1),
            "tiles": lambda x: np.count_nonzero(x, axis=(1, 2)),
        }.items():
            their_feature, our_feature = (feature(np.asarray(x)[:, segment]) for x in (theirs, ours))
            assert_same_counts(their_feature, our_feature, f"{name} of segment {segment}")
    np.testing.assert_array_equal(np.argmax(ours[:, :-1, 7], -1), np.argmax(ours[:, 1:, 0] == 1, -1))


def assert_same_counts(theirs: Any, ours: Any, name: str) -> None:
    values = np.union1d(theirs, ours)
    table = np.array([[(x == value).sum() for value in values] for x in (theirs, ours)])
    rare = table.sum(axis=0) < 20
    table = np.concatenate([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)], axis=1)
    table = table[:, table.sum(axis=0) > 0]
    assert stats.chi2_contingency(table).pvalue > P_VALUE, f"{name}: {table}"


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_random_play_has_memory_gyms_distribution_of_returns_and_lengths(
    hosts: dict[str, Any], batches: dict[str, Batch], task: str
) -> None:
    options, count = RANDOM_PLAY[task]
    recordings = [record(hosts[task], seed, options, random_policy, lambda _: None) for seed in range(count)]
    theirs = [(np.sum(recording.rewards), len(recording.rewards)) for recording in recordings]
    batch, generator = batches[task], np.random.default_rng(SEED)
    _, state = batch.reset(batch.keys(SEED), batch.params)
    ours, totals = [], np.zeros((2, BATCH_SIZE))
    # Twice the maximum length of an episode, to limit the bias towards short ones.
    for i in range(260 if task == ENDLESS else 2 * int(batch.params.max_steps_in_episode) + 1):
        keys = batch.keys(1000 + i)
        _, state, reward, terminated, truncated, _ = batch.step(keys, state, batch.actions(generator), batch.params)
        assert not truncated.any()
        totals += np.stack([reward, np.ones(BATCH_SIZE)])
        ours += list(totals[:, terminated].T)
        totals[:, terminated] = 0
    assert len(ours) >= 2 * BATCH_SIZE
    for name, a, b in zip(("return", "length"), np.transpose(theirs), np.transpose(ours)):
        assert stats.ks_2samp(np.round(a, 3), np.round(b, 3)).pvalue > P_VALUE, name


# gymnax's interface.


@pytest.mark.parametrize("task", TASKS)
def test_batched_steps_equal_single_steps(batches: dict[str, Batch], task: str) -> None:
    batch, generator = batches[task], np.random.default_rng(7)
    # A low limit, so that resets are covered, too.
    params = batch.params.replace(**{"max_steps" if task == ENDLESS else "max_steps_in_episode": 6})
    _, state = batch.reset(batch.keys(7), params)
    lanes = range(3)
    single = [jax.tree.map(lambda x: x[lane], state) for lane in lanes]  # noqa: B023
    ended = False
    for i in range(14):
        keys, actions = batch.keys(100 + i), batch.actions(generator)
        outcome = batch.step(keys, state, actions, params)
        state = outcome[1]
        for lane in lanes:
            alone = batch.env.step(keys[lane], single[lane], actions[lane], params)
            assert_same(alone, jax.tree.map(lambda x: x[lane], outcome))  # noqa: B023
            single[lane] = alone[1]
            ended |= bool(alone[3])
    assert ended


def assert_same(ours: Any, theirs: Any) -> None:
    def plain(x: Any) -> np.ndarray:
        return np.asarray(jax.random.key_data(x) if jnp.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key) else x)

    jax.tree.map(lambda a, b: np.testing.assert_array_equal(plain(a), plain(b)), ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_compiled_and_uncompiled_functions_agree(batches: dict[str, Batch], task: str) -> None:
    batch = batches[task]
    env, params = batch.env, batch.params
    _, states = batch.reset(batch.keys(3), params)
    # After one step the endless task has generated its segment, so that the slow uncompiled functions need not search.
    actions = batch.actions(np.random.default_rng(3))
    states = batch.step(batch.keys(3), states, actions, params)[1]
    obs, following, reward, terminated, *_ = batch.step(batch.keys(4), states, actions, params)
    with jax.disable_jit():
        plain, *outcome, _ = env.transition(jax.tree.map(lambda x: x[0], states), actions[0], params)
        assert_same(
            (env.render(plain, params), plain, *outcome),
            (obs[0], jax.tree.map(lambda x: x[0], following), reward[0], terminated[0]),
        )


@pytest.mark.parametrize("task", TASKS)
def test_a_step_that_ends_an_episode_resets(batches: dict[str, Batch], task: str) -> None:
    batch = batches[task]
    limit = {"max_steps": 1} if task == ENDLESS else {"max_steps_in_episode": 1}
    _, state = batch.reset(batch.keys(4), batch.params)
    actions = batch.actions(np.random.default_rng(4))
    last, *_ = batch.step(batch.keys(5), state, actions, batch.params)
    obs, following, _, terminated, truncated, info = batch.step(
        batch.keys(5), state, actions, batch.params.replace(**limit)
    )
    assert terminated.all()
    assert not truncated.any()
    assert_same((obs, following), batch.reset(batch.keys(5), batch.params))
    assert_same(info["final_observation"], last)


def test_conditional_work_runs_only_where_needed() -> None:
    def endless_work(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: x > 0, lambda x: x, x)

    work = jax.jit(jax.vmap(only_where_needed(endless_work), (0, 0)))
    # The work terminates only for x = 0; with x = 1 the test hangs unless the work is skipped.
    needed = jnp.arange(3 * GROUP_SIZE) % 2 == 0
    np.testing.assert_array_equal(work(needed, jnp.where(needed, 0, 1)), 0)
    np.testing.assert_array_equal(work(jnp.zeros(5, bool), jnp.ones(5)), 0)
    assert jax.jit(only_where_needed(endless_work))(False, 1) == 0


def test_grouped_work_equals_individual_work() -> None:
    work = jax.jit(jax.vmap(only_where_needed(lambda x, y: {"sum": x + y, "x": x}), (0, 0, None)))
    needed = jnp.arange(3 * GROUP_SIZE + 7) % 3 != 1
    x = jnp.arange(3 * GROUP_SIZE + 7)
    results = work(needed, x, 5)
    np.testing.assert_array_equal(results["sum"], jnp.where(needed, x + 5, 0))
    np.testing.assert_array_equal(results["x"], jnp.where(needed, x, 0))


def test_an_unneeded_layout_is_not_searched() -> None:
    env, params = MysteryPathGrid.from_options({})
    keys = jax.random.split(jax.random.key(0), 4)
    layout = jax.jit(jax.vmap(env.init_layout, (0, None, 0)))(keys, params, jnp.array([False, True, False, True]))
    assert (layout.path.sum(axis=1) != 0).tolist() == [False, True, False, True]


@pytest.mark.slow
def test_a_segment_is_generated_in_the_step_that_enters_it(batches: dict[str, Batch]) -> None:
    batch = batches[ENDLESS]
    _, state = batch.reset(batch.keys(0), batch.params)

    def step(state: Any, actions: jax.Array) -> Any:
        return batch.step(batch.keys(1), state, actions, batch.params)[1]

    stand_still, right = jnp.zeros(BATCH_SIZE, jnp.int32), jnp.ones(BATCH_SIZE, jnp.int32)
    assert (state.num_known == 0).all()
    for _ in range(2):
        state = step(state, stand_still)
        assert (state.num_known == 1).all()
    last_column = state.replace(centre=jnp.stack([state.centre[:, 0] * 0 + 8 * 12 - 1, 12 * state.next_row + 6], 1))
    entered = step(last_column, right)
    assert (entered.num_known == 2).all()
    assert not entered.fallen.any()
    known = (entered.places.sum(axis=(2, 3)) > 0).all(axis=0)
    assert known.tolist() == [True, True] + [False] * (SEGMENTS - 2)


def test_an_endless_path_is_truncated_in_the_last_column(batches: dict[str, Batch]) -> None:
    batch = batches[ENDLESS]
    _, state = batch.reset(batch.keys(0), batch.params)
    before_the_last = state.replace(
        num_known=state.num_known + SEGMENTS,
        places=state.places.at[:, -1, -2:].set(1),
        centre=state.centre.at[:, 0].set(12 * (8 * SEGMENTS - 1) - 1),
    )
    for action in (0, 1):
        actions = np.full(BATCH_SIZE, action, np.int32)
        *_, terminated, truncated, info = batch.step(batch.keys(1), before_the_last, actions, batch.params)
        assert not terminated.any()
        assert (truncated == (action == 1)).all()
        assert (info["overflow"] == truncated).all()


# Options.


@pytest.mark.parametrize("task", TASKS)
def test_parameters_have_memory_gyms_step_limit(hosts: dict[str, Any], task: str) -> None:
    hosts[task].reset(seed=0)
    limit = hosts[task].unwrapped.max_episode_steps
    params = TASKS[task].from_options({})[1]
    assert params.max_steps_in_episode == (0 if limit == -1 else limit)
    assert TASKS[task].from_options({"max_steps": 77})[1].max_steps_in_episode == 77


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (GRID, {"agent_scale": 0.5}),
        (GRID, {"agent_speed": 3.0}),
        (GRID, {"max_steps": 0}),
        (GRID, {"max_steps": 10.5}),
        (CONTINUOUS, {"cardinal_origin_choice": []}),
        (CONTINUOUS, {"cardinal_origin_choice": [4]}),
        (CONTINUOUS, {"cardinal_origin_choice": 2}),
        (CONTINUOUS, {"show_goal": "yes"}),
        (CONTINUOUS, {"reward_goal": float("nan")}),
        (CONTINUOUS, {"reward_goal": None}),
        (CONTINUOUS, {"agent_speed": 13}),
        (ENDLESS, {"max_steps": 0}),
        (ENDLESS, {"stamina_level": 0}),
        (ENDLESS, {"stamina_level": 20.5}),
        (ENDLESS, {"camera_offset_scale": 6}),
        (ENDLESS, {"camera_offset_scale": 1.23}),
        (ENDLESS, {"reward_goal": 1.0}),
    ],
)
def test_invalid_options_are_rejected_by_name(task: str, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=rf"^--env_options: .*\b{name}\b.*") as refusal:
        TASKS[task].from_options(options)
    assert "\n" not in str(refusal.value)
