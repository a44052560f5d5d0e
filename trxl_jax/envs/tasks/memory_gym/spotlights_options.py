"""Options of Searing Spotlights: defaults, checks, and conversion to parameters."""

import math
from typing import Any

import numpy as np

from trxl_jax.envs.tasks.memory_gym.spotlights_drawing import DrawingOptions
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN, load
from trxl_jax.envs.tasks.options import Options
from trxl_jax.errors import ConfigError

MAX_COINS = 8
"""More coins don't always find a free position, in which case Memory Gym fails."""

MAX_SPOTLIGHTS = 64
"""Maximum number of spotlights at a time; each costs drawing time in every step."""

MAX_HITS = 10_000
"""Maximum number of hits that an agent survives, because health is looked up in a table."""

_COMMON: dict[str, Any] = {
    "initial_spawns": 4, "spot_min_radius": 7.5, "spot_max_radius": 13.75, "spot_min_speed": 0.0025,
    "spot_max_speed": 0.0075, "spot_damage": 1.0, "visual_feedback": True, "black_background": False,
    "hide_chessboard": False, "light_dim_off_duration": 6, "light_threshold": 255, "coin_scale": 0.375,
    "coins_visible": False, "agent_speed": 3.0, "agent_health": 5, "agent_scale": 0.25, "agent_visible": False,
    "sample_agent_position": True, "show_last_action": True, "show_last_positive_reward": True,
    "reward_inside_spotlight": 0.0, "reward_outside_spotlight": 0.0, "reward_death": 0.0, "reward_coin": 0.25,
}  # fmt: skip
SEARING_SPOTLIGHTS: dict[str, Any] = _COMMON | {
    "max_steps": 256, "num_spawns": 30, "initial_spawn_interval": 30, "spawn_interval_threshold": 10,
    "spawn_interval_decay": 0.95, "num_coins": [1], "use_exit": True, "exit_scale": 0.5, "exit_visible": False,
    "reward_exit": 1.0, "reward_max_steps": 0.0,
}  # fmt: skip
ENDLESS_SEARING_SPOTLIGHTS: dict[str, Any] = _COMMON | {
    "max_steps": -1, "steps_per_coin": 160, "initial_spawns": 3, "spawn_interval": 50, "coin_show_duration": 6,
    "agent_health": 10,
}  # fmt: skip


class SpotlightsOptions(Options):
    """Reads the options that both tasks have."""

    def drawing_options(self, *, grey_bar: bool, exit_visible: bool) -> DrawingOptions:
        """Reads the options of drawing."""
        return DrawingOptions(
            black_background=self.boolean("black_background"),
            hide_chessboard=self.boolean("hide_chessboard"),
            show_last_action=self.boolean("show_last_action"),
            show_last_positive_reward=self.boolean("show_last_positive_reward"),
            grey_bar=grey_bar,
            coins_visible=self.boolean("coins_visible"),
            exit_visible=exit_visible,
            agent_visible=self.boolean("agent_visible"),
        )

    def common_params(self) -> dict[str, Any]:
        """Reads the fields of `SpotlightsParams` that are the same for both tasks."""
        self.require_default("coin_scale", "agent_scale")
        speed = self.number("agent_speed", 0, SCREEN)
        min_radius, max_radius = self._radii()
        min_speed, max_speed = self.positive("spot_min_speed"), self.positive("spot_max_speed")
        if max_speed < min_speed:
            raise self.invalid("spot_max_speed", f"at least spot_min_speed, which is {min_speed!r}")
        max_steps = self.step_limit("max_steps")
        return {
            "max_steps": max_steps,
            "min_radius": min_radius,
            "max_radius": max_radius,
            "min_speed": min_speed,
            "max_speed": max_speed,
            "visual_feedback": self.boolean("visual_feedback"),
            "sample_agent_position": self.boolean("sample_agent_position"),
            "straight_speed": int(speed),
            "diagonal_speed": int(1 / math.sqrt(2) * speed),
            **self._health(),
            **self._light(),
        }

    def rewards(self, max_coins: int, exit_reward: float) -> np.ndarray:
        """Table of rewards f32[2, 2, max_coins + 1, 2], indexed by hit, death, coins collected, exit reached.

        Sums are computed in float64 as in Memory Gym; sums of float32 would give different bits.
        """
        inside, outside = self.number("reward_inside_spotlight"), self.number("reward_outside_spotlight")
        death, coin = self.number("reward_death"), self.number("reward_coin")
        rewards = np.zeros((2, 2, max_coins + 1, 2), np.float32)
        for hit, dead, coins, at_exit in np.ndindex(*rewards.shape):
            spotlights = (inside if hit else outside) + (death if dead else 0.0)
            rewards[hit, dead, coins, at_exit] = spotlights + sum([coin] * coins) + (exit_reward if at_exit else 0.0)
        return rewards

    def capacity(self, initial_spawns: int, interval: int, max_spawns: float, min_speed: float) -> int:
        """Number of slots that is sufficient for the spotlights that can exist at the same time.

        Args:
            initial_spawns: spotlights at the start.
            interval: steps between new spotlights.
            max_spawns: maximum number of new spotlights per episode.
            min_speed: lowest speed of spotlights.

        Raises:
            ConfigError: more than `MAX_SPOTLIGHTS` would be needed.
        """
        # A spotlight can be skipped for a frame, at most once for each older one that is removed.
        longest = math.ceil(1 / min_speed) + MAX_SPOTLIGHTS
        capacity = initial_spawns + min(max_spawns, math.ceil(longest / interval))
        if capacity > MAX_SPOTLIGHTS:
            raise ConfigError(
                f"--env_options: spot_min_speed, the spawn interval and initial_spawns allow {capacity} spotlights "
                f"at a time, and {MAX_SPOTLIGHTS} fit; raise the first two or lower the third"
            )
        return max(int(capacity), 1)

    def _radii(self) -> tuple[int, int]:
        largest = load()["disc"].shape[1]
        # As NumPy's generator converts float bounds of integers.
        low = int(self.number("spot_min_radius", 0, largest))
        high = int(self.number("spot_max_radius", 0, largest) + 1) - 1
        if low > high:
            raise self.invalid("spot_max_radius", f"at least spot_min_radius, which is {low}")
        return low, high

    def _health(self) -> dict[str, Any]:
        full, damage = self.positive("agent_health"), self.number("spot_damage", 0)
        if damage and full / damage > MAX_HITS:
            raise self.invalid("spot_damage", f"0 or at least agent_health / {MAX_HITS}")
        health = [full]
        while damage and health[-1] > 0:
            health.append(health[-1] - damage)
        left = [x / full for x in health]
        return {
            "health_left": np.array(left, np.float32),
            "health_bar": np.array([min(int(SCREEN // 2 * (1 - x)), SCREEN) for x in left], np.int32),
        }

    def _light(self) -> dict[str, Any]:
        duration, threshold = self.number("light_dim_off_duration"), self.integer("light_threshold", 0, 255)
        if duration <= 0:
            return {"light_start": threshold, "light_step": 0, "light_steps": 0}
        step = min(int(255 / duration), 255)
        # Dimming continues until the opacity exceeds the threshold.
        return {"light_start": 0, "light_step": step, "light_steps": threshold // step + 1 if step else 0}
