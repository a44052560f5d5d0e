"""What a person is shown of a step: the whole task beside what the agent sees of it."""

import numpy as np

from trxl_jax.errors import ConfigError
from trxl_jax.play.task import Task

_ALONE_HEIGHT = 336  # of an observation that has no picture beside it
_GAP, _GREY = 8, 128


def frame(picture: np.ndarray | None, observation: np.ndarray) -> np.ndarray | None:
    """A picture of the task and, if it is one, the observation, side by side.

    Args:
        picture: u8[height, width, 3], or None.
        observation: u8[h, w, 3], upright, or a vector, which isn't shown.

    Returns:
        u8[height, ..., 3]; None if there is nothing to show.
    """
    if observation.ndim == 1:
        return picture
    if picture is None:
        return _to_height(observation, _ALONE_HEIGHT)
    height = picture.shape[0]
    gap = np.full((height, _GAP, 3), _GREY, np.uint8)
    return np.concatenate([picture, gap, _to_height(observation, height)], axis=1)


def require_pictures(task: Task, flag: str) -> None:
    """Checks that there is something to show of a task.

    Raises:
        ConfigError: it draws nothing, and the agent sees vectors.
    """
    task.reset(0)
    if frame(task.picture, task.obs) is None:
        raise ConfigError(f"{flag}: {task.env_id} draws no pictures and its observations are vectors; leave it out")


def _to_height(picture: np.ndarray, height: int) -> np.ndarray:
    """Scaled to a height without smoothing: pixels are what the agent sees."""
    h, w, _ = picture.shape
    rows, columns = (np.arange(n * height // h) * h // height for n in (h, w))
    return picture[rows][:, columns]
