"""POPGym's control tasks: in float64 equal to the released package, in float32 to the rounding of each step."""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from trxl_jax.envs.tasks.popgym import control
from trxl_jax.envs.tasks.popgym.control_names import CONTROL_TASKS

from tests.support.popgym import EPISODES, SEED  # isort: skip

pytest.importorskip("popgym")
pytestmark = pytest.mark.optimised

EASY = [name for name in CONTROL_TASKS if "Easy" in name]
WINDOW = 50
"""Steps that are replayed from one of the package's states; meanwhile the upright pole multiplies differences by 50."""


def make(name: str) -> Any:
    kind, settings = CONTROL_TASKS[name]
    return getattr(control, kind)(**settings)


def host(name: str) -> Any:
    return gymnasium.make(f"popgym-{name}", disable_env_checker=True)


def policy(env: Any, generator: np.random.Generator, skill: float) -> Any:
    """With some skill balances or swings up, by the body's true state; else at random."""
    if generator.random() > skill:
        return env.action_space.sample()
    if "Pendulum" in type(env).__name__:
        return np.array([2 * np.sign(env.state[1])], np.float32)
    position, speed, angle, turn = env.state
    return int(0.1 * position + 0.3 * speed + 3 * angle + turn > 0)


def record(env: Any, seed: int, skill: float) -> dict[str, Any]:
    """One episode; bodies before and after each step are float64, noise is what was added to the observations."""
    plain = env.unwrapped
    plain.action_space.seed(seed)
    played: dict[str, list[Any]] = {
        "body": [],
        "noise": [],
        "obs": [],
        "action": [],
        "reward": [],
        "end": [],
        "cut": [],
    }
    add_noise = getattr(type(plain), "add_noise_to_obs", None)

    def watched(obs: np.ndarray) -> np.ndarray:
        generator_state = plain.np_random.bit_generator.state
        noise = plain.np_random.normal(0, plain.noise_sigma).astype(np.float32)
        plain.np_random.bit_generator.state = generator_state
        played["noise"].append(noise)
        return add_noise(plain, obs)

    if add_noise is not None:
        plain.add_noise_to_obs = watched
    obs, _ = env.reset(seed=seed)
    played["body"].append(np.array(plain.state))
    played["obs"].append(obs)
    generator, done = np.random.default_rng(seed), False
    while not done:
        action = policy(plain, generator, skill)
        obs, reward, terminated, truncated, _ = env.step(action)
        for key, value in zip(
            ("body", "obs", "action", "reward", "end", "cut"),
            (np.array(plain.state), obs, action, reward, terminated, truncated),
            strict=True,
        ):
            played[key].append(value)
        done = terminated or truncated
    played["noise"] = played["noise"] or [np.zeros(2, np.float32)] * len(played["obs"])
    return {key: np.array(values) for key, values in played.items()}


def replayer(task: control.ControlTask) -> Any:
    """Replays whole episodes with the same actions and noise, in windows that start from the package's states."""
    params = task.default_params

    def window(time: jax.Array, body: jax.Array, noise: jax.Array, actions: jax.Array) -> Any:
        layout = control.ControlLayout(body, noise[0])
        first = task.reset_from_layout(layout, params).replace(time=time)

        def step(state: Any, given: Any) -> Any:
            action, noise = given
            state, *results = task.transition(jax.random.key(0), state, action, params)
            state = state.replace(noise=noise)
            return state, (task.observation(state), *results)

        return task.observation(first), jax.lax.scan(step, first, (actions, noise[1:]))[1]

    run, windows = jax.jit(jax.vmap(window)), params.max_steps_in_episode // WINDOW
    assert windows * WINDOW == params.max_steps_in_episode

    def replay(played: dict[str, Any]) -> list[np.ndarray]:
        length = len(played["action"])

        def padded(values: np.ndarray) -> np.ndarray:
            more = np.zeros((windows * WINDOW + 1 - len(values), *values.shape[1:]), values.dtype)
            return np.concatenate([values, more])

        starts = np.arange(windows, dtype=np.int32) * WINDOW
        steps = starts[:, None] + np.arange(WINDOW)
        noise, actions = padded(played["noise"]), padded(played["action"])
        noise = np.stack([noise[start : start + WINDOW + 1] for start in starts])
        first, results = run(starts, padded(played["body"])[starts], noise, actions[steps])
        inside = starts <= length
        np.testing.assert_allclose(first[inside], played["obs"][starts[inside]], rtol=2e-7, atol=1e-7)
        return [np.asarray(x).reshape(windows * WINDOW, *x.shape[2:])[:length] for x in results]

    return replay


