"""Checks of the values between the stages of an iteration, for `--debug`, and a dump of a rollout that went wrong."""

from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.agent.cores.cache import CachedStates
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.observations import arrays_of
from trxl_jax.files import atomic_path
from trxl_jax.ppo.observations import SharedFrames
from trxl_jax.ppo.rollout import Rollout, RolloutState
from trxl_jax.ppo.train_step import CollectFn, LearnFn, TrainStep, chain
from trxl_jax.ppo.update import Metrics, TrainState


def checked_train_step(collect: CollectFn, learn: LearnFn, spec: EnvSpec) -> TrainStep:
    """An iteration that checks the values between rollout and update, which must be two compiled programs.

    Raises:
        AssertionError: from the iteration, naming what is wrong.
    """

    def checked_collect(train_state: TrainState, state: RolloutState, key: jax.Array) -> tuple[RolloutState, Rollout]:
        state, collected = collect(train_state, state, key)
        check_rollout(jax.device_get(collected), spec)
        return state, collected

    def checked_learn(train_state: TrainState, collected: Rollout, key: jax.Array) -> tuple[TrainState, Metrics]:
        train_state, metrics = learn(train_state, collected, key)
        check_train_state(jax.device_get(train_state))
        return train_state, metrics

    return chain(checked_collect, checked_learn)


def check_rollout(rollout: Rollout, spec: EnvSpec) -> None:
    """Checks what is true of every rollout.

    Raises:
        AssertionError: something is wrong.
    """
    steps = rollout.transitions
    num_steps, num_envs = steps.reward.shape
    obs = rollout.observations.obs
    for name, array in arrays_of(obs).items():
        chex.assert_shape(array, (num_steps, num_envs, *spec.obs.arrays[name].shape))
    chex.assert_shape(steps.action, (num_steps, num_envs, spec.action.num_columns))
    chex.assert_tree_all_finite((obs, steps.log_prob, steps.value, steps.reward, rollout.last_value))
    finite = [np.isfinite(leaf.astype(np.float32)).all() for leaf in jax.tree.leaves(rollout.memory)]
    assert all(finite), "the memory holds numbers that are not finite"
    if isinstance(spec.action, DiscreteActions):  # others have densities
        assert (steps.log_prob <= 0).all(), "a probability is larger than 1"
    assert spec.action.contains(steps.action).all(), "an action lies outside its space"
    # Steps of an episode count up from where the rollout began; after an end they start at 0.
    follows = np.where(steps.done[:-1], 0, steps.episode_step[:-1] + 1)
    assert (steps.episode_step[1:] == follows).all(), "an episode's steps don't follow each other"
    if isinstance(rollout.memory, CachedStates):
        written = rollout.memory.position[:, -num_steps:]
        assert (written == steps.episode_step.T).all(), "a slot's position is not the step in which it was written"
    indices = np.arange(num_steps * num_envs).reshape(num_steps, num_envs)
    for recorded in rollout.observations.arrays.values():
        if isinstance(recorded, SharedFrames):
            assert (recorded.first_index <= indices).all(), "a frame is marked as equal to a later one"


def check_train_state(train_state: TrainState) -> None:
    """Checks that parameters and the optimiser's state are finite.

    Raises:
        AssertionError: something isn't.
    """
    chex.assert_tree_all_finite(train_state)


def write_rollout(path: Path, rollout: Rollout) -> None:
    """Writes a rollout's arrays by name, `transitions.reward` and so on, as .npz; bfloat16 as float32.

    Raises:
        OSError: the file can't be written.
    """
    arrays: dict[str, Any] = {}
    rollout = rollout._replace(observations=rollout.observations.as_arrays())
    for where, leaf in jax.tree_util.tree_leaves_with_path(rollout):
        name = jax.tree_util.keystr(where, simple=True, separator=".").replace(".arrays..", ".")
        arrays[name] = np.asarray(leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
