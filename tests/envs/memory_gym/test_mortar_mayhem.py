"""Mortar Mayhem in JAX is bit for bit equal to the released Memory Gym."""

from collections.abc import Callable
from functools import cache
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.support.replay import EPISODES, SEED, Recording, record, replay
from trxl_jax.envs.device.environment import DeviceEnvironment
from trxl_jax.envs.registry import make_single
from trxl_jax.envs.tasks.memory_gym.endless_mortar_mayhem import EndlessMortarMayhem
from trxl_jax.envs.tasks.memory_gym.environment import OVERFLOW
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem import MortarMayhem, MortarMayhemGrid
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_state import COMMANDS, NO_COMMAND, MortarMayhemLayout
from trxl_jax.errors import ConfigError

pytestmark = pytest.mark.optimised

TASKS: dict[str, Any] = {
    "MortarMayhem-Grid-v0": MortarMayhemGrid,
    "MortarMayhem-v0": MortarMayhem,
    "Endless-MortarMayhem-v0": EndlessMortarMayhem,
}
GRID, FREE, ENDLESS = TASKS
LONGEST = {GRID: 118, FREE: 274, ENDLESS: 450}
"""Maximum number of steps to replay; only episodes of the endless task can be longer."""
P_VALUE = 1e-4


@cache
def host(env_id: str) -> gymnasium.Env:
    return make_single(env_id)


@cache
def compiled(env_id: str) -> tuple[Any, Any]:
    """The task with default options and its parameters; cached, so that tests share compiled programs."""
    return TASKS[env_id].from_options({})


def read_layout(env: Any) -> MortarMayhemLayout:
    shown = env._command_visualization_clone
    cycle = len(shown) // env.num_commands
    duration = cycle - shown[:cycle].count("")
    return MortarMayhemLayout(
        agent=np.array(env.agent.rect.center, np.int32),
        commands=np.array([COMMANDS.index(command) for command in env._commands], np.uint8),
        num_commands=np.int32(env.num_commands),
        show_duration=np.int32(duration),
        show_delay=np.int32(cycle - duration),
        explosion_duration=np.int32(env._explosion_duration),
        explosion_delay=np.int32(env._explosion_delay),
    )


def with_room(layout: MortarMayhemLayout, commands: list[str], room: int) -> MortarMayhemLayout:
    """The layout with all commands of an episode, including those sampled in steps, padded to `room`."""
    numbers = np.zeros(room, np.uint8)
    numbers[: len(commands)] = [COMMANDS.index(command) for command in commands]
    return layout.replace(commands=numbers)


