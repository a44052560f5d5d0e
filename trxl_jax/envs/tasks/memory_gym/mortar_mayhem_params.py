"""What can be set of Mortar Mayhem, and how Memory Gym's reset options become it."""

import math
from typing import Any

import gymnax.environments.environment as gymnax_environment
import numpy as np
from flax import struct

from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS
from trxl_jax.envs.tasks.memory_gym.options import Options
from trxl_jax.errors import ConfigError

SCALE = 0.25
NEVER = -1
LONGEST, MOST_COMMANDS = 10**5, 1000
"""Bounds beyond Memory Gym's: counters are i32, and arrays have room for all commands."""

_COMMON: dict[str, Any] = {
    "agent_scale": 1.0 * SCALE,
    "allowed_commands": 9,
    "command_show_duration": [3],
    "command_show_delay": [1],
    "explosion_duration": [6],
    "explosion_delay": [18],
    "visual_feedback": True,
    "reward_command_failure": 0.0,
    "reward_command_success": 0.1,
}
DEFAULTS: dict[str, Any] = _COMMON | {
    "agent_speed": 12.0 * SCALE,
    "arena_size": 5,
    "command_count": [10],
    "reward_episode_success": 0.0,
}
GRID_DEFAULTS: dict[str, Any] = _COMMON | {
    "allowed_commands": 5,
    "explosion_duration": [2],
    "explosion_delay": [6],
    "arena_size": 5,
    "command_count": [10],
    "reward_episode_success": 0.0,
}
ENDLESS_DEFAULTS: dict[str, Any] = _COMMON | {
    "agent_speed": 12.0 * SCALE,
    "initial_command_count": 1,
    "max_steps": NEVER,
}


@struct.dataclass(kw_only=True)
class MortarMayhemParams(gymnax_environment.EnvParams):
    """What may differ between two resets of one compiled task.

    Fields:
        max_steps_in_episode: Memory Gym's own bound; episodes end before it.
        command_count: i32[choices], commands of an episode; in the endless task those of its first sequence.
        command_show_duration: i32[choices], steps that a command is shown.
        command_show_delay: i32[choices], steps that nothing is shown after it.
        explosion_duration: i32[choices], steps that the tiles stay red.
        explosion_delay: i32[choices], steps that are given to execute a command.
        allowed_commands: how many of the nine commands occur, in their order.
        visual_feedback: whether red tiles are seen to be red.
        reward_command_failure: of the step that ends the episode early.
        reward_command_success: of a command but the last.
        reward_last_command: of the last one, with what all of them bring. Memory Gym adds the two in float64.
        stride: i32[2], half pixels of a straight and along each axis of a diagonal step. Halves are all that rounding
            needs to know of a fraction.
        max_steps: steps after which the endless task terminates, below 1 for never.
    """

    max_steps_in_episode: int
    command_count: Any
    command_show_duration: Any
    command_show_delay: Any
    explosion_duration: Any
    explosion_delay: Any
    allowed_commands: int
    visual_feedback: bool
    reward_command_failure: float
    reward_command_success: float
    reward_last_command: float
    stride: Any
    max_steps: int


def from_options(options: Options, *, rounds: bool) -> MortarMayhemParams:
    """Parameters that options ask for.

    Args:
        options: of a task with one of the three defaults above.
        rounds: the agent's position is rounded, in place of its velocity truncated, to whole pixels.

    Raises:
        ConfigError: an option that is not supported, or has a value that Memory Gym fails at.
    """
    options.fixed("agent_scale")
    endless = options.has("initial_command_count")
    if endless:
        count = [options.whole("initial_command_count", 1, MOST_COMMANDS)]
        max_steps = options.limit("max_steps")
    else:
        count, max_steps = options.choices("command_count", 1, MOST_COMMANDS), NEVER
    show = options.choices("command_show_duration", 0, LONGEST)
    delay = options.choices("command_show_delay", 0, LONGEST)
    if min(show) + min(delay) == 0:
        raise ConfigError(
            "--env_options: command_show_duration and command_show_delay are both 0; give one of them another value"
        )
    duration = options.choices("explosion_duration", 1, LONGEST)
    wait = options.choices("explosion_delay", 1, LONGEST)
    if endless:
        bound = max_steps if max_steps > 0 else ENDLESS_MAX_EPISODE_STEPS
    else:
        bound = max(count) * (max(show) + max(delay) + max(duration) + max(wait)) - max(duration) + 1
    success = options.number("reward_command_success")
    lists = {
        "command_count": count,
        "command_show_duration": show,
        "command_show_delay": delay,
        "explosion_duration": duration,
        "explosion_delay": wait,
    }
    return MortarMayhemParams(
        max_steps_in_episode=bound,
        **{name: np.asarray(choices, np.int32) for name, choices in lists.items()},
        allowed_commands=options.whole("allowed_commands", 4, 9),
        visual_feedback=options.flag("visual_feedback"),
        reward_command_failure=options.number("reward_command_failure"),
        reward_command_success=success,
        reward_last_command=success + (0.0 if endless else options.number("reward_episode_success")),
        stride=_stride(options.number("agent_speed", 0) if options.has("agent_speed") else 0.0, rounds),
        max_steps=max_steps,
    )


def _stride(speed: float, rounds: bool) -> np.ndarray:
    """Half pixels of a straight and of a diagonal step, i32[2]."""
    # Nobody can tell a speed from a higher one where both cross the whole screen in a step.
    speed = min(float(speed), 1000.0)
    velocities = (speed, 1 / math.sqrt(2) * speed)
    if not rounds:
        return np.array([2 * int(velocity) for velocity in velocities], np.int32)
    halves = (2 * velocity for velocity in velocities)
    return np.array([int(h) if h % 2 == 1 else 2 * math.floor(h / 2 + 0.5) for h in halves], np.int32)
