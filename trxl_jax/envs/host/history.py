"""The actions of the current episodes, for replaying them."""

from collections.abc import Sequence

import numpy as np

from trxl_jax.envs.actions import ActionSpace

MAX_REPLAY = 100_000
"""Steps after which an episode can't be replayed any more: the history of an endless one would grow for ever."""


class ActionHistory:
    """Actions of n environments since the start of each one's current episode.

    Args:
        num_envs: n.
        action: the action space.
    """

    def __init__(self, num_envs: int, action: ActionSpace) -> None:
        # [steps, n, C]; newer steps are in `_recent` until `of_each` is called.
        self._past = np.zeros((0, num_envs, action.num_columns), action.storage_dtype)
        self._recent: list[np.ndarray] = []
        # Where each episode began in them; negative if its first actions were forgotten.
        self._began = np.zeros(num_envs, np.int64)

    def append(self, action: np.ndarray) -> None:
        """Adds a step's actions [n, C]; the array must not be changed afterwards."""
        self._recent.append(action)
        if len(self._recent) > MAX_REPLAY:
            self._join()

    def restart(self, done: np.ndarray) -> None:
        """Starts a new episode where bool[n] `done`."""
        self._began[done] = len(self._past) + len(self._recent)

    def steps(self, i: int) -> int:
        """Number of steps in the current episode of environment i."""
        return len(self._past) + len(self._recent) - int(self._began[i])

    def of_each(self) -> list[np.ndarray] | None:
        """The actions [steps, C] of each environment; None if an episode has more than `MAX_REPLAY` steps."""
        self._join()
        if self._began.min() < 0:
            return None
        return [self._past[began:, i] for i, began in enumerate(self._began)]

    def load(self, actions: Sequence[np.ndarray]) -> None:
        """Inverse of `of_each`: takes the actions [steps, C] of each environment."""
        steps = max(map(len, actions))
        self._began = steps - np.array([len(taken) for taken in actions])
        self._past = np.zeros((steps, *self._past.shape[1:]), self._past.dtype)
        self._recent = []
        for i, taken in enumerate(actions):
            self._past[self._began[i] :, i] = taken

    def _join(self) -> None:
        """Moves recent actions to the past, and forgets those of finished episodes and of too long ones."""
        recent = np.array(self._recent, self._past.dtype).reshape(-1, *self._past.shape[1:])
        joined = np.concatenate([self._past, recent])
        over = max(int(self._began.min()), len(joined) - MAX_REPLAY)
        self._past, self._recent, self._began = joined[over:], [], self._began - over
