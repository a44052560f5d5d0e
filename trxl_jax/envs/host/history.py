"""What was done in the episodes that go on. Knows nothing of JAX."""

from collections.abc import Sequence

import numpy as np


class ActionHistory:
    """Actions of n environments since the beginning of each one's episode.

    Args:
        num_envs: n.
        action_nvec: number of choices of each action branch.
    """

    def __init__(self, num_envs: int, action_nvec: Sequence[int]) -> None:
        # [steps, n, A], and after it what came since it was last asked for.
        self._past = np.zeros((0, num_envs, len(action_nvec)), np.min_scalar_type(max(action_nvec)))
        self._recent: list[np.ndarray] = []
        self._began = np.zeros(num_envs, np.int64)

    def append(self, action: np.ndarray) -> None:
        """Takes i32[n, A], which must not change any more."""
        self._recent.append(action)

    def restart(self, done: np.ndarray) -> None:
        """A new episode begins where bool[n] `done`."""
        self._began[done] = len(self._past) + len(self._recent)

    def steps(self, i: int) -> int:
        """Steps in the episode of one environment."""
        return len(self._past) + len(self._recent) - int(self._began[i])

    def of_each(self) -> list[np.ndarray]:
        """Of each environment [steps, A]; what nobody needs any more is forgotten."""
        over = self._began.min()
        recent = np.array(self._recent, self._past.dtype).reshape(-1, *self._past.shape[1:])
        self._past, self._recent = np.concatenate([self._past, recent])[over:], []
        self._began = self._began - over
        return [self._past[began:, i] for i, began in enumerate(self._began)]

    def load(self, actions: Sequence[np.ndarray]) -> None:
        """Inverse of `of_each`."""
        steps = max(map(len, actions))
        self._began = steps - np.array([len(taken) for taken in actions])
        self._past = np.zeros((steps, *self._past.shape[1:]), self._past.dtype)
        self._recent = []
        for i, taken in enumerate(actions):
            self._past[self._began[i] :, i] = taken
