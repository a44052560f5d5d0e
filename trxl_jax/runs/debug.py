"""Looks at what goes from phase to phase of an iteration: with `--debug`, and after an update that went wrong."""

from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.envs.base import EnvSpec
from trxl_jax.ppo.rollout import Rollout, RolloutState
from trxl_jax.ppo.train_step import Collect, Learn, TrainStep, in_turn
from trxl_jax.ppo.update import Metrics, TrainState


def checked_train_step(collect: Collect, learn: Learn, spec: EnvSpec) -> TrainStep:
    """An iteration that looks at real values between its halves, which must be programs of their own.

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

    return in_turn(checked_collect, checked_learn)


def check_rollout(rollout: Rollout, spec: EnvSpec) -> None:
    """What holds of every rollout.

    Raises:
        AssertionError: something doesn't.
    """
    steps, memory = rollout.transitions, rollout.memory
    num_steps, num_envs = steps.reward.shape
    chex.assert_shape(steps.obs, (num_steps, num_envs, *spec.obs_shape))
    chex.assert_shape(steps.action, (num_steps, num_envs, len(spec.action_nvec)))
    chex.assert_shape(memory.hidden, (num_envs, memory.position.shape[1], None, None))
    chex.assert_tree_all_finite((steps.obs, steps.log_prob, steps.value, steps.reward, rollout.last_value))
    assert np.isfinite(memory.hidden.astype(np.float32)).all(), "the memory holds what is not finite"
    assert (steps.log_prob <= 0).all(), "a probability is larger than 1"
    assert ((steps.action >= 0) & (steps.action < np.array(spec.action_nvec))).all(), "an action lies outside its space"
    # An episode's steps count up from where the rollout found it; after an end they start at 0.
    follows = np.where(steps.done[:-1], 0, steps.episode_step[:-1] + 1)
    assert (steps.episode_step[1:] == follows).all(), "an episode's steps don't follow each other"
    written = memory.position[:, -num_steps:]
    assert (written == steps.episode_step.T).all(), "a slot's position is not the step in which it was written"
    if rollout.first is not None:
        places = np.arange(num_steps * num_envs).reshape(num_steps, num_envs)
        assert (rollout.first <= places).all(), "a frame is said to equal a later one"


def check_train_state(train_state: TrainState) -> None:
    """That parameters and the optimiser's state are finite.

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
    for where, leaf in jax.tree_util.tree_leaves_with_path(rollout):
        name = jax.tree_util.keystr(where, simple=True, separator=".")
        arrays[name] = np.asarray(leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    with beside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    beside.replace(path)
