"""Replays episodes of the released Memory Gym in the JAX version and compares them bit for bit."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.envs.tasks.memory_gym.environment import OVERFLOW

EPISODES = int(os.environ.get("TRXL_REPLAY_EPISODES", "50"))
SEED = int(os.environ.get("TRXL_REPLAY_SEED", "0"))


@dataclass
class Recording:
    """One episode of T steps of the released Memory Gym (on the host).

    Fields:
        layout: the random outcome of its reset, as the JAX task's `reset_from_layout` takes it.
        obs: T + 1 observations u8[84, 84, 3].
        actions: T actions.
        rewards: T rewards f32.
        dones: T done flags.
        info: info of the last step.
    """

    layout: Any
    obs: list[np.ndarray]
    actions: list[Any] = field(default_factory=list)
    rewards: list[np.float32] = field(default_factory=list)
    dones: list[bool] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)


def record(
    env: Any,
    seed: int,
    options: dict[str, Any],
    policy: Callable[[Any, np.random.Generator], Any],
    read_layout: Callable[[Any], Any],
    finish_layout: Callable[[Any, Any], Any] | None = None,
    max_steps: int = 600,
) -> Recording:
    """Plays and records one episode of the released Memory Gym.

    Args:
        env: the released package's environment.
        seed: seed of the reset and of the policy.
        options: options of the reset.
        policy: maps the environment and a random generator to an action.
        read_layout: reads the layout from the environment after the reset.
        finish_layout: adds what was drawn in steps to the layout, after the episode.
        max_steps: maximum number of recorded steps.
    """
    plain = env.unwrapped
    # An instance of an endless task that is reset again shows the previous episode's agent; a new instance does not.
    plain.rotated_agent_surface = plain.rotated_agent_rect = None
    obs, _ = env.reset(seed=seed, options=options)
    recording = Recording(read_layout(plain), [obs])
    generator = np.random.default_rng(seed)
    while len(recording.actions) < max_steps and not (recording.dones and recording.dones[-1]):
        action = policy(plain, generator)
        obs, reward, done, _, info = env.step(action)
        recording.obs.append(obs)
        recording.actions.append(action)
        recording.rewards.append(np.float32(reward))
        recording.dones.append(bool(done))
        recording.info = info
    if finish_layout:
        recording.layout = finish_layout(plain, recording.layout)
    return recording


@partial(jax.jit, static_argnums=0)
def play(task: Any, params: Any, layout: Any, actions: jax.Array) -> tuple[Any, Any]:
    """Plays an episode of the JAX task.

    Calls with the same task object and number of actions share one compiled program.

    Args:
        task: the JAX task.
        params: its parameters.
        layout: the layout to start from.
        actions: i32[T, ...].

    Returns:
        State and observation after the reset; then states, observations, rewards, done flags and infos of T steps.
    """

    def step(state: Any, action: jax.Array) -> tuple[Any, Any]:
        following, reward, done, info = task.transition(state, action, params)
        return following, (following, task.render(following, params), reward, done, info)

    first = task.reset_from_layout(layout, params)
    return (first, task.render(first, params)), jax.lax.scan(step, first, actions)[1]


def replay(
    task: Any,
    params: Any,
    recordings: list[Recording],
    padded: int | None = None,
    on_difference: Callable[[Any, np.ndarray], None] | None = None,
) -> list[Any]:
    """Replays recordings in the JAX task; asserts bit-equal observations, rewards, done flags and final infos.

    Args:
        task: the JAX task.
        params: its parameters.
        recordings: episodes of the released package.
        padded: number of steps to pad all recordings to; None: the longest recording's.
        on_difference: called with the state and the expected observation where observations differ; None: fail there.

    Returns:
        The states of each recording, T + 1 stacked, to check which branches were covered.
    """
    longest = padded or max(len(recording.actions) for recording in recordings)
    shape = np.shape(recordings[0].actions[0])
    params = jax.tree.map(jnp.asarray, params)
    visited, differing = [], 0
    for recording in recordings:
        length = len(recording.actions)
        actions = np.zeros((longest, *shape), np.int32)
        actions[:length] = recording.actions
        (first, first_obs), steps = play(task, params, jax.tree.map(jnp.asarray, recording.layout), actions)
        states, obs, reward, done, info = jax.tree.map(lambda x: _to_numpy(x)[:length], steps)  # noqa: B023
        np.testing.assert_array_equal(first_obs, recording.obs[0])
        for i in range(length):
            if on_difference and (obs[i] != recording.obs[i + 1]).any():
                differing += 1
                on_difference(jax.tree.map(lambda x: x[i], states), recording.obs[i + 1])  # noqa: B023
            else:
                assert (obs[i] == recording.obs[i + 1]).all(), f"the observation after step {i} differs"
        np.testing.assert_array_equal(reward.view(np.int32), np.array(recording.rewards, np.float32).view(np.int32))
        np.testing.assert_array_equal(done, recording.dones)
        if recording.dones[-1]:
            for name in set(task.result_names) - {OVERFLOW}:
                np.testing.assert_equal(info[name][-1], np.float32(recording.info[name]), name)
        visited.append(jax.tree.map(lambda a, b: np.concatenate([_to_numpy(a)[None], b]), first, states))
    # Counts for the table in docs/environments.md; shown by pytest -s.
    steps = sum(len(recording.actions) for recording in recordings)
    print(
        f"\n{task.name}: {len(recordings)} episodes, {steps} steps, {jnp.zeros(0, float).dtype}, {differing} differing"
    )
    return visited


def _to_numpy(x: jax.Array) -> np.ndarray:
    """Converts to NumPy, including typed PRNG keys."""
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
