"""Registers tasks whose spaces the agent can't take."""

import gymnasium
from gymnasium import spaces

from tests.support.probes import Counter


class Worded(Counter):
    """Says something."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Dict({"step": spaces.Discrete(3), "words": spaces.Text(10)})


gymnasium.register("Worded-v0", Worded)
