"""A wrapper of one's own: Pendulum whose velocity is hidden, so that it must be remembered.

python train.py --env_id Pendulum-v1 --wrapper examples.pendulum_angle:WithoutVelocity
"""

import gymnasium
import numpy as np


class WithoutVelocity(gymnasium.ObservationWrapper):
    """Shows the cosine and the sine of the angle, f32[2]."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """The first two of Pendulum's f32[3]."""
        return observation[:2]
