"""Video files: MP4 (H.264, which browsers can play) or GIF."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from PIL import Image


class Video:
    """A video file that is written frame by frame, as a context manager.

    Frames go to a temporary file, which is renamed to `path` when the context exits. After an exception or `abandon()`
    no file is left.

    Args:
        path: file to write, .mp4 or .gif.
        fps: frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".part")
        self._abandoned = False
        self._writer: _Mp4 | _Gif = (_Gif if path.suffix == ".gif" else _Mp4)(self._partial, fps)

    def show(self, frame: np.ndarray) -> None:
        """Appends a frame u8[height, width, 3]; all frames must have the same size."""
        self._writer.add(frame)

    def abandon(self) -> None:
        """Discards the video: no file is left when the context exits."""
        self._abandoned = True

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
            if kind is None and not self._abandoned:
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)


class _Mp4:
    def __init__(self, path: Path, fps: float) -> None:
        # Without its own protocol FFmpeg takes what precedes a colon for one.
        self._container = av.open(f"file:{path}", "w", format="mp4")
        self._stream: Any = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        self._stream.pix_fmt = "yuv420p"  # the pixel format that all players support
        self._started = False

    def add(self, frame: np.ndarray) -> None:
        height, width, _ = frame.shape
        # yuv420p stores colour at half resolution, so height and width must be even.
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self._started:
            self._stream.height, self._stream.width, _ = frame.shape
            self._started = True
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def close(self) -> None:
        if self._started:
            self._container.mux(self._stream.encode())
        self._container.close()


class _Gif:
    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._milliseconds = path, round(1000 / fps)
        self._frames: list[Image.Image] = []

    def add(self, frame: np.ndarray) -> None:
        self._frames.append(Image.fromarray(frame).quantize())

    def close(self) -> None:
        if self._frames:
            first, *rest = self._frames
            first.save(self._path, format="GIF", save_all=True, append_images=rest, duration=self._milliseconds, loop=0)
