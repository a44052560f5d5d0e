"""Small environments whose right answer is known, or which go wrong on purpose."""

import os
import threading
import time
from typing import Any

import gymnasium
import numpy as np

from tests.support.actions import score


class Counter(gymnasium.Env):
    """Observation [index of the step]; ends by truncation after `length` steps; reward 1 a step."""

    def __init__(self, length: int = 3, action_space: gymnasium.Space | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = action_space or gymnasium.spaces.Discrete(2)
        self.length, self.time, self.options, self.actions = length, 0, None, []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time, self.options = 0, options
        return np.zeros(1), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.actions.append(action)
        self.time += 1
        ended = self.time >= self.length
        info = {"growing": self.time / 10, "whole": self.time, "flag": True, "text": "no number", "pair": np.arange(2)}
        return np.array([float(self.time)]), 1.0, False, ended, info


class Paying(Counter):
    """Earns by step and action, is truncated after 5 steps; `device_probes.Counting` on the device."""

    def __init__(self) -> None:
        super().__init__(length=5)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, _, _, ended, _ = super().step(action)
        return obs, self.time * (int(action) + 0.5), False, ended, {}


class Pictures(Counter):
    """A picture of its own in every step, from the seed; ends after 3 to 6 steps, or is cut; keeps who stepped it."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(0, 255, (84, 84, 3), np.uint8)
        self.threads: set[str] = set()

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        super().reset(**kwargs)
        self.length = int(self.np_random.integers(3, 7))
        return self._picture(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.threads.add(threading.current_thread().name)
        _, _, _, ended, _ = super().step(action)
        terminates = bool(self.np_random.integers(2))
        reward = float(self.np_random.random() + action)
        return self._picture(), reward, ended and terminates, ended and not terminates, {"number": reward}

    def _picture(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (84, 84, 3), np.uint8)


class Failing(Counter):
    """Raises in the fifth step of the second episode."""

    episodes = 0

    def __init__(self, length: int = 6) -> None:
        super().__init__(length)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        self.episodes += 1
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.episodes == 2 and self.time == 4:
            raise RuntimeError("the simulator\ncrashed")
        return super().step(action)


class Wordy(Counter):
    """Its actions are words."""

    def __init__(self) -> None:
        super().__init__(action_space=gymnasium.spaces.Text(5))


class Cued(gymnasium.Env):
    """Each step of 8 shows 1 or -1, which decides the best action; what it earns then is 1. See `actions.score`."""

    def __init__(self, action_space: gymnasium.Space) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space, self.time, self.cue = action_space, 0, 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self._show(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        reward = float(score(self.action_space, action, self.cue))
        self.time += 1
        return self._show(), reward, False, self.time == 8, {}

    def _show(self) -> np.ndarray:
        self.cue = float(self.np_random.choice([-1.0, 1.0]))
        return np.array([self.cue], np.float32)


class IntegerVector(Counter):
    """Its observations are whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(0, 100, (1,), np.int64)


class FailingReset(Counter):
    """The second one made can't be reset: the first is looked at only."""

    made = 0

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        FailingReset.made += 1
        if FailingReset.made > 1:
            raise RuntimeError("no such level")
        return super().reset(**kwargs)


class Dying(Counter):
    """Its process ends in the fifth step."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.time == 4:
            os._exit(3)
        return super().step(action)

    def __init__(self) -> None:
        super().__init__(length=50)


class NotANumber(Counter):
    """Pays NaN in the third step."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, float("nan") if self.time == 3 else 1.0, terminated, truncated, info


class Forgetful(Counter):
    """Shows what no seed determines."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        _, reward, terminated, truncated, info = super().step(action)
        return np.frombuffer(os.urandom(1), np.uint8).astype(np.float64), reward, terminated, truncated, info


class Hanging(Counter):
    """Nothing comes of its fifth step."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        while self.time == 4:
            time.sleep(0.1)
        return super().step(action)

    def __init__(self) -> None:
        super().__init__(length=50)


class OutOfSpace(Counter):
    """Its third observation is larger than its space says."""

    def __init__(self) -> None:
        super().__init__(length=50)
        self.observation_space = gymnasium.spaces.Box(-1, 2, (1,), np.float64)


KINDS = (Counter, Failing, Wordy, FailingReset, Dying, NotANumber, Forgetful, Hanging, OutOfSpace)
for kind in KINDS:
    gymnasium.register(f"{kind.__name__}-v0", entry_point=kind)
