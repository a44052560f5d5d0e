"""The frame shown to a user for one step: the whole task, next to it the agent's observation, and a caption below."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trxl_jax.errors import ConfigError
from trxl_jax.play.obs_pictures import side_by_side, to_height
from trxl_jax.play.single_env import SingleEnv

_ALONE_HEIGHT = 336  # height of an observation that is shown on its own
_TEXT_SIZE, _LINE_HEIGHT, _MARGIN = 13, 18, 6  # of captions, in pixels
_CAPTION_WIDTH = 240  # at least


def frame(picture: np.ndarray | None, observed: Sequence[np.ndarray]) -> np.ndarray | None:
    """Joins a picture of the task and those that the agent sees side by side.

    Args:
        picture: u8[height, width, 3], or None.
        observed: pictures u8[h, w, 3], from `SingleEnv.pictures_of`.

    Returns:
        u8[height, total width, 3]; None if there is nothing to show.
    """
    if picture is None:
        return to_height(side_by_side(observed), _ALONE_HEIGHT) if observed else None
    if not observed:
        return picture
    return side_by_side([picture, *(to_height(shown, picture.shape[0]) for shown in observed)])


def with_caption(frame: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Adds lines of white text on black below a frame, which is widened for them if it is narrow.

    Args:
        frame: u8[height, width, 3].
        lines: the text, a fixed number of lines for frames of one video.

    Returns:
        u8[taller, at least 240, 3].
    """
    height, width, _ = frame.shape
    canvas = Image.new("RGB", (max(width, _CAPTION_WIDTH), height + _LINE_HEIGHT * len(lines) + _MARGIN))
    canvas.paste(Image.fromarray(frame))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_TEXT_SIZE)
    for i, line in enumerate(lines):
        draw.text((_MARGIN, height + _MARGIN // 2 + i * _LINE_HEIGHT), line, "white", font)
    return np.asarray(canvas)


def require_pictures(task: SingleEnv, flag: str) -> None:
    """Checks that a task can be shown as pictures.

    Args:
        task: the environment; it is reset.
        flag: command-line flag that asked for pictures, for the message.

    Raises:
        ConfigError: the task draws no pictures and there are none in its observations.
    """
    task.reset(0)
    if frame(task.picture, task.pictures_of(task.obs)) is None:
        raise ConfigError(f"{flag}: {task.env_id} draws no pictures and its observations have none; leave it out")
