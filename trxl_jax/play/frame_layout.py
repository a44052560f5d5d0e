"""The frame shown to a user for one step: the whole task and, next to it, the agent's observation."""

import numpy as np

from trxl_jax.errors import ConfigError
from trxl_jax.play.single_env import SingleEnv

_ALONE_HEIGHT = 336  # height of an observation that is shown on its own
_GAP, _GREY = 8, 128


def frame(picture: np.ndarray | None, observation: np.ndarray) -> np.ndarray | None:
    """Joins a picture of the task and an image observation side by side.

    Args:
        picture: u8[height, width, 3], or None.
        observation: u8[h, w, 3] with rows first, or a vector f32[n], which isn't shown.

    Returns:
        u8[height, total width, 3]; None if there is nothing to show.
    """
    if observation.ndim == 1:
        return picture
    if picture is None:
        return _to_height(observation, _ALONE_HEIGHT)
    height = picture.shape[0]
    gap = np.full((height, _GAP, 3), _GREY, np.uint8)
    return np.concatenate([picture, gap, _to_height(observation, height)], axis=1)


def require_pictures(task: SingleEnv, flag: str) -> None:
    """Checks that a task can be shown as pictures.

    Args:
        task: the environment; it is reset.
        flag: command-line flag that asked for pictures, for the message.

    Raises:
        ConfigError: the task draws no pictures and its observations are vectors.
    """
    task.reset(0)
    if frame(task.picture, task.obs) is None:
        raise ConfigError(f"{flag}: {task.env_id} draws no pictures and its observations are vectors; leave it out")


def _to_height(picture: np.ndarray, height: int) -> np.ndarray:
    """Scales to a height by nearest neighbour, so that the agent's pixels stay visible."""
    h, w, _ = picture.shape
    rows, columns = (np.arange(n * height // h) * h // height for n in (h, w))
    return picture[rows][:, columns]
