"""The record of one played episode: observations, actions, their distributions, values, attention or state."""

import dataclasses
from typing import Any

import numpy as np

from trxl_jax.envs.observations import ObservationSpace

ActionNames = tuple[tuple[str, ...], ...]
"""For each action branch the names of its choices."""


@dataclasses.dataclass(frozen=True)
class NumberActions:
    """The numbers among the actions of K steps, M of them: the dimensions of all Boxes.

    Fields:
        names: of each number.
        low: the lowest that the environment takes, minus infinity without a bound.
        high: the highest.
        taken: f32[K, M], as the environment took them, inside the bounds.
        mean: f32[K, M], of the policy.
        std: f32[K, M], its standard deviations.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    taken: np.ndarray
    mean: np.ndarray
    std: np.ndarray


@dataclasses.dataclass(frozen=True)
class EpisodeRecord:
    """An episode of K steps. Arrays are NumPy arrays; entry k was recorded before step k (`rewards`: after it).

    Fields:
        env_id: the task.
        seed: the user's `--seed`; the episode's own seed is derived from it and `episode`.
        episode: index of the episode.
        observations: [K, *obs_shape], the agent's observations.
        observation_space: what they are.
        pictures: u8[K, height, width, 3], the whole task (ground truth), rows first; None if the task draws none.
        actions: i32[K, A], the choices.
        action_nvec: number of choices in each of the A action branches that have choices.
        probabilities: f32[K, sum(action_nvec)], action probabilities, branches concatenated.
        entropies: f32[K], entropy of the policy, summed over branches.
        values: f32[K], value estimates.
        rewards: f32[K].
        attention: f32[K, L, H, W - 1], weights by layer and head; `[k, l, h, j]` is the weight that step k gives to
            step k - 1 - j. Each row sums to 1, with --trxl_see_self to less: the weight of step k itself is left out.
            In step 0, where the memory is empty, the row is zero. None if the agent's core doesn't attend.
        results: the episode's statistics: return r, length l and those of the task.
        action_names: names of the choices in each branch, where the environment gives them.
        state_norm: f32[K], see `StepRecord`; unlike the others, of after step k. None where there is attention, or no
            state.
        numbers: actions that are no choices; None if there are none.
        branch_names: names of the A branches, where the environment gives them.
    """

    env_id: str
    seed: int
    episode: int
    observations: Any
    observation_space: ObservationSpace
    pictures: np.ndarray | None
    actions: np.ndarray
    action_nvec: tuple[int, ...]
    probabilities: np.ndarray
    entropies: np.ndarray
    values: np.ndarray
    rewards: np.ndarray
    attention: np.ndarray | None
    results: dict[str, float]
    action_names: ActionNames | None = None
    state_norm: np.ndarray | None = None
    numbers: NumberActions | None = None
    branch_names: tuple[str, ...] | None = None

    @property
    def num_steps(self) -> int:
        """K."""
        return len(self.rewards)
