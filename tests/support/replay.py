"""Plays Memory Gym and its twin on the device side by side, and compares what both show bit for bit."""

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
    """One episode of the host's task; T steps.

    Fields:
        layout: what its reset had drawn, as the device's task takes it.
        obs: T + 1 pictures u8[84, 84, 3].
        actions: T actions.
        rewards: T rewards f32.
        dones: T ends.
        info: the last step's.
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
    """Plays one episode of Memory Gym.

    Args:
        env: the released package's environment.
        seed: of the reset and of the policy.
        options: of the reset.
        policy: from the environment and a generator to an action.
        read_layout: reads the layout off the environment after its reset.
        finish_layout: adds to it what steps drew, once the episode is over.
        max_steps: after which an episode is cut.
    """
    plain = env.unwrapped
    # A used instance of an endless task shows the last episode's agent; a fresh one has none.
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
    """An episode on the device: state and picture of the start, and state, picture, reward, end and info of each step.

    A task that is the same object, and recordings that are padded to the same length, share what was compiled.
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
    """Plays recordings on the device and asserts that pictures, rewards, ends and final infos are equal, bit for bit.

    Args:
        task: the device's task.
        params: its parameters.
        recordings: what the host's task showed.
        padded: steps that all are padded to; as many as the longest has if None.
        on_difference: takes the state and the host's picture where the device draws another one; None to fail there.

    Returns:
        The states that were passed through, T + 1 of each recording stacked, to see which branches were met.
    """
    longest = padded or max(len(recording.actions) for recording in recordings)
    shape = np.shape(recordings[0].actions[0])
    params = jax.tree.map(jnp.asarray, params)
    passed, differing = [], 0
    for recording in recordings:
        length = len(recording.actions)
        actions = np.zeros((longest, *shape), np.int32)
        actions[:length] = recording.actions
        (first, first_obs), steps = play(task, params, jax.tree.map(jnp.asarray, recording.layout), actions)
        states, obs, reward, done, info = jax.tree.map(lambda x: _numbers(x)[:length], steps)  # noqa: B023
        np.testing.assert_array_equal(first_obs, recording.obs[0])
        for i in range(length):
            if on_difference and (obs[i] != recording.obs[i + 1]).any():
                differing += 1
                on_difference(jax.tree.map(lambda x: x[i], states), recording.obs[i + 1])  # noqa: B023
            else:
                assert (obs[i] == recording.obs[i + 1]).all(), f"the picture after step {i} differs"
        np.testing.assert_array_equal(reward.view(np.int32), np.array(recording.rewards, np.float32).view(np.int32))
        np.testing.assert_array_equal(done, recording.dones)
        if recording.dones[-1]:
            for name in set(task.result_names) - {OVERFLOW}:
                np.testing.assert_equal(info[name][-1], np.float32(recording.info[name]), name)
        passed.append(jax.tree.map(lambda a, b: np.concatenate([_numbers(a)[None], b]), first, states))
    # For the table in docs/environments.md: pytest -s shows it.
    steps = sum(len(recording.actions) for recording in recordings)
    print(
        f"\n{task.name}: {len(recordings)} episodes, {steps} steps, {jnp.zeros(0, float).dtype}, {differing} differing"
    )
    return passed


def _numbers(x: jax.Array) -> np.ndarray:
    """Of a key too."""
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
