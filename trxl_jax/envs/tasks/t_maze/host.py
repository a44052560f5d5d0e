"""T-Maze for Gymnasium: remember which way to turn at the end of a corridor. `rules.py` has the source."""

from typing import Any

import gymnasium
import numpy as np

from trxl_jax.envs.tasks.t_maze import rules

ENV_ID = "trxl_jax/TMaze-v0"


class TMazeEnv(gymnasium.Env[np.ndarray, np.int64]):
    """The Gymnasium environment.

    The oracle shows y of the goal when the agent is there for the first time. Observations are f32[2]: (0, goal or 0)
    at the oracle, (0, 0) in the corridor, (1, y) at the junction and at the candidates. Actions are 0 right, 1 up, 2
    left and 3 down; one into a wall has no effect. Every episode is as long as the straight way, and an agent that has
    fallen behind it pays the penalty in each step. The last step pays 1 at the goal and 0 elsewhere.
    `reset(options={"goal": -1 or 1})` fixes the goal.

    Args:
        corridor_length: steps along the corridor, at least 1.
        active: the agent starts one step to the right of the oracle, and must look for the goal there; else it starts
            on the oracle.
        penalty: reward of a step that ends behind; None: -1 / corridor_length, as in the authors' configurations.
        render_mode: rgb_array or None.

    Raises:
        ValueError: an argument is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - as Gymnasium defines it

    def __init__(
        self,
        corridor_length: int = rules.CORRIDOR_LENGTH,
        active: bool = False,
        penalty: float | None = None,
        render_mode: str | None = None,
    ) -> None:
        most = rules.MAX_CORRIDOR_LENGTH
        if type(corridor_length) is not int or not 1 <= corridor_length <= most:
            raise ValueError(f"corridor_length must be a whole number from 1 to {most:,}, not {corridor_length!r}")
        if type(active) is not bool:
            raise ValueError(f"active must be true or false, not {active!r}")
        if penalty is not None and not (type(penalty) in (int, float) and -1e6 <= penalty <= 0):
            raise ValueError(f"penalty must be a number from -1e6 to 0, not {penalty!r}")
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(rules.MOVES))
        self.penalty = -1 / corridor_length if penalty is None else float(penalty)
        self.start = rules.ORACLE_LENGTH if active else 0
        self.junction = self.start + corridor_length
        self.max_episode_steps = rules.episode_length(corridor_length, active=active)
        self.x, self.y, self.goal, self.time, self.visited = self.start, 0, 1, 0, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Samples the goal; returns obs f32[2]."""
        super().reset(seed=seed)
        goal = int(self.np_random.choice((-1, 1)))
        unknown = set(options or {}) - {"goal"}
        if unknown:
            raise ValueError(f"unknown reset options {sorted(unknown)}; known is goal")
        self.goal = goal if options is None else options.get("goal", goal)
        if self.goal not in (-1, 1):
            raise ValueError(f"goal must be -1 or 1, not {self.goal!r}")
        self.x, self.y, self.time, self.visited = self.start, 0, 0, False
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Moves to a neighbouring cell, unless that is a wall; returns obs f32[2]."""
        self.time += 1
        x, y = self.x + int(rules.MOVES[action][0]), self.y + int(rules.MOVES[action][1])
        if (y == 0 and 0 <= x <= self.junction) or (abs(y) == 1 and x == self.junction):
            self.x, self.y = x, y
        if self.time == self.max_episode_steps:
            success = float(self.y == self.goal)
            return self._observe(), success, True, False, {"success": success}
        behind = self.x < self.time - self.start
        return self._observe(), self.penalty if behind else 0.0, False, False, {"success": 0.0}

    def render(self) -> np.ndarray:
        """Picture u8[90, 450, 3] of the maze around the agent; see `rules.picture`."""
        drawn = rules.picture(np, self.x, self.y, self.goal, self.junction)
        return np.asarray(drawn)

    def _observe(self) -> np.ndarray:
        if self.x == self.junction:
            return np.array([1, self.y], np.float32)
        shown = self.goal if self.x == 0 and not self.visited else 0
        self.visited |= self.x == 0
        return np.array([0, shown], np.float32)


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point="trxl_jax.envs.tasks.t_maze.host:TMazeEnv")