def oracle(env: Any, rng: np.random.Generator) -> Any:
    """Moves to the centre of the target, also across the edges of the screen in the endless task; then stands still."""
    tile, target = np.array(env.normalized_agent_position), np.array(env._target_pos)
    away = (target - tile).astype(int)
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        return turn_towards(env.agent.rotation, away)
    arena = env.arena.arena_size
    if hasattr(env, "t"):
        # Sometimes takes the longer way around. Outside the arena, crosses the edge if the target is on the other side.
        half = arena // 2 + int(env.current_seed) % 2
        beyond = (tile < 0) | (tile >= arena)
        away = np.where(beyond, np.where(target < arena // 2, 1, -1), (away + half) % arena - half)
    pixels = env.arena.rect.x + 14 * target + 7 - np.array(env.agent.rect.center)
    sign = np.where(away != 0, np.sign(away), np.where(abs(pixels) > 2, np.sign(pixels), 0)).astype(int)
    return np.array([0, 2, 1])[sign]


def turn_towards(rotation: int, away: np.ndarray) -> int:
    if not away.any():
        return 0
    axis = int(away[0] == 0)
    wanted = {(0, 1): 270, (0, -1): 90, (1, -1): 0, (1, 1): 180}[axis, int(np.sign(away[axis]))]
    turn = (wanted - rotation) % 360
    return 3 if turn == 0 else 1 if turn <= 180 else 2


def random_policy(env: Any, rng: np.random.Generator) -> Any:
    nvec = getattr(env.action_space, "nvec", None)
    return int(rng.integers(4)) if nvec is None else rng.integers(nvec)


def follows_commands(chance: float) -> Callable[[Any, np.random.Generator], Any]:
    """Follows the commands with random actions in between; stands still while tiles are red."""

    def act(env: Any, rng: np.random.Generator) -> Any:
        random = not env.arena.tiles_on and rng.random() < chance
        return random_policy(env, rng) if random else oracle(env, rng)

    return act


def fails_last_command(env: Any, rng: np.random.Generator) -> Any:
    last = env._current_command == env.num_commands - 1 and not env.arena.tiles_on
    return random_policy(env, rng) if last else oracle(env, rng)


def leaves_the_target(env: Any, rng: np.random.Generator) -> Any:
    """Leaves the target in a straight line while tiles are red, after a command that depends on the episode."""
    leaves = env.arena.tiles_on and env._current_command % 3 == env.current_seed % 3
    if not leaves:
        return oracle(env, rng)
    return 3 if isinstance(env.action_space, gymnasium.spaces.Discrete) else [1 + env.current_seed % 2, 0]


POLICIES = [follows_commands(0.0), follows_commands(0.2), leaves_the_target, fails_last_command, random_policy]


def record_episodes(
    env_id: str, task: Any, options: dict[str, Any], episodes: int, max_steps: int, first: int = 0
) -> list[Recording]:
    return [
        record(
            host(env_id),
            SEED + first + episode,
            options,
            POLICIES[episode % len(POLICIES)],
            read_layout,
            lambda env, layout: with_room(layout, env._commands, task.max_commands),
            max_steps,
        )
        for episode in range(episodes)
    ]


@cache
def replayed(env_id: str) -> tuple[list[Recording], list[Any]]:
    """Replayed episodes with default options, and the states of the JAX task in each."""
    task, params = compiled(env_id)
    recordings = record_episodes(env_id, task, {}, EPISODES, LONGEST[env_id])
    states = replay(task, params, recordings, LONGEST[env_id])
    for recording in recordings:
        recording.obs.clear()  # no longer needed, and a gigabyte for many episodes
    return recordings, states


@pytest.mark.parametrize("env_id", TASKS)
def test_episodes_equal_memory_gyms_bit_for_bit(env_id: str) -> None:
    recordings, states = replayed(env_id)
    assert len(recordings) == len(states) == EPISODES


# 0.1 + 0.6 differs between float32 and float64.
REWARDS = {"reward_command_failure": -0.3, "reward_command_success": 0.1, "reward_episode_success": 0.6}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    (GRID, {"arena_size": 2, "command_count": [1, 4], "allowed_commands": 9, "explosion_delay": [4, 5], **REWARDS}),
    (GRID, {"arena_size": 6, "command_count": [3], "command_show_duration": [0, 1], "visual_feedback": False}),
    (GRID, {"arena_size": 3, "command_count": [4], "explosion_duration": [1], "explosion_delay": [1], **REWARDS}),
    (FREE, {"arena_size": 2, "command_count": [5], "explosion_duration": [1, 3], "explosion_delay": [6], **REWARDS}),
    (FREE, {"arena_size": 4, "command_count": [2, 3], "command_show_delay": [0, 2], "agent_speed": 4.5}),
    (FREE, {"arena_size": 6, "command_count": [3], "allowed_commands": 4, "visual_feedback": False, "agent_speed": 0}),
    (ENDLESS, {"initial_command_count": 3, "max_steps": 90, "command_show_delay": [0], "agent_speed": 2.5}),
    (ENDLESS, {"allowed_commands": 5, "explosion_duration": [1, 2], "explosion_delay": [9, 12], "agent_speed": 5.75}),
    (ENDLESS, {"visual_feedback": False, "command_show_duration": [2, 1], "command_show_delay": [3], "max_steps": -1}),
]


@pytest.mark.parametrize(("env_id", "options"), OPTIONS)
def test_options_have_the_same_effect_as_in_memory_gym(env_id: str, options: dict[str, Any]) -> None:
    task, params = TASKS[env_id].from_options(options)
    recordings = record_episodes(env_id, task, options, max(10, EPISODES // 5), 150, first=10_000)
    replay(task, params, recordings, 150)
    bound = host(env_id).unwrapped.max_episode_steps
    assert params.max_steps_in_episode == max(bound, 0)


def ends(env_id: str) -> list[tuple[Recording, Any, Any]]:
    """Finished episodes: the recording, the state before the last step, and the state after it."""
    recordings, states = replayed(env_id)
    return [
        (recording, jax.tree.map(lambda x: x[-2], passed), jax.tree.map(lambda x: x[-1], passed))
        for recording, passed in zip(recordings, states)
        if recording.dones[-1]
    ]


def all_states(env_id: str, field: str) -> np.ndarray:
    return np.concatenate([getattr(passed, field) for passed in replayed(env_id)[1]])


def test_replays_cover_all_commands_and_rotations() -> None:
    for env_id, commands, rotations in ((GRID, 5, 4), (FREE, 9, 8), (ENDLESS, 9, 8)):
        assert set(all_states(env_id, "shown")) == {*range(commands), NO_COMMAND}
        assert set(all_states(env_id, "rotation")) == set(range(0, 8, 8 // rotations))


@pytest.mark.parametrize("env_id", [GRID, FREE])
def test_replays_cover_all_ways_to_end(env_id: str) -> None:
    counts = dict.fromkeys(("all executed", "last one failed", "earlier one failed", "killed by a tile"), 0)
    for recording, before, after in ends(env_id):
        if recording.info["success"]:
            # Failing the last command counts as success, without a reward.
            counts["all executed" if recording.rewards[-1] else "last one failed"] += 1
            assert recording.info["commands_completed"] == 1
        else:
            counts["killed by a tile" if before.red else "earlier one failed"] += 1
            assert recording.info["commands_completed"] == (after.current - 1) / after.num_commands
    assert min(counts.values()) >= 2, counts


def test_replays_of_the_endless_task_cover_all_ends_and_edges() -> None:
    finished = ends(ENDLESS)
    killed = sum(bool(before.red) for _, before, _ in finished)
    assert 2 <= killed <= len(finished) - 2
    assert sum(passed.num_commands[-1] >= 4 for passed in replayed(ENDLESS)[1]) >= 5
    jumps = np.concatenate([np.diff(passed.agent, axis=0) for passed in replayed(ENDLESS)[1]])
    tiles = all_states(ENDLESS, "agent") // 14
    for axis in (0, 1):
        assert (jumps[:, axis] > 42).any()
        assert (jumps[:, axis] < -42).any()
        assert set(tiles[:, axis]) == set(range(-1, 7))


@pytest.mark.parametrize("env_id", TASKS)
def test_debug_pictures_equal_memory_gyms(env_id: str) -> None:
    env = make_single(env_id, render_mode="debug_rgb_array")
    task, params = compiled(env_id)
    shown = []

    def act(plain: Any, rng: np.random.Generator) -> Any:
        shown.append(plain.render())
        return oracle(plain, rng)

    recording = record(env, SEED, {}, act, read_layout, lambda e, x: with_room(x, e._commands, task.max_commands), 118)
    (states,) = replay(task, params, [recording], LONGEST[env_id])
    drawn = jax.jit(jax.vmap(task.render_debug, (0, None)))(jax.tree.map(lambda x: x[:-1], states), params)
    np.testing.assert_array_equal(drawn, np.stack(shown))
    assert drawn.shape[1:] == (336, 336, 3)
    assert set(states.red) == {False, True}


def same_distribution(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two samples of small integers may have the same distribution (chi-squared test, rare values merged)."""
    values = np.union1d(ours, theirs)
    table = np.array([[(sample == value).sum() for value in values] for sample in (ours, theirs)])
    expected = table.sum(axis=0) * table.sum(axis=1, keepdims=True) / table.sum()
    rare = expected.min(axis=0) < 5
    table = np.hstack([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)])
    table = table[:, table.sum(axis=0) > 0]
    return table.shape[1] < 2 or stats.chi2_contingency(table).pvalue > P_VALUE


CHOICES = {
    "command_show_duration": [1, 3],
    "command_show_delay": [0, 1, 4],
    "explosion_duration": [2, 5],
    "explosion_delay": [6, 7, 8],
}


@pytest.mark.slow
@pytest.mark.parametrize("env_id", TASKS)
def test_resets_have_memory_gyms_distributions(env_id: str) -> None:
    options = CHOICES | ({} if env_id == ENDLESS else {"command_count": [3, 4], "allowed_commands": 7})
    task, params = TASKS[env_id].from_options(options)
    layouts = []
    for seed in range(800):
        host(env_id).reset(seed=seed, options=options)
        plain = host(env_id).unwrapped
        more = plain._generate_commands(4) if env_id == ENDLESS else plain._commands
        layouts.append(with_room(read_layout(plain), more, 4))
    theirs = jax.tree.map(lambda *x: np.stack(x), *layouts)
    keys = jax.random.split(jax.random.key(SEED), 8000)
    ours = jax.tree.map(np.asarray, jax.jit(jax.vmap(task.init_layout, (0, None)))(keys, params))
    for name in ("num_commands", "show_duration", "show_delay", "explosion_duration", "explosion_delay"):
        assert same_distribution(getattr(ours, name), getattr(theirs, name)), name
    for axis in (0, 1):
        assert same_distribution(ours.agent[:, axis], theirs.agent[:, axis])
    corner = 42 - 7 * task.arena_size
    tiles = [(layout.agent - corner) // 14 @ [task.arena_size, 1] for layout in (ours, theirs)]
    assert same_distribution(*tiles)
    for i in range(4):
        assert same_distribution(ours.commands[:, i], theirs.commands[:, i])
        # The possible commands depend on the start tile.
        assert same_distribution(*(9 * tile + layout.commands[:, i] for tile, layout in zip(tiles, (ours, theirs))))
    pairs = [9 * layout.commands[:, 0].astype(int) + layout.commands[:, 1] for layout in (ours, theirs)]
    assert same_distribution(*pairs)


# Short and easy, so that random play ends in different ways.
EASY = {"command_show_duration": [1], "command_show_delay": [0], "explosion_delay": [3, 5], "explosion_duration": [2]}
SMALL: dict[str, dict[str, Any]] = {
    GRID: {**EASY, "arena_size": 2, "command_count": [2, 3]},
    FREE: {**EASY, "arena_size": 2, "command_count": [2, 3]},
    ENDLESS: {**EASY, "allowed_commands": 5, "agent_speed": 9},
}


@cache
def small(env_id: str) -> tuple[Any, Any]:
    """A task with short episodes, and its parameters."""
    task, params = TASKS[env_id].from_options(SMALL[env_id])
    return task, jax.tree.map(jnp.asarray, params)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", TASKS)
def test_random_play_has_memory_gyms_distribution_of_lengths_and_returns(env_id: str) -> None:
    task, params = small(env_id)
    theirs = []
    for seed in range(200):
        recording = record(host(env_id), seed, SMALL[env_id], random_policy, lambda env: None, max_steps=60)
        assert recording.dones[-1]
        theirs.append((len(recording.dones), round(10 * sum(recording.rewards))))

    def episode(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(carry: tuple[Any, jax.Array], key: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            state, running = carry
            state, reward, terminated, _ = task.transition(state, task.action_space(params).sample(key), params)
            return (state, running & ~terminated), (running, jnp.where(running, reward, 0))

        keys = jax.random.split(key, 61)
        first = task.reset_from_layout(task.init_layout(keys[0], params), params)
        running_steps, rewards = jax.lax.scan(step, (first, jnp.bool_(True)), keys[1:])[1]
        return running_steps.sum(), rewards.sum()

    lengths, returns = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(SEED), 4000))
    ours = np.stack([lengths, np.round(10 * np.asarray(returns))], axis=1).astype(int)
    for column in (0, 1):
        assert same_distribution(ours[:, column], np.array(theirs)[:, column])
        assert stats.ks_2samp(ours[:, column], np.array(theirs)[:, column]).pvalue > P_VALUE
    assert same_distribution(*(np.array(sample) @ [100, 1] for sample in (ours, theirs)))


@pytest.mark.slow
@pytest.mark.parametrize("env_id", TASKS)
def test_batched_steps_and_automatic_resets_equal_single_ones(env_id: str) -> None:
    task, params = small(env_id)
    batch = jax.jit(jax.vmap(task.step, (0, 0, 0, None)))
    reset, transition, render = (jax.jit(f) for f in (task.reset_env, task.transition, task.render))
    started = [reset(jax.random.key(SEED + i), params)[1] for i in range(2)]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *started)
    num_ends = 0
    for i in range(40):
        keys = jax.random.split(jax.random.key(SEED + 10 + i), 2)
        actions = jax.vmap(task.action_space(params).sample)(keys)
        befores = jax.tree.map(np.asarray, states)
        obs, states, *rest = batch(keys, states, actions, params)
        for lane in range(2):
            before, after, (reward, terminated, truncated, info) = jax.tree.map(
                lambda x: x[lane],  # noqa: B023
                (befores, states, tuple(rest)),
            )
            state, *by_hand = transition(before, actions[lane], params)
            picture = render(state, params)
            np.testing.assert_array_equal(info["final_observation"], picture)
            assert by_hand[0] == reward
            assert by_hand[1] == terminated == info["terminated"]
            assert not truncated
            assert all(info[name] == by_hand[2][name] for name in set(task.result_names) - {OVERFLOW})
            if terminated:
                picture, state = reset(keys[lane], params)
            np.testing.assert_array_equal(obs[lane], picture)
            jax.tree.map(np.testing.assert_array_equal, after, state)
            num_ends += int(terminated)
    assert num_ends >= 3


@pytest.mark.slow
def test_compiled_equals_interpreted() -> None:
    task, params = small(GRID)
    state = task.reset(jax.random.key(SEED), params)[1].replace(frames_left=jnp.int32(0))
    key = jax.random.key(SEED + 1)
    action = task.action_space(params).sample(key)
    expected = task.step(key, state, action, params)
    with jax.disable_jit():
        jax.tree.map(np.testing.assert_array_equal, expected, task.step(key, state, action, params))


def test_fractions_of_commands_are_exact_if_a_batch_shares_the_divisor() -> None:
    task, params = compiled(GRID)
    layout = task.init_layout(jax.random.key(0), params)
    state = task.reset_from_layout(layout, params).replace(frames_left=0, red=True)

    @jax.jit
    def shares(current: jax.Array, num_commands: jax.Array) -> jax.Array:
        def share(current: jax.Array) -> jax.Array:
            at = state.replace(current=current, num_commands=num_commands)
            return task.transition(at, jnp.int32(0), params)[3]["commands_completed"]

        return jax.vmap(share)(current)

    for n in range(1, 11):
        current = np.arange(1, n + 1)
        np.testing.assert_array_equal(shares(current, n), ((current - 1) / n).astype(np.float32))


@pytest.mark.parametrize("env_id", [GRID, FREE])
def test_no_commands_are_sampled_if_no_layout_is_needed(env_id: str) -> None:
    task, params = compiled(env_id)
    layout = jax.jit(task.init_layout)(jax.random.key(1), params, False)
    assert not np.any(layout.commands)
    assert np.any(jax.jit(task.init_layout)(jax.random.key(1), params, True).commands)


def test_commands_stay_within_the_arena() -> None:
    moves = np.array([(1, 0), (0, 1), (-1, 0), (0, -1), (0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)])
    for env_id in (GRID, FREE):
        task, params = compiled(env_id)
        keys = jax.random.split(jax.random.key(SEED), 500)
        layouts = jax.jit(jax.vmap(task.init_layout, (0, None)))(keys, params)
        path = (layouts.agent - 7)[:, None] // 14 + np.cumsum(moves[layouts.commands], axis=1)
        assert np.min(path) == 0
        assert np.max(path) == 4


def test_the_endless_task_is_truncated_when_its_capacity_is_exceeded() -> None:
    task = EndlessMortarMayhem(max_commands=2)
    params = task.default_params
    layout = task.init_layout(jax.random.key(0), params)
    stay = layout.replace(commands=jnp.full(2, COMMANDS.index("stay"), jnp.uint8))
    step = jax.jit(task.step)
    state = task.reset_from_layout(stay, params)
    for _ in range(200):
        _, state, reward, terminated, truncated, info = step(jax.random.key(1), state, jnp.zeros(2, jnp.int32), params)
        assert info["overflow"] == truncated
        assert not terminated
        if truncated:
            break
    assert truncated
    assert state.time == 0
    assert reward == np.float32(0.1)
    assert info["commands_completed"] == 3
    assert info["max_command_sequence"] == 2


@pytest.mark.parametrize(
    ("env_id", "options", "line"),
    [
        (GRID, {"agent_speed": 3.0}, "unknown option 'agent_speed'; this task has agent_scale, allowed_commands, "),
        (FREE, {"agent_scale": 0.5}, "agent_scale can only be 0.25 on the device; use --backend host"),
        (FREE, {"agent_speed": -1}, "agent_speed must be a number from 0, not -1"),
        (FREE, {"agent_speed": float("nan")}, "agent_speed must be a number from 0, not nan"),
        (FREE, {"arena_size": 7}, "arena_size must be a whole number from 2 to 6, not 7"),
        (ENDLESS, {"arena_size": 6}, "unknown option 'arena_size'"),
        (GRID, {"allowed_commands": 3}, "allowed_commands must be a whole number from 4 to 9, not 3"),
        (
            GRID,
            {"command_count": 3},
            "command_count must be a list of whole numbers from 1 to 1000 to choose from, such",
        ),
        (GRID, {"command_count": []}, "command_count must be a list"),
        (GRID, {"command_count": [2, 0]}, "command_count must be a list"),
        (GRID, {"explosion_delay": [1.5]}, "explosion_delay must be a list"),
        (ENDLESS, {"explosion_duration": [0]}, "explosion_duration must be a list"),
        (ENDLESS, {"command_show_duration": [-1]}, "command_show_duration must be a list"),
        (ENDLESS, {"command_show_delay": "1"}, "command_show_delay must be a list"),
        (
            FREE,
            {"command_show_delay": [2, 0], "command_show_duration": [0]},
            "command_show_duration and command_show_delay are both 0; give one of them another value",
        ),
        (ENDLESS, {"initial_command_count": 0}, "initial_command_count must be a whole number from 1 to 1000, not 0"),
        (ENDLESS, {"max_steps": 1.5}, "max_steps must be a whole number from 1 to 1e+09, or -1 for no limit, not 1.5"),
        (FREE, {"visual_feedback": 1}, "visual_feedback must be true or false, not 1"),
        (FREE, {"reward_command_success": True}, "reward_command_success must be a number, not True"),
        (FREE, {"reward_episode_success": "1"}, "reward_episode_success must be a number, not '1'"),
        (ENDLESS, {"reward_episode_success": 1}, "unknown option 'reward_episode_success'"),
    ],
)
def test_invalid_options_are_rejected_in_one_line(env_id: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        TASKS[env_id].from_options(options)
    assert str(refusal.value).startswith(f"--env_options: {line}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("env_id", TASKS)
def test_defaults_spaces_and_speed_are_memory_gyms(env_id: str) -> None:
    env, (task, params) = host(env_id), compiled(env_id)
    assert task.defaults == type(env.unwrapped).default_reset_parameters
    assert task.fps == env.unwrapped.metadata["render_fps"]
    ours, theirs = DeviceEnvironment(task, params).spec, env.action_space
    assert ours.action.nvec == ((theirs.n,) if env_id == GRID else tuple(theirs.nvec))
    assert ours.obs.arrays[""].shape == env.observation_space.shape
    jax.tree.map(np.testing.assert_array_equal, params, task.default_params)
