"""The actions of the current episodes, for replaying them. Doesn't use JAX."""

from collections.abc import Sequence

import numpy as np

from trxl_jax.envs.spaces import DiscreteActions


class ActionHistory:
    """Actions of n environments since the start of each one's current episode.

    Args:
        num_envs: n.
        action: the action space.
    """

    def __init__(self, num_envs: int, action: DiscreteActions) -> None:
        # [steps, n, A]; newer steps are in `_recent` until `of_each` is called.
        self._past = np.zeros((0, num_envs, action.num_columns), action.storage_dtype)
        self._recent: list[np.ndarray] = []
        self._began = np.zeros(num_envs, np.int64)

    def append(self, action: np.ndarray) -> None:
        """Adds a step's actions i32[n, A]; the array must not be changed afterwards."""
        self._recent.append(action)

    def restart(self, done: np.ndarray) -> None:
        """Starts a new episode where bool[n] `done`."""
        self._began[done] = len(self._past) + len(self._recent)

    def steps(self, i: int) -> int:
        """Number of steps in the current episode of environment i."""
        return len(self._past) + len(self._recent) - int(self._began[i])

    def of_each(self) -> list[np.ndarray]:
        """The actions [steps, A] of each environment; forgets the actions of finished episodes."""
        over = self._began.min()
        recent = np.array(self._recent, self._past.dtype).reshape(-1, *self._past.shape[1:])
        self._past, self._recent = np.concatenate([self._past, recent])[over:], []
        self._began = self._began - over
        return [self._past[began:, i] for i, began in enumerate(self._began)]

    def load(self, actions: Sequence[np.ndarray]) -> None:
        """Inverse of `of_each`: takes the actions [steps, A] of each environment."""
        steps = max(map(len, actions))
        self._began = steps - np.array([len(taken) for taken in actions])
        self._past = np.zeros((steps, *self._past.shape[1:]), self._past.dtype)
        self._recent = []
        for i, taken in enumerate(actions):
            self._past[self._began[i] :, i] = taken
