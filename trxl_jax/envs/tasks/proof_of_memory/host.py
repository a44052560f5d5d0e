"""Proof of Memory for Gymnasium: the agent sees for two steps on which side the good goal is, then must walk there.

Positions are cells -5..5 of width 0.2. The gymnax version, `device.py`, uses the same constants, so that the same
layout and actions give the same numbers.
"""

from typing import Any

import gymnasium
import numpy as np

ENV_ID = "ProofofMemory-v0"
MAX_EPISODE_STEPS = 16
NUM_SHOW_STEPS = 2
EDGE = 5
START_CELLS = (-2, -1, 0, 1, 2)
GOAL_REWARD = np.float32(1.6)
STEP_REWARD = np.float32(-0.1)

# Computed once in float64 and rounded, so that host and device use the same float32 numbers.
POSITIONS = (np.arange(-EDGE, EDGE + 1) / EDGE).astype(np.float32)


class ProofOfMemoryEnv(gymnasium.Env[np.ndarray, np.int64]):
    """The Gymnasium environment.

    Observations are f32[3] = [left goal, position, right goal]: goals are 1 (good), -1 (bad) or, once hidden, 0.
    Actions are 0 (left) and 1 (right); they have no effect while the goals are shown. Each move costs 0.1; reaching a
    goal ends the episode with a reward of 1.6 or -1.6. `reset(options={"cell": -2..2, "left_goal": -1 or 1})` fixes the
    layout.

    Args:
        render_mode: rgb_array or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - as Gymnasium defines it

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.cell, self.left_goal, self.time = 0, 1, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Samples the start cell and the side of the good goal; returns obs f32[3]."""
        super().reset(seed=seed)
        layout = {"cell": int(self.np_random.choice(START_CELLS)), "left_goal": int(self.np_random.choice((-1, 1)))}
        unknown = set(options or {}) - set(layout)
        if unknown:
            raise ValueError(f"unknown reset options {sorted(unknown)}; known are {sorted(layout)}")
        layout |= options or {}
        if layout["cell"] not in START_CELLS:
            raise ValueError(f"cell must be a whole number from -2 to 2, not {layout['cell']!r}")
        if layout["left_goal"] not in (-1, 1):
            raise ValueError(f"left_goal must be -1 or 1, not {layout['left_goal']!r}")
        self.cell, self.left_goal, self.time = int(layout["cell"]), int(layout["left_goal"]), 0
        return self._observe(goals_shown=True), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Moves one cell, except while the goals are shown; returns obs f32[3]."""
        frozen = self.time < NUM_SHOW_STEPS
        self.time += 1
        if frozen:
            return self._observe(goals_shown=True), 0.0, False, False, {"success": 0.0}
        self.cell += 1 if action == 1 else -1
        if abs(self.cell) < EDGE:
            return self._observe(goals_shown=False), float(STEP_REWARD), False, False, {"success": 0.0}
        goal = self.left_goal if self.cell < 0 else -self.left_goal
        return self._observe(goals_shown=False), float(goal * GOAL_REWARD), True, False, {"success": float(goal > 0)}

    def _observe(self, *, goals_shown: bool) -> np.ndarray:
        goal = self.left_goal if goals_shown else 0
        return np.array([goal, POSITIONS[self.cell + EDGE], -goal], np.float32)

    def render(self) -> np.ndarray:
        """Picture u8[80, 440, 3] of the corridor: agent blue, good goal green, bad goal red, hidden goals grey."""
        frame = np.full((80, 40 * len(POSITIONS), 3), 255, np.uint8)
        frame[:, ::40] = 200
        shown = self.time < NUM_SHOW_STEPS + 1
        for column, goal in ((0, self.left_goal), (len(POSITIONS) - 1, -self.left_goal)):
            colour = ((40, 160, 60) if goal > 0 else (200, 50, 50)) if shown else (200, 200, 200)
            frame[:, 40 * column : 40 * column + 40] = colour
        start = 40 * (self.cell + EDGE)
        frame[25:55, start + 5 : start + 35] = (40, 80, 220)
        return frame


if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        ENV_ID,
        entry_point="trxl_jax.envs.tasks.proof_of_memory.host:ProofOfMemoryEnv",
        max_episode_steps=MAX_EPISODE_STEPS,
    )
