"""What Mortar Mayhem's tasks share: commands are shown one by one and must then be executed in order.

After each command, all tiles but the target turn red and kill the agent.
"""

from abc import abstractmethod
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym import mortar_mayhem_drawing as drawing
from trxl_jax.envs.tasks.memory_gym.environment import (
    FREE_NVEC,
    MemoryGymEnvironment,
    direction,
    next_rotation,
)
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_drawing import TILE
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_params import MortarMayhemParams
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_state import (
    MOVES,
    NO_COMMAND,
    MortarMayhemLayout,
    MortarMayhemState,
)


class MortarMayhemTask(MemoryGymEnvironment):
    """Base class of the three tasks.

    Args:
        arena_size: tiles along one side of the arena.
        max_commands: capacity for commands, the longest possible sequence.

    Fields:
        defaults: Memory Gym's options with their defaults.
        rounds_positions: positions are rounded to whole pixels, instead of velocities truncated.
        wraps_around: target positions wrap around at the edges of the arena.
    """

    defaults: ClassVar[dict[str, Any]]
    rounds_positions: ClassVar[bool] = False
    wraps_around: ClassVar[bool] = False

    def __init__(self, arena_size: int, max_commands: int) -> None:
        super().__init__()
        self.arena_size = arena_size
        self.max_commands = max_commands
        self._origin = drawing.origin(arena_size)

    @abstractmethod
    def _draw_commands(self, tile: jax.Array, bits: jax.Array, count: jax.Array, params: Any) -> jax.Array:
        """Samples commands u8[max_commands], of which `count` are needed.

        Args:
            tile: i32[2], the start tile.
            bits: u32[max_commands], random bits.
            count: i32[], length of the first sequence.
            params: the parameters.
        """

    @abstractmethod
    def _move(
        self, state: MortarMayhemState, action: jax.Array, params: MortarMayhemParams
    ) -> tuple[jax.Array, jax.Array]:
        """Centre i32[2] and rotation i32[] of the agent after an action."""

    def init_layout(self, key: jax.Array, params: MortarMayhemParams, needed: ArrayLike = True) -> MortarMayhemLayout:
        """Samples start tile, commands, delays and durations; see `MemoryGymEnvironment.init_layout`."""
        # A single call of the random number generator, because this runs in every step.
        bits = jax.random.bits(key, (8 + self.max_commands,), jnp.uint32)
        tile = jnp.stack(jnp.divmod(random_below(bits[0], self.arena_size**2), self.arena_size))
        num_commands = jnp.minimum(_choose(bits[1], params.command_count), self.max_commands)
        return MortarMayhemLayout(
            agent=self._origin + TILE // 2 + TILE * tile + self._start_offset(bits[2:4]),
            commands=self._draw_commands(tile, bits[8:], jnp.where(needed, num_commands, 0), params),
            num_commands=num_commands,
            show_duration=_choose(bits[4], params.command_show_duration),
            show_delay=_choose(bits[5], params.command_show_delay),
            explosion_duration=_choose(bits[6], params.explosion_duration),
            explosion_delay=_choose(bits[7], params.explosion_delay),
        )

    def reset_from_layout(self, layout: MortarMayhemLayout, params: MortarMayhemParams) -> MortarMayhemState:
        """The initial state; its observation already shows the first command."""
        zero = jnp.int32(0)
        cycle = layout.show_duration + layout.show_delay
        first = layout.commands[0].astype(jnp.int32)
        return MortarMayhemState(
            time=zero,
            agent=layout.agent,
            rotation=zero,
            commands=layout.commands,
            num_commands=layout.num_commands,
            show_duration=layout.show_duration,
            show_delay=layout.show_delay,
            explosion_duration=layout.explosion_duration,
            explosion_delay=layout.explosion_delay,
            frames_left=layout.num_commands * cycle - 1,
            shown=jnp.where(layout.show_duration > 0, first, NO_COMMAND),
            current=zero,
            target=self._tile_after(self._tile(layout.agent), first),
            delay_step=zero,
            red=jnp.bool_(False),
            red_step=zero,
            completed=zero,
        )

    def transition(
        self, state: MortarMayhemState, action: jax.Array, params: MortarMayhemParams
    ) -> tuple[MortarMayhemState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """Shows commands or, once all have been shown, moves the agent; see `MemoryGymEnvironment.transition`."""
        showing = state.frames_left > 0
        acted, checked, died = self._act(state, action, params)
        checked, died = checked & ~showing, died & ~showing
        state = jax.tree.map(partial(jnp.where, showing), _show_next_frame(state), acted).replace(time=state.time + 1)
        last = checked & (state.current >= state.num_commands)
        state, terminated, info = self._after_checks(state, last, died, params)
        success = jnp.where(last, jnp.float32(params.reward_last_command), jnp.float32(params.reward_command_success))
        reward = jnp.where(died, jnp.float32(params.reward_command_failure), jnp.where(checked, success, 0.0))
        return state, reward, terminated, info

    @abstractmethod
    def _after_checks(
        self, state: MortarMayhemState, last: jax.Array, died: jax.Array, params: MortarMayhemParams
    ) -> tuple[MortarMayhemState, jax.Array, dict[str, jax.Array]]:
        """Ends the episode or continues it with a longer sequence.

        Args:
            state: the state after the step.
            last: bool[], whether the last command of the sequence was checked in this step.
            died: bool[], whether the agent is on a deadly tile.
            params: the parameters.

        Returns:
            State, terminated bool[], statistics f32[] by name.
        """

    def _act(
        self, state: MortarMayhemState, action: jax.Array, params: MortarMayhemParams
    ) -> tuple[MortarMayhemState, jax.Array, jax.Array]:
        """Moves the agent and advances the timing of commands and red tiles by one step.

        Returns:
            State, whether a command was checked bool[], whether the agent is on a deadly tile bool[].
        """
        agent, rotation = self._move(state, action, params)
        on_target = (self._tile(agent) == state.target).all()
        # As in Memory Gym, the first check comes a step later than the others: `delay_step` starts at 0 and is reset to
        # 1.
        checked = (state.delay_step % state.explosion_delay == 0) & (state.delay_step > 0) & ~state.red
        red = state.red | checked
        extinguished = red & (state.red_step % state.explosion_duration == 0) & (state.red_step > 0)
        died = red & ~extinguished & ~on_target
        current = state.current + checked
        target = self._tile_after(state.target, state.commands[current].astype(jnp.int32))
        acted = state.replace(
            agent=agent,
            rotation=rotation,
            shown=jnp.int32(NO_COMMAND),
            current=current,
            target=jnp.where(extinguished, target, state.target),
            delay_step=jnp.where(checked, 1, state.delay_step + ~red),
            red=red & ~extinguished,
            red_step=jnp.where(extinguished, 0, state.red_step + red),
            completed=state.completed + (checked & on_target),
        )
        return acted, checked, died

    def picture(self, state: MortarMayhemState, params: MortarMayhemParams) -> jax.Array:
        """The observation u8[84, 84, 3], indexed [x, y, channel]."""
        return drawing.picture(self._canvas(state, state.shown, params))

    def render_debug(self, state: MortarMayhemState, params: MortarMayhemParams) -> jax.Array:
        """The frame with a ring around the target, u8[336, 336, 3], rows first.

        Equal to Memory Gym's debug pictures if these are rendered in every step. They show a new command of the endless
        task one step early and omit the last step in which commands are shown.
        """
        early = jnp.where(state.red, _show_next_frame(state).shown, state.shown)
        shown = jnp.where(state.frames_left > 0, early, NO_COMMAND)
        return drawing.debug_picture(self._canvas(state, shown, params), self.arena_size, state.target)

    def _canvas(self, state: MortarMayhemState, shown: jax.Array, params: MortarMayhemParams) -> jax.Array:
        red = self._shows_red(state, params)
        return drawing.canvas(self.arena_size, red, state.target, state.agent, state.rotation, shown)

    def _shows_red(self, state: MortarMayhemState, params: MortarMayhemParams) -> jax.Array:
        """Whether observations show red tiles, bool[]."""
        return state.red & params.visual_feedback

    def _start_offset(self, bits: jax.Array) -> ArrayLike:
        """Offset i32[2] in pixels of the agent's start from the centre of its tile, from random bits u32[2]."""
        return 0

    def _tile(self, agent: jax.Array) -> jax.Array:
        """Tile i32[2] of a position in pixels i32[2]; in the endless task -1 and 6 are outside the arena."""
        return (agent - self._origin) // TILE

    def _tile_after(self, tile: jax.Array, command: jax.Array) -> jax.Array:
        moved = tile + jnp.asarray(MOVES)[command]
        return moved % self.arena_size if self.wraps_around else moved


class FreeMovement(MortarMayhemTask):
    """Base class of tasks whose agent moves freely in eight directions."""

    nvec = FREE_NVEC
    fps = 25

    def _move(
        self, state: MortarMayhemState, action: jax.Array, params: MortarMayhemParams
    ) -> tuple[jax.Array, jax.Array]:
        towards = direction(action)
        stride = jnp.asarray(params.stride)[(towards != 0).all().astype(jnp.int32)]
        halves = 2 * state.agent + stride * towards
        # pygame rounds halves away from 0; positions in the endless task can be negative.
        agent = jnp.sign(halves) * ((jnp.abs(halves) + 1) // 2)
        return self._keep_in_bounds(agent), next_rotation(state.rotation, action)

    @abstractmethod
    def _keep_in_bounds(self, agent: jax.Array) -> jax.Array:
        """Applies the edges of the screen to a position i32[2]."""


def _show_next_frame(state: MortarMayhemState) -> MortarMayhemState:
    """The state after one more step in which commands are shown."""
    left = state.frames_left - 1
    cycle = state.show_duration + state.show_delay
    command = state.commands[state.num_commands - 1 - left // cycle].astype(jnp.int32)
    visible = cycle - 1 - left % cycle < state.show_duration
    return state.replace(frames_left=left, shown=jnp.where(visible, command, NO_COMMAND))


def random_below(bits: jax.Array, bound: ArrayLike) -> jax.Array:
    """Random integers i32 in [0, bound) from random bits u32; for small bounds the bias of 2^-32 is negligible."""
    return (bits % jnp.asarray(bound, jnp.uint32)).astype(jnp.int32)


def _choose(bits: jax.Array, choices: jax.Array) -> jax.Array:
    """Selects one of `choices`, i32[n], by random bits u32[]."""
    return jnp.asarray(choices)[random_below(bits, len(choices))]
