"""A window that shows frames, run as a separate process.

pygame has one display per process, and Memory Gym already draws on this process's.
"""

import os
import struct
import subprocess
import sys
from typing import IO

import numpy as np

from trxl_jax.errors import UserError

_READY = "ready"
_INVISIBLE = ("dummy", "offscreen")
_SIZE = struct.Struct("<II")


class WindowClosed(Exception):
    """The user has closed the window."""


class DisplayWindow:
    """A window that shows frames at a fixed rate.

    Args:
        fps: frames per second.
        driver: SDL video driver the user has set, or None.

    Raises:
        UserError: the machine has no display.
    """

    def __init__(self, fps: float, driver: str | None = None) -> None:
        env = {name: value for name, value in os.environ.items() if name != "SDL_VIDEODRIVER"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(fps)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env | ({"SDL_VIDEODRIVER": driver} if driver else {}),
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().decode().strip() != _READY:
            self._process.wait()
            raise UserError("--render human: this machine has no display; use --render video")

    def show(self, frame: np.ndarray) -> None:
        """Shows u8[height, width, 3].

        Raises:
            WindowClosed: the user has closed the window.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_SIZE.pack(*frame.shape[:2]) + frame.tobytes())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WindowClosed from None

    def close(self) -> None:
        """Closes the window after the last frame has been shown."""
        try:
            self._process.communicate()
        except BrokenPipeError:
            self._process.wait()


def main(fps: float, frames: IO[bytes]) -> int:
    """The window's process: shows frames until there are no more, or the window is closed.

    Args:
        fps: frames per second.
        frames: stream of frames, each a header (height and width as u32) and height * width * 3 bytes.

    Returns:
        The exit status: 1 if there is no display, else 0.
    """
    import pygame

    try:
        pygame.display.init()
    except pygame.error:
        return 1
    if pygame.display.get_driver() in _INVISIBLE and "SDL_VIDEODRIVER" not in os.environ:
        return 1
    print(_READY, flush=True)
    pygame.display.set_caption("trxl_jax")
    clock = pygame.time.Clock()
    while header := frames.read(_SIZE.size):
        height, width = _SIZE.unpack(header)
        shown = pygame.display.get_surface()
        if shown is None or shown.get_size() != (width, height):
            shown = pygame.display.set_mode((width, height))
        shown.blit(pygame.image.frombuffer(frames.read(height * width * 3), (width, height), "RGB"), (0, 0))
        pygame.display.flip()
        clock.tick(fps)
        if any(event.type == pygame.QUIT for event in pygame.event.get()):
            return 0
    return 0


if __name__ == "__main__":
    os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
    sys.exit(main(float(sys.argv[1]), sys.stdin.buffer))
