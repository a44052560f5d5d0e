"""One episode as an agent played it: what it saw, what it did and why, what it attended to."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class EpisodeTrace:
    """An episode of K steps. All arrays are NumPy's and show the moment before the step, but for `rewards`.

    Fields:
        env_id: the task.
        seed: as users give it; the episode's own is drawn from it and its number.
        episode: number of the episode among those that were played.
        observations: [K, *obs_shape], what the agent saw.
        pictures: u8[K, height, width, 3], the task's ground truth as it would be shown to a person; None without.
        actions: i32[K, A].
        action_nvec: number of choices of each of the A branches.
        probabilities: f32[K, sum(action_nvec)], the branches side by side.
        entropies: f32[K], summed over branches.
        values: f32[K].
        rewards: f32[K].
        attention: f32[K, L, H, W - 1]; `[k, l, h, j]` is the weight of step k - 1 - j in step k. A row sums to 1; only
            the first step, which sees nothing, has zeros.
        results: the episode's numbers: r, l, t and the task's own.
    """

    env_id: str
    seed: int
    episode: int
    observations: np.ndarray
    pictures: np.ndarray | None
    actions: np.ndarray
    action_nvec: tuple[int, ...]
    probabilities: np.ndarray
    entropies: np.ndarray
    values: np.ndarray
    rewards: np.ndarray
    attention: np.ndarray
    results: dict[str, float]

    @property
    def num_steps(self) -> int:
        """K."""
        return len(self.rewards)
