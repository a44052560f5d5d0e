"""Options and parameters of Mortar Mayhem."""

import math
from typing import Any

import gymnax.environments.environment as gymnax_environment
import numpy as np
from flax import struct

from trxl_jax.envs.tasks.options import Options
from trxl_jax.errors import ConfigError

SCALE = 0.25
NEVER = -1
MAX_DURATION, MAX_COMMANDS = 10**5, 1000
"""Limits that Memory Gym doesn't have: counters are i32, and arrays hold all commands."""

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
    """Parameters, which may be traced. Resets sample uniformly from the entries of i32[choices].

    Fields:
        max_steps_in_episode: upper bound of an episode's length, as in Memory Gym; 0 for no limit.
        command_count: i32[choices], number of commands; in the endless task of the first sequence.
        command_show_duration: i32[choices], steps for which a command is shown.
        command_show_delay: i32[choices], blank steps after each shown command.
        explosion_duration: i32[choices], steps for which the tiles are red.
        explosion_delay: i32[choices], steps in which a command must be executed.
        allowed_commands: the first n of the nine commands occur.
        visual_feedback: whether red tiles are drawn red.
        reward_command_failure: reward of the step in which a command fails.
        reward_command_success: reward of each command executed, except the last.
        reward_last_command: reward of the last command, including that of the episode (added in float64, as in Memory
            Gym).
        stride: i32[2], speed along an axis in half pixels: of straight and of diagonal steps. Rounding to whole pixels
            needs no finer resolution.
        max_steps: steps after which the endless task terminates; below 1 for no limit.
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


def from_options(options: Options, *, rounds_positions: bool) -> MortarMayhemParams:
    """Creates the parameters.

    Args:
        options: options of a task with one of the three sets of defaults above.
        rounds_positions: positions are rounded to whole pixels, instead of velocities truncated.

    Raises:
        ConfigError: an option is not supported or has an invalid value.
    """
    options.require_default("agent_scale")
    endless = options.has("initial_command_count")
    if endless:
        count = [options.integer("initial_command_count", 1, MAX_COMMANDS)]
        max_steps = options.step_limit("max_steps")
    else:
        count, max_steps = options.integer_list("command_count", 1, MAX_COMMANDS), NEVER
    show = options.integer_list("command_show_duration", 0, MAX_DURATION)
    delay = options.integer_list("command_show_delay", 0, MAX_DURATION)
    if min(show) + min(delay) == 0:
        raise ConfigError(
            "--env_options: command_show_duration and command_show_delay are both 0; give one of them another value"
        )
    duration = options.integer_list("explosion_duration", 1, MAX_DURATION)
    wait = options.integer_list("explosion_delay", 1, MAX_DURATION)
    if endless:
        bound = max(max_steps, 0)
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
        allowed_commands=options.integer("allowed_commands", 4, 9),
        visual_feedback=options.boolean("visual_feedback"),
        reward_command_failure=options.number("reward_command_failure"),
        reward_command_success=success,
        reward_last_command=success + (0.0 if endless else options.number("reward_episode_success")),
        stride=_stride(options.number("agent_speed", 0) if options.has("agent_speed") else 0.0, rounds_positions),
        max_steps=max_steps,
    )


def _stride(speed: float, rounds_positions: bool) -> np.ndarray:
    """Speed in half pixels of straight and diagonal steps, i32[2]; see `MortarMayhemParams.stride`."""
    # Higher speeds make no difference: the agent crosses the whole screen in one step. This avoids overflow.
    speed = min(float(speed), 1000.0)
    velocities = (speed, 1 / math.sqrt(2) * speed)
    if not rounds_positions:
        return np.array([2 * int(velocity) for velocity in velocities], np.int32)
    halves = (2 * velocity for velocity in velocities)
    return np.array([int(h) if h % 2 == 1 else 2 * math.floor(h / 2 + 0.5) for h in halves], np.int32)
