"""Mortar Mayhem with a fixed number of commands: MortarMayhem-Grid-v0 and MortarMayhem-v0."""

from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.envs.tasks.memory_gym import mortar_mayhem_params as parameters
from trxl_jax.envs.tasks.memory_gym.grid import GridTask
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_drawing import TILE
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_environment import (
    FreeMovement,
    MortarMayhemTask,
    random_below,
)
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_params import MortarMayhemParams
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_state import MOVES, NO_COMMAND, MortarMayhemState
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN
from trxl_jax.envs.tasks.options import Options

AGENT_RADIUS = 6
_MOST_UNROLLED = 16  # commands; a program with more would take long to compile


class _FixedSequence(MortarMayhemTask):
    """Base class of tasks with one sequence of commands, which never lead off the arena.

    Args:
        arena_size: tiles along one side of the arena.
        max_commands: capacity for commands.
    """

    result_names = ("success", "commands_completed")

    def __init__(self, arena_size: int = 5, max_commands: int = 10) -> None:
        super().__init__(arena_size, max_commands)
        # Looked up in a table, because XLA may replace a division by a multiplication with a rounded reciprocal.
        done, count = np.mgrid[: max_commands + 1, : max_commands + 1]
        self._completed_fraction = (done / np.maximum(count, 1)).astype(np.float32)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> tuple[Self, MortarMayhemParams]:
        """Creates the task and its parameters from the options of Memory Gym's `reset`.

        Raises:
            ConfigError: an option is unknown, not supported, or has an invalid value.
        """
        read = Options(options, {**cls.defaults, **cls.own_options})
        params = parameters.from_options(read, rounds_positions=cls.rounds_positions)
        own = {name: read.boolean(name) for name in cls.own_options}
        arena_size, max_commands = read.integer("arena_size", 2, 6), int(params.command_count.max())
        return cls(arena_size=arena_size, max_commands=max_commands, **own), params

    @property
    def default_params(self) -> MortarMayhemParams:
        """Memory Gym's defaults, but with `max_commands` commands."""
        return self.from_options({"command_count": [self.max_commands]})[1]

    def _draw_commands(self, tile: jax.Array, bits: jax.Array, count: jax.Array, params: Any) -> jax.Array:
        arguments = tile, bits, count, params.allowed_commands
        if self.max_commands > _MOST_UNROLLED:
            return self._draw_in_a_loop(*arguments)
        return jax.lax.platform_dependent(*arguments, cpu=self._draw_in_a_loop, default=self._draw_at_once)

    def _draw_in_a_loop(self, tile: jax.Array, bits: jax.Array, count: jax.Array, allowed: jax.Array) -> jax.Array:
        """Commands u8[max_commands]; `allowed` i32[], other arguments as for `_draw_commands`."""

        def draw(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            tile, commands = carry
            reached = tile + MOVES
            fits = ((reached >= 0) & (reached < self.arena_size)).all(axis=1)
            fits = fits & (jnp.arange(len(MOVES)) < allowed)
            rank = jnp.cumsum(fits)
            chosen = jnp.argmax(fits & (rank == random_below(bits[i], rank[-1]) + 1))
            return reached[chosen], jnp.where(jnp.arange(self.max_commands) == i, chosen.astype(jnp.uint8), commands)

        # The loop ends at `count`; at least one command is possible on every tile.
        commands = jnp.zeros(self.max_commands, jnp.uint8)
        return jax.lax.fori_loop(0, count, draw, (tile, commands))[1]

    def _draw_at_once(self, tile: jax.Array, bits: jax.Array, count: jax.Array, allowed: jax.Array) -> jax.Array:
        """The same without a loop, for GPUs and TPUs: one kernel, where each round of a loop is several.

        In a loop the host would have to wait in every step to know whether there is a round at all.
        """
        x, y = tile[0], tile[1]
        commands = []
        for i in range(self.max_commands):
            # The commands that fit are counted off one by one, in numbers only: arrays would be kernels of their own.
            fits = []
            for command, (right, down) in enumerate(MOVES.tolist()):
                inside = (x + right >= 0) & (x + right < self.arena_size)
                inside = inside & (y + down >= 0) & (y + down < self.arena_size)
                fits.append((inside & (command < allowed)).astype(jnp.int32))
            wanted = random_below(bits[i], sum(fits)) + 1
            rank, chosen, moved_x, moved_y = jnp.int32(0), jnp.int32(0), x, y
            for command, (right, down) in enumerate(MOVES.tolist()):
                rank = rank + fits[command]
                here = (fits[command] == 1) & (rank == wanted)
                chosen = jnp.where(here, command, chosen)
                moved_x, moved_y = jnp.where(here, x + right, moved_x), jnp.where(here, y + down, moved_y)
            drawn = i < count
            commands.append(jnp.where(drawn, chosen, 0).astype(jnp.uint8))
            x, y = jnp.where(drawn, moved_x, x), jnp.where(drawn, moved_y, y)
        return jnp.stack(commands)

    def _after_checks(
        self, state: MortarMayhemState, last: jax.Array, died: jax.Array, params: MortarMayhemParams
    ) -> tuple[MortarMayhemState, jax.Array, dict[str, jax.Array]]:
        # Two deviations of Memory Gym: failing the last command counts as success, and dying later on a red tile counts
        # as failing the previous command.
        done = jnp.clip(state.current - 1 + last, 0)
        fraction = jnp.asarray(self._completed_fraction)[done, state.num_commands]
        return state, last | died, {"success": last.astype(jnp.float32), "commands_completed": fraction}


class MortarMayhemGrid(GridTask, _FixedSequence):
    """MortarMayhem-Grid-v0: the agent turns by 90 degrees and moves by whole tiles."""

    task = "MortarMayhem-Grid-v0"
    fps = 6
    defaults = parameters.GRID_DEFAULTS

    def _move(
        self, state: MortarMayhemState, action: jax.Array, params: MortarMayhemParams
    ) -> tuple[jax.Array, jax.Array]:
        rotation = (state.rotation + 2 * (action == 1) - 2 * (action == 2)) % 8
        ahead = jnp.asarray([(0, -1), (-1, 0), (0, 1), (1, 0)], jnp.int32)[rotation // 2]
        margin = TILE // 2 + self._origin
        agent = state.agent + TILE * ahead * (action == 3)
        return jnp.clip(agent, margin, SCREEN - margin), rotation

    @property
    def symbol_sizes(self) -> tuple[int, ...]:
        """Numbers of values of the agent's column, row and direction, the command shown, and the safe tile."""
        return self.arena_size, self.arena_size, 4, NO_COMMAND + 1, 1 + self.arena_size**2

    def symbols(self, state: MortarMayhemState, params: MortarMayhemParams) -> jax.Array:
        """Values i32[5] of what `symbol_sizes` lists; tiles are numbered from 1 on, and 0 says that none is red."""
        column, row = self._tile(state.agent)
        safe = 1 + state.target[0] * self.arena_size + state.target[1]
        safe = jnp.where(self._shows_red(state, params), safe, 0)
        return jnp.stack([column, row, state.rotation // 2, state.shown, safe]).astype(jnp.int32)


class MortarMayhem(FreeMovement, _FixedSequence):
    """MortarMayhem-v0: the agent moves freely within the arena."""

    task = "MortarMayhem-v0"
    defaults = parameters.DEFAULTS

    def _keep_in_bounds(self, agent: jax.Array) -> jax.Array:
        margin = self._origin + AGENT_RADIUS
        return jnp.clip(agent, margin, SCREEN - margin)
