"""Environments that misbehave outside of a step, or as no exception of Python's usual kinds."""

import ctypes
import multiprocessing
import os
import signal
import time
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from tests.support.probes import Counter, Pictures
from trxl_jax.errors import ConfigError


def in_worker() -> bool:
    return multiprocessing.parent_process() is not None


def hold_lock(seconds: float) -> None:
    """Sleeps without giving Python's lock to other threads."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


class Strange(BaseException):
    """Of no usual kind."""


class Raising(Counter):
    """Raises what it is given, in its constructor, a reset, its third step or close."""

    def __init__(self, error: BaseException, where: str) -> None:
        super().__init__(length=50)
        self.error, self.where = error, where
        self._raise_in("constructor")

    def _raise_in(self, where: str) -> None:
        if self.where == where:
            raise self.error

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        self._raise_in("reset")
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple:
        if self.time == 2:
            self._raise_in("step")
        return super().step(action)

    def close(self) -> None:
        self._raise_in("close")


class Slow(Counter):
    """Takes its time to be made."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        time.sleep(seconds)


class KeepsFolder(Counter):
    """Has a folder until it is closed; of several, the third one fails in its constructor or first step."""

    def __init__(self, parent: Path, where: str) -> None:
        super().__init__(length=50)
        self.where = where
        self.folder = next(filter(_is_new, (parent / str(n) for n in count())))
        if self.where == "constructor" and self.folder.name == "2":
            self.close()
            raise ConfigError("--env_kwargs: the third one is refused")

    def step(self, action: Any) -> tuple:
        if self.where == "step" and self.folder.name == "2":
            raise ValueError("the third one is refused")
        return super().step(action)

    def close(self) -> None:
        self.folder.rmdir()


def _is_new(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


class HangingOutside(Counter):
    """Hangs in its constructor or in close, where the run's environments are played (the first one is inspected)."""

    made = 0

    def __init__(self, where: str) -> None:
        super().__init__(length=50)
        HangingOutside.made += 1
        self.where = where
        self.is_played = in_worker() or HangingOutside.made == 3
        self._hang_in("constructor")

    def _hang_in(self, where: str) -> None:
        while self.is_played and self.where == where:
            time.sleep(0.05)

    def close(self) -> None:
        self._hang_in("close")


class HangsIn(Pictures):
    """Nothing comes of its third step where the run's environment of that index is played."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.hanging_seed = seed

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        self.hangs = kwargs["seed"] == self.hanging_seed
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        while self.hangs and self.time == 2:
            time.sleep(0.1)
        return super().step(action)


class Signalled:
    """A factory; a process that unpickles it, before it runs a line of ours, signals itself and its parent."""

    def __call__(self) -> Counter:
        return Counter()

    def __reduce__(self) -> tuple:
        return _signal_and_make, ()


def _signal_and_make() -> Signalled:
    if in_worker():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getppid(), number)
            os.kill(os.getpid(), number)
    return Signalled()


class Forking(Counter):
    """Its second step returns in two processes; keeps how the new one ended."""

    ended: int | None = None

    def step(self, action: Any) -> tuple:
        child = os.fork() if self.time == 1 else None
        if child:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and Forking.ended is None:
                pid, status = os.waitpid(child, os.WNOHANG)
                Forking.ended = os.waitstatus_to_exitcode(status) if pid else None
                time.sleep(0.05)
        return super().step(action)


class LockHolding(Counter):
    """Its workers hang in the fifth step, and no thread of theirs can act."""

    def __init__(self) -> None:
        super().__init__(length=50)

    def step(self, action: Any) -> tuple:
        while self.time == 4 and in_worker():
            os.write(2, b"held\n")
            hold_lock(100)
        return super().step(action)


gymnasium.register("LockHolding-v0", entry_point=LockHolding)


class OneBuffer(Pictures):
    """Draws every picture into the same array."""

    def __init__(self) -> None:
        super().__init__()
        self.render_mode = "rgb_array"
        self.metadata = {"render_modes": ["rgb_array"]}
        self.buffer = np.zeros((84, 84, 3), np.uint8)

    def _picture(self) -> np.ndarray:
        self.buffer[:] = super()._picture()
        return self.buffer

    def render(self) -> np.ndarray:
        return self.buffer


class Drifting(Counter):
    """Pays less with every episode of this object, as a running normalisation of rewards would."""

    episodes = 0

    def __init__(self) -> None:
        super().__init__(length=6)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        self.episodes += 1
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple:
        obs, reward, *rest = super().step(action)
        return obs, reward / self.episodes, *rest
