"""Endless Mortar Mayhem: whenever the sequence of commands has been executed, it grows by one command."""

from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp

from trxl_jax.envs.tasks.memory_gym import mortar_mayhem_params as parameters
from trxl_jax.envs.tasks.memory_gym.environment import OVERFLOW
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_environment import FreeMovement, random_below
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_params import MortarMayhemParams
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_state import MortarMayhemState
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN
from trxl_jax.envs.tasks.options import Options

WRAP = 3
"""Distance in pixels beyond the screen's edge at which the agent reappears on the opposite side."""


class EndlessMortarMayhem(FreeMovement):
    """Endless-MortarMayhem-v0: the sequence grows by one command each time, and the agent wraps around at the edges.

    All commands are sampled in the reset. If the sequence exceeds the capacity, the episode is truncated and `overflow`
    is 1 in its last info; n commands take about 12 n^2 + 16 n steps.

    Args:
        max_commands: capacity for commands.
    """

    task = "Endless-MortarMayhem-v0"
    result_names = ("commands_completed", "max_command_sequence", OVERFLOW)
    defaults = parameters.ENDLESS_DEFAULTS
    rounds_positions = True
    wraps_around = True

    def __init__(self, max_commands: int = 64) -> None:
        super().__init__(6, max_commands)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> tuple[Self, MortarMayhemParams]:
        """Creates the task and its parameters from the options of Memory Gym's `reset`.

        The capacity is 63 commands more than the first sequence has.

        Raises:
            ConfigError: an option is unknown, not supported, or has an invalid value.
        """
        params = parameters.from_options(Options(options, cls.defaults), rounds_positions=cls.rounds_positions)
        return cls(max_commands=int(params.command_count[0]) + 63), params

    def is_truncated(self, state: MortarMayhemState, params: MortarMayhemParams) -> jax.Array:
        """Whether the sequence exceeds the capacity, bool[]."""
        return state.num_commands > self.max_commands

    def _draw_commands(self, tile: jax.Array, bits: jax.Array, count: jax.Array, params: Any) -> jax.Array:
        return random_below(bits, params.allowed_commands).astype(jnp.uint8)

    def _start_offset(self, bits: jax.Array) -> jax.Array:
        return random_below(bits, 4) - 2

    def _after_checks(
        self, state: MortarMayhemState, last: jax.Array, died: jax.Array, params: MortarMayhemParams
    ) -> tuple[MortarMayhemState, jax.Array, dict[str, jax.Array]]:
        state = state.replace(
            num_commands=state.num_commands + last,
            current=jnp.where(last, 0, state.current),
            # Only the new command is shown, starting while the tiles are still red.
            frames_left=jnp.where(last, state.show_duration + state.show_delay, state.frames_left),
        )
        info = {
            "commands_completed": state.completed.astype(jnp.float32),
            # As in Memory Gym, a sequence counts even if its last command failed.
            "max_command_sequence": (state.num_commands - 1).astype(jnp.float32),
        }
        return state, died | (state.time == params.max_steps), info

    def _keep_in_bounds(self, agent: jax.Array) -> jax.Array:
        low, high = -WRAP, SCREEN + WRAP
        return jnp.where(agent > high, low, jnp.where(agent < low, high, agent))
