"""The checkpoint with the highest evaluated return, in a directory of its own."""

import math
import shutil
from pathlib import Path
from typing import Any

from trxl_jax.errors import CheckpointError, UserError
from trxl_jax.runs import checkpoint

METRIC = "eval/r_mean"
"""The metric that decides."""


class BestCheckpoint:
    """Keeps the parameters of the best evaluation; of equal ones the earlier.

    Args:
        directory: the run's `best`. What an earlier session wrote there is known from its files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        path = checkpoint.latest(directory)
        self._value = -math.inf if path is None else float(checkpoint.restore_run(path)[METRIC])

    def offer(self, row: dict[str, float], params: Any, iteration: int) -> None:
        """Saves `directory/<iteration>` and then removes the one before, if the row's evaluation is better.

        Args:
            row: metrics; without an evaluation nothing is done.
            params: the agent's parameters in that evaluation.
            iteration: updates done.

        Raises:
            UserError: it can't be written; the one before is still there.
        """
        value = row.get(METRIC, -math.inf)
        if not value > self._value or (self._directory / str(iteration)).exists():
            return
        # As the first of the states in other checkpoints, so that the same function reads the parameters.
        try:
            written = checkpoint.save(self._directory, iteration, ({"params": params},), {METRIC: value}, keep=None)
        except CheckpointError as error:
            raise UserError(f"--keep_best: {error}") from None
        self._value = value
        for path in self._directory.iterdir():
            if path != written and checkpoint.is_own(path):
                shutil.rmtree(path, ignore_errors=True)
