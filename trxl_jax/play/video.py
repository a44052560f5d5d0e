"""Video files: MP4 (H.264, which browsers can play) or GIF."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from trxl_jax.files import atomic_path

_SHORTEST_DELAY = 2  # hundredths of a second; browsers play frames with shorter delays much too slowly


@contextmanager
def video_file(path: Path, fps: float) -> Iterator["Mp4 | Gif"]:
    """A video file that is written frame by frame; after an exception no file is left.

    Args:
        path: file to write, .mp4 or .gif.
        fps: frames per second.
    """
    with atomic_path(path) as partial, closing((Gif if path.suffix == ".gif" else Mp4)(partial, fps)) as video:
        yield video


class Mp4:
    """An MP4 file; see `video_file`."""

    def __init__(self, path: Path, fps: float) -> None:
        # Without its own protocol FFmpeg takes what precedes a colon for one.
        self._container = av.open(f"file:{path}", "w", format="mp4")
        self._stream: Any = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        self._stream.pix_fmt = "yuv420p"  # the pixel format that all players support
        self._started = False

    def show(self, frame: np.ndarray) -> None:
        """Appends a frame u8[height, width, 3]; all frames must have the same size."""
        height, width, _ = frame.shape
        # yuv420p stores colour at half resolution, so height and width must be even.
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self._started:
            self._stream.height, self._stream.width, _ = frame.shape
            self._started = True
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def close(self) -> None:
        """Writes what is left and closes the file."""
        if self._started:
            self._container.mux(self._stream.encode())
        self._container.close()


class Gif:
    """A GIF file; see `video_file`. GIFs count in hundredths of a second, and not all frames fit in at high rates."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._count = 0
        self._last: Image.Image | None = None
        self._frames: list[Image.Image] = []
        self._starts: list[int] = []

    def show(self, frame: np.ndarray) -> None:
        """Appends a frame u8[height, width, 3]; all frames must have the same size."""
        start = round(100 * self._count / self._fps)
        self._count += 1
        self._last = Image.fromarray(frame).quantize()
        if not self._starts or start - self._starts[-1] >= _SHORTEST_DELAY:
            self._starts.append(start)
            self._frames.append(self._last)

    def close(self) -> None:
        """Writes the file, which ends with the last frame."""
        if self._last is None:
            return
        first, *rest = [*self._frames[:-1], self._last]
        end = max(round(100 * self._count / self._fps), self._starts[-1] + _SHORTEST_DELAY)
        milliseconds = (10 * np.diff([*self._starts, end])).tolist()
        first.save(self._path, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