@pytest.mark.parametrize("name", CONTROL_TASKS)
def test_in_float64_episodes_are_the_packages(name: str) -> None:
    env, ends = host(name), set()
    with jax.enable_x64(True):
        replay = replayer(make(name))
        for episode in range(EPISODES):
            played = record(env, SEED + episode, (0.0, 1.0, 0.7)[episode % 3])
            obs, reward, terminated, truncated = replay(played)
            # To float32's last digit: sines of XLA and of NumPy differ in the last one of float64.
            np.testing.assert_allclose(obs, played["obs"][1:], rtol=2e-7, atol=1e-7)
            np.testing.assert_allclose(reward, played["reward"].astype(np.float32), rtol=2e-7, atol=1e-9)
            np.testing.assert_array_equal(terminated, played["end"])
            np.testing.assert_array_equal(truncated, played["cut"])
            ends |= {(bool(terminated[-1]), bool(truncated[-1]))}
    assert (False, True) in ends
    assert (True, False) in ends or "Pendulum" in name


@pytest.mark.parametrize("name", EASY)
def test_in_float32_each_step_is_the_packages_to_its_rounding(name: str) -> None:
    """Angles of the pendulum aren't brought back to one turn, so that their rounding grows with the turns."""
    env, task = host(name), make(name)
    params, step, largest = task.default_params, jax.jit(jax.vmap(task.move)), 0.0
    for episode in range(EPISODES):
        played = record(env, SEED + episode, (0.0, 1.0)[episode % 2])
        before, after = played["body"][:-1], played["body"][1:]
        body, reward, fell = step(before.astype(np.float32), played["action"])
        assert body.dtype == np.float32
        np.testing.assert_allclose(body, after, rtol=1e-6, atol=4e-6)
        largest = max(largest, (np.abs(body - after) / np.maximum(1, np.abs(after))).max())
        # Where the angle jumps from one side to the other, rounding decides.
        clear = np.abs(np.abs((before[:, 0] + np.pi) % (2 * np.pi) - np.pi) - np.pi) > 1e-4
        wanted = played["reward"] / float(params.reward)
        np.testing.assert_allclose(reward[clear], wanted[clear], atol=1e-5)
        np.testing.assert_array_equal(fell, played["end"])
    print(f"\n{name}: largest difference of a step {largest:.1e}")


def test_the_first_observation_of_velocities_shows_positions() -> None:
    task = make("VelocityOnlyCartpoleEasy-v0")
    body = jnp.array([0.01, 0.02, 0.03, 0.04])
    state = task.reset_from_layout(control.ControlLayout(body, jnp.zeros(2)), task.default_params)
    assert task.observation(state).tolist() == np.float32([0.01, 0.03]).tolist()
    later = state.replace(time=jnp.int32(1))
    assert task.observation(later).tolist() == np.float32([0.02, 0.04]).tolist()


@pytest.mark.parametrize("name", EASY)
def test_what_is_drawn_is_distributed_as_in_the_package(name: str) -> None:
    env, task = host(name), make(name)
    keys = jax.random.split(jax.random.key(SEED), 1000)
    layout = jax.vmap(task.init_layout, (0, None))(keys, task.default_params)
    theirs = []
    for seed in range(300):
        env.reset(seed=SEED + seed)
        theirs.append(np.array(env.unwrapped.state))
    for ours, drawn in zip(np.asarray(layout.body).T, np.array(theirs).T, strict=True):
        assert stats.ks_2samp(ours, drawn).pvalue > 1e-4
    for noise in np.asarray(layout.noise).T:
        if task.noise_sigma is None:
            assert (noise == 0).all()
        else:
            assert stats.kstest(noise, stats.norm(0, task.noise_sigma).cdf).pvalue > 1e-4
    assert task.noise_sigma is None or abs(np.corrcoef(layout.noise.T)[0, 1]) < 0.15
