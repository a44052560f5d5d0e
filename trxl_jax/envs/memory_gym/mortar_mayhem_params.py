"""What can be set of Mortar Mayhem, and how Memory Gym's reset options become it."""

import math
from collections.abc import Callable
from typing import Any

import gymnax.environments.environment as gymnax_environment
import numpy as np
from flax import struct

from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS
from trxl_jax.errors import ConfigError

SCALE = 0.25
NEVER = -1
LONGEST, MOST_COMMANDS = 10**6, 1000
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


def check_options(options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Options of a reset with the defaults of those not given.

    Raises:
        ConfigError: an option that is unknown, not supported, or has a value that Memory Gym fails at.
    """
    for name, value in options.items():
        if name not in defaults:
            raise ConfigError(f"--env_options: unknown option {name!r}; choose from {', '.join(sorted(defaults))}")
        check = _CHECKS[name]
        if complaint := check(value):
            raise ConfigError(f"--env_options: {name} must be {complaint}, not {value!r}")
    completed = defaults | options
    if not min(completed["command_show_duration"]) + min(completed["command_show_delay"]):
        raise ConfigError(
            "--env_options: command_show_duration and command_show_delay are both 0; give one of them another value"
        )
    return completed


def from_checked(options: dict[str, Any], *, rounds: bool) -> MortarMayhemParams:
    """Parameters of complete options.

    Args:
        options: what `check_options` returned.
        rounds: the agent's position is rounded, in place of its velocity truncated, to whole pixels.
    """
    lists = {
        name: np.asarray(options[name], np.int32)
        for name in ("command_show_duration", "command_show_delay", "explosion_duration", "explosion_delay")
    }
    endless = "initial_command_count" in options
    count = [options["initial_command_count"]] if endless else options["command_count"]
    max_steps = options.get("max_steps", NEVER)
    if endless:
        bound = max_steps if max_steps > 0 else ENDLESS_MAX_EPISODE_STEPS
    else:
        show, delay, duration, wait = (int(choices.max()) for choices in lists.values())
        bound = max(count) * (show + delay + duration + wait) - duration + 1
    success = options["reward_command_success"]
    return MortarMayhemParams(
        max_steps_in_episode=bound,
        command_count=np.asarray(count, np.int32),
        **lists,
        allowed_commands=options["allowed_commands"],
        visual_feedback=options["visual_feedback"],
        reward_command_failure=float(options["reward_command_failure"]),
        reward_command_success=float(success),
        reward_last_command=float(success + options.get("reward_episode_success", 0)),
        stride=_stride(options.get("agent_speed", 0.0), rounds),
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


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _choices(least: int, most: int = LONGEST) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        known = isinstance(value, list | tuple) and len(value) > 0
        fits = known and all(_is_int(choice) and least <= choice <= most for choice in value)
        return "" if fits else f"a list of integers to choose from, each from {least} to {most}, such as [{least + 2}]"

    return check


def _integer(least: int, most: int) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        return "" if _is_int(value) and least <= value <= most else f"an integer from {least} to {most}"

    return check


def _number(value: Any) -> str:
    return "" if _is_number(value) else "a number"


_CHECKS: dict[str, Callable[[Any], str]] = {
    # The sprites are for this scale alone.
    "agent_scale": lambda value: "" if value == SCALE else f"{SCALE}, the only one supported on the device",
    "agent_speed": lambda value: "" if _is_number(value) and value >= 0 else "a number of at least 0",
    "arena_size": _integer(2, 6),
    "allowed_commands": _integer(4, 9),
    "command_count": _choices(1, MOST_COMMANDS),
    "initial_command_count": _integer(1, MOST_COMMANDS),
    "max_steps": _integer(NEVER, 10**9),
    "command_show_duration": _choices(0),
    "command_show_delay": _choices(0),
    "explosion_duration": _choices(1),
    "explosion_delay": _choices(1),
    "visual_feedback": lambda value: "" if isinstance(value, bool) else "true or false",
    "reward_command_failure": _number,
    "reward_command_success": _number,
    "reward_episode_success": _number,
}
