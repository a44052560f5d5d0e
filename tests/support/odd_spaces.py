"""Tasks and wrappers with other spaces than usual."""

import gymnasium
import numpy as np
from gymnasium import spaces

from tests.support.probes import Counter


class Worded(Counter):
    """Says something."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Dict({"step": spaces.Discrete(3), "words": spaces.Text(10)})


class WithoutVelocity(gymnasium.ObservationWrapper):
    """Pendulum's angle alone, as cosine and sine, in float64."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(-1, 1, (2,), np.float64)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[:2].astype(np.float64)


gymnasium.register("Worded-v0", Worded)
