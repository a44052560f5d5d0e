"""Plays one episode step by step, and keeps what the agent saw, did and attended to."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.config import evaluation_seed
from trxl_jax.play.policy import Policy, PolicyMemory, choose
from trxl_jax.play.task import Task
from trxl_jax.play.trace import EpisodeTrace


class Moment(NamedTuple):
    """One step of an episode. All but reward and results show the moment before it.

    Fields:
        observation: [*obs_shape], what the agent saw.
        picture: u8[height, width, 3], what a person would see of the whole task; None if it draws nothing.
        action: i32[A].
        probabilities: f32[sum(nvec)], the branches side by side.
        entropy: f32[], summed over branches.
        value: f32[].
        attention: f32[L, H, W - 1], see `Policy.attention`; None unless asked for.
        reward: what the action earned.
        results: the episode's numbers after its last step, else None.
    """

    observation: np.ndarray
    picture: np.ndarray | None
    action: np.ndarray
    probabilities: np.ndarray
    entropy: np.ndarray
    value: np.ndarray
    attention: np.ndarray | None
    reward: float
    results: dict[str, float] | None


def play_episode(
    policy: Policy,
    task: Task,
    episode: int,
    *,
    deterministic: bool = False,
    attention: bool = False,
    max_steps: int | None = None,
) -> Iterator[Moment]:
    """Plays an episode, which is a function of the policy, the task's seed and the episode's number.

    Args:
        policy: who plays.
        task: what is played; between two moments it is in the state after the first.
        episode: its number.
        deterministic: the most probable actions in place of sampled ones.
        attention: keep the weights of the attention.
        max_steps: cut the episode after so many; its results are then the return r and length l so far, and cut 1.

    Raises:
        ConfigError: the task isn't one for this policy.
        EnvironmentFailure: the environment raised.
    """
    policy.require(task.spec)
    key = jax.random.fold_in(jax.random.key(task.seed), episode)
    task.reset(episode)
    memory = policy.init()
    results: dict[str, float] | None = None
    step, earned = 0, 0.0
    while results is None:
        observation, picture = task.obs, task.picture
        thought, memory = _think(policy, task.obs, memory, jax.random.fold_in(key, step), deterministic, attention)
        thought = jax.device_get(thought)
        reward, results = task.step(thought["action"])
        step, earned = step + 1, earned + reward
        if results is None and step == max_steps:
            results = {"r": earned, "l": float(step), "cut": 1.0}
        yield Moment(observation=observation, picture=picture, reward=reward, results=results, **thought)


@partial(jax.jit, static_argnames=("deterministic", "attention"))
def _think(
    policy: Policy, obs: Any, memory: PolicyMemory, key: jax.Array, deterministic: bool, attention: bool
) -> tuple[dict[str, jax.Array | None], PolicyMemory]:
    output, next_memory = policy.decide(obs, memory)
    thought = {
        "action": choose(policy.agent.spec, output, key, deterministic=deterministic),
        "probabilities": jnp.exp(jnp.concatenate(output.policy.branches(), axis=-1)),
        "entropy": output.policy.entropy(),
        "value": output.value,
        "attention": policy.attention(obs, memory) if attention else None,
    }
    return thought, next_memory


def trace(task: Task, episode: int, moments: list[Moment]) -> EpisodeTrace:
    """The record of a whole episode that was played with `attention`, in a task made `for_evaluation`."""
    results = moments[-1].results
    assert results is not None, "the episode has not ended"

    def stack(name: str, dtype: Any = None) -> np.ndarray:
        return np.stack([np.asarray(getattr(moment, name), dtype) for moment in moments])

    return EpisodeTrace(
        env_id=task.env_id,
        seed=evaluation_seed(task.seed),
        episode=episode,
        observations=stack("observation"),
        pictures=None if moments[0].picture is None else stack("picture"),
        actions=stack("action"),
        action_nvec=task.spec.action.nvec,
        probabilities=stack("probabilities"),
        entropies=stack("entropy"),
        values=stack("value"),
        rewards=stack("reward", np.float32),
        attention=stack("attention"),
        results=results,
    )
