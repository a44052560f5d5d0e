"""Commands, layout and state of Mortar Mayhem."""

from typing import Any

import gymnax.environments.environment as gymnax_environment
import jax
import numpy as np
from flax import struct

COMMANDS = ("right", "down", "left", "up", "stay", "right_down", "right_up", "left_down", "left_up")
MOVES = np.array([(1, 0), (0, 1), (-1, 0), (0, -1), (0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)], np.int32)
"""Movement of each command in tiles, (right, down), i32[9, 2]."""

NO_COMMAND = len(COMMANDS)
"""Value of `shown` when no command is visible."""


@struct.dataclass
class MortarMayhemLayout:
    """What a reset samples.

    Fields:
        agent: i32[2], centre of the agent in pixels, x and y.
        commands: u8[max_commands], indices into `COMMANDS`; in the endless task including those of later sequences.
        num_commands: i32[], length of the first sequence.
        show_duration, show_delay, explosion_duration, explosion_delay: i32[], in steps; see `MortarMayhemParams`.
    """

    agent: jax.Array
    commands: jax.Array
    num_commands: jax.Array
    show_duration: jax.Array
    show_delay: jax.Array
    explosion_duration: jax.Array
    explosion_delay: jax.Array


@struct.dataclass
class MortarMayhemState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        agent: i32[2], centre of the agent in pixels, x and y.
        rotation: i32[], direction of the agent in multiples of 45 degrees counter-clockwise; 0 is up.
        commands, show_duration, show_delay, explosion_duration, explosion_delay: as in the layout.
        num_commands: i32[], length of the current sequence.
        frames_left: i32[], remaining steps in which commands are shown and the agent can't move.
        shown: i32[], the visible command; `NO_COMMAND` if none.
        current: i32[], number of commands of the current sequence that have been checked.
        target: i32[2], column and row of the target tile.
        delay_step: i32[], steps since the tiles were last red.
        red: bool[], whether all tiles but the target are red and kill the agent.
        red_step: i32[], steps since the tiles turned red.
        completed: i32[], commands executed successfully in this episode.
    """

    time: Any  # gymnax annotates int but uses arrays
    agent: jax.Array
    rotation: jax.Array
    commands: jax.Array
    num_commands: jax.Array
    show_duration: jax.Array
    show_delay: jax.Array
    explosion_duration: jax.Array
    explosion_delay: jax.Array
    frames_left: jax.Array
    shown: jax.Array
    current: jax.Array
    target: jax.Array
    delay_step: jax.Array
    red: jax.Array
    red_step: jax.Array
    completed: jax.Array
