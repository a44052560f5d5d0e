"""Mortar Mayhem: commands are shown one by one, then executed in order on an arena that explodes but for the target.

Memory Gym's MortarMayhem-Grid-v0, MortarMayhem-v0 and Endless-MortarMayhem-v0.
"""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Self

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym import mortar_mayhem_drawing as drawing
from trxl_jax.envs.tasks.memory_gym import mortar_mayhem_params as parameters
from trxl_jax.envs.tasks.memory_gym.environment import (
    OVERFLOW,
    TURN,
    WALK,
    MemoryGymEnvironment,
    direction,
    rotation_after,
)
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_drawing import TILE
from trxl_jax.envs.tasks.memory_gym.mortar_mayhem_params import MortarMayhemParams
from trxl_jax.envs.tasks.memory_gym.options import Options
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN

COMMANDS = ("right", "down", "left", "up", "stay", "right_down", "right_up", "left_down", "left_up")
MOVES = np.array([(1, 0), (0, 1), (-1, 0), (0, -1), (0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)], np.int32)
"""Tiles that each command goes to the right and down, i32[9, 2]."""

NOTHING = len(COMMANDS)
"""What is shown when no command is."""

AGENT_RADIUS = 6
WRAP = 3
"""Pixels beyond the screen at which the agent of the endless task appears on the other side."""


@struct.dataclass
class MortarMayhemLayout:
    """All that a reset draws.

    Fields:
        agent: i32[2], centre of the agent in pixels.
        commands: u8[commands], numbers of commands. In the endless task those too that later sequences end with.
        num_commands: i32[], how many of them are shown and executed at first.
        show_duration, show_delay, explosion_duration, explosion_delay: i32[], of this episode.
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
    """One step of an episode.

    Fields:
        time: i32[], steps so far.
        agent: i32[2], its centre in pixels.
        rotation: i32[], where it looks, in steps of 45 degrees to the left from upwards.
        commands, show_duration, show_delay, explosion_duration, explosion_delay: the layout's.
        num_commands: i32[], commands of the present sequence.
        frames_left: i32[], steps to come in which commands are shown and the agent stands still.
        shown: i32[], the command on the screen; `NOTHING` for none.
        current: i32[], commands of the present sequence that were checked.
        target: i32[2], the tile to be on.
        delay_step: i32[], steps since the tiles were red.
        red: bool[], whether the tiles but the target kill.
        red_step: i32[], steps since they do.
        completed: i32[], commands executed in the episode.
    """

    time: Any  # gymnax says int and means an array
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


class MortarMayhemTask(MemoryGymEnvironment):
    """What the three tasks have in common.

    Args:
        arena_size: tiles along one side.
        max_commands: the longest sequence there is room for.
    """

    defaults: ClassVar[dict[str, Any]]
    rounds: ClassVar[bool] = False
    wraps: ClassVar[bool] = False

    def __init__(self, arena_size: int, max_commands: int) -> None:
        super().__init__()
        self.arena_size = arena_size
        self.max_commands = max_commands
        self._origin = drawing.origin(arena_size)

    @abstractmethod
    def _draw_commands(self, tile: jax.Array, bits: jax.Array, count: jax.Array, params: Any) -> jax.Array:
        """Commands u8[commands] from a tile i32[2] and random bits u32[commands]; `count` are wanted at first."""

    @abstractmethod
    def _move(
        self, state: MortarMayhemState, action: jax.Array, params: MortarMayhemParams
    ) -> tuple[jax.Array, jax.Array]:
        """The agent's centre i32[2] and rotation i32[] after an action."""

    def init_layout(self, key: jax.Array, params: MortarMayhemParams, needed: ArrayLike = True) -> MortarMayhemLayout:
        """Draws tile, commands, delays and durations; see `MemoryGymEnvironment.init_layout`."""
        # One call of the generator for everything: this runs in every step.
        bits = jax.random.bits(key, (8 + self.max_commands,), jnp.uint32)
        tile = jnp.stack(jnp.divmod(_below(bits[0], self.arena_size**2), self.arena_size))
        num_commands = jnp.minimum(_choose(bits[1], params.command_count), self.max_commands)
        return MortarMayhemLayout(
            agent=self._origin + TILE // 2 + TILE * tile + self._offset(bits[2:4]),
            commands=self._draw_commands(tile, bits[8:], jnp.where(needed, num_commands, 0), params),
            num_commands=num_commands,
            show_duration=_choose(bits[4], params.command_show_duration),
            show_delay=_choose(bits[5], params.command_show_delay),
            explosion_duration=_choose(bits[6], params.explosion_duration),
            explosion_delay=_choose(bits[7], params.explosion_delay),
        )

    def reset_from_layout(self, layout: MortarMayhemLayout, params: MortarMayhemParams) -> MortarMayhemState:
        """The first frame shows the first command already."""
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
            shown=jnp.where(layout.show_duration > 0, first, NOTHING),
            current=zero,
            target=self._after_move(self._tile(layout.agent), first),
            delay_step=zero,
            red=jnp.bool_(False),
            red_step=zero,
            completed=zero,
        )

    def transition(
        self, state: MortarMayhemState, action: jax.Array, params: MortarMayhemParams
    ) -> tuple[MortarMayhemState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """Shows the next frame of the commands, or acts; see `MemoryGymEnvironment.transition`."""
        showing = state.frames_left > 0
        acted, checked, died = self._act(state, action, params)
        checked, died = checked & ~showing, died & ~showing
        state = jax.tree.map(partial(jnp.where, showing), _show(state), acted).replace(time=state.time + 1)
        last = checked & (state.current >= state.num_commands)
        state, terminated, info = self._finish(state, last, died, params)
        success = jnp.where(last, jnp.float32(params.reward_last_command), jnp.float32(params.reward_command_success))
        reward = jnp.where(died, jnp.float32(params.reward_command_failure), jnp.where(checked, success, 0.0))
        return state, reward, terminated, info

    @abstractmethod
    def _finish(
        self, state: MortarMayhemState, last: jax.Array, died: jax.Array, params: MortarMayhemParams
    ) -> tuple[MortarMayhemState, jax.Array, dict[str, jax.Array]]:
        """What follows the check of a sequence's last command: the state, whether the episode ends, and its results."""

    def _act(
        self, state: MortarMayhemState, action: jax.Array, params: MortarMayhemParams
    ) -> tuple[MortarMayhemState, jax.Array, jax.Array]:
        """Moves the agent, and the explosions on by one step.

        Returns:
            The state, whether a command was checked bool[], and whether the agent is on a deadly tile bool[].
        """
        agent, rotation = self._move(state, action, params)
        on_target = (self._tile(agent) == state.target).all()
        # The very first check comes a step later than the others: `delay_step` starts at 0 and later again at 1.
        checked = (state.delay_step % state.explosion_delay == 0) & (state.delay_step > 0) & ~state.red
        red = state.red | checked
        extinguished = red & (state.red_step % state.explosion_duration == 0) & (state.red_step > 0)
        died = red & ~extinguished & ~on_target
        current = state.current + checked
        target = self._after_move(state.target, state.commands[current].astype(jnp.int32))
        acted = state.replace(
            agent=agent,
            rotation=rotation,
            shown=jnp.int32(NOTHING),
            current=current,
            target=jnp.where(extinguished, target, state.target),
            delay_step=jnp.where(checked, 1, state.delay_step + ~red),
            red=red & ~extinguished,
            red_step=jnp.where(extinguished, 0, state.red_step + red),
            completed=state.completed + (checked & on_target),
        )
        return acted, checked, died

    def render(self, state: MortarMayhemState, params: MortarMayhemParams) -> jax.Array:
        """What the agent sees, u8[84, 84, 3], x first."""
        return drawing.picture(self._canvas(state, state.shown, params))

    def render_debug(self, state: MortarMayhemState, params: MortarMayhemParams) -> jax.Array:
        """The frame with a ring about the target, u8[336, 336, 3], rows first.

        Memory Gym's, if it is asked for one in each step: it then shows a new command of the endless task one step
        early, and never the last step of what is shown.
        """
        early = jnp.where(state.red, _show(state).shown, state.shown)
        shown = jnp.where(state.frames_left > 0, early, NOTHING)
        return drawing.debug_picture(self._canvas(state, shown, params), self.arena_size, state.target)

    def _canvas(self, state: MortarMayhemState, shown: jax.Array, params: MortarMayhemParams) -> jax.Array:
        red = state.red & params.visual_feedback
        return drawing.canvas(self.arena_size, red, state.target, state.agent, state.rotation, shown)

    def _offset(self, bits: jax.Array) -> ArrayLike:
        """Pixels i32[2] from the middle of its tile to where the agent starts, from random bits u32[2]."""
        return 0

    def _tile(self, agent: jax.Array) -> jax.Array:
        """The tile that a place in pixels i32[2] lies on; the endless task's agent may be on -1 or 6, off the arena."""
        return (agent - self._origin) // TILE

    def _after_move(self, tile: jax.Array, command: jax.Array) -> jax.Array:
        moved = tile + jnp.asarray(MOVES)[command]
        return moved % self.arena_size if self.wraps else moved


class _Arena(MortarMayhemTask):
    """A task that ends with its one sequence, whose commands never lead off the arena."""

    result_names = ("success", "commands_completed")

    def __init__(self, arena_size: int = 5, max_commands: int = 10) -> None:
        super().__init__(arena_size, max_commands)
        # A table: XLA may multiply by a rounded reciprocal where it is told to divide.
        done, count = np.mgrid[: max_commands + 1, : max_commands + 1]
        self._share = (done / np.maximum(count, 1)).astype(np.float32)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> tuple[Self, MortarMayhemParams]:
        """The task and its parameters that Memory Gym's reset options ask for.

        Raises:
            ConfigError: options that are unknown, not supported or make no sense.
        """
        read = Options(options, cls.defaults)
        params = parameters.from_options(read, rounds=cls.rounds)
        return cls(arena_size=read.whole("arena_size", 2, 6), max_commands=int(params.command_count.max())), params

    @property
    def default_params(self) -> MortarMayhemParams:
        """Memory Gym's defaults, with as many commands as there is room for."""
        return self.from_options({"command_count": [self.max_commands]})[1]

    def _draw_commands(self, tile: jax.Array, bits: jax.Array, count: jax.Array, params: Any) -> jax.Array:
        def draw(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            tile, commands = carry
            reached = tile + MOVES
            fits = ((reached >= 0) & (reached < self.arena_size)).all(axis=1)
            fits = fits & (jnp.arange(len(MOVES)) < params.allowed_commands)
            rank = jnp.cumsum(fits)
            chosen = jnp.argmax(fits & (rank == _below(bits[i], rank[-1]) + 1))
            return reached[chosen], jnp.where(jnp.arange(self.max_commands) == i, chosen.astype(jnp.uint8), commands)

        # At least one command fits everywhere; without any there is nothing to be drawn.
        commands = jnp.zeros(self.max_commands, jnp.uint8)
        return jax.lax.fori_loop(0, count, draw, (tile, commands))[1]

    def _finish(
        self, state: MortarMayhemState, last: jax.Array, died: jax.Array, params: MortarMayhemParams
    ) -> tuple[MortarMayhemState, jax.Array, dict[str, jax.Array]]:
        # Two quirks: failing at the last command counts as a success, and dying later on a tile as failing at the
        # command before.
        done = jnp.clip(state.current - 1 + last, 0)
        share = jnp.asarray(self._share)[done, state.num_commands]
        return state, last | died, {"success": last.astype(jnp.float32), "commands_completed": share}


class MortarMayhemGrid(_Arena):
    """MortarMayhem-Grid-v0: the agent turns by 90 degrees and goes from tile to tile."""

    task = "MortarMayhem-Grid-v0"
    nvec = TURN
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


class _Walking(MortarMayhemTask):
    """A task whose agent walks by pixels in eight directions."""

    nvec = WALK
    fps = 25

    def _move(
        self, state: MortarMayhemState, action: jax.Array, params: MortarMayhemParams
    ) -> tuple[jax.Array, jax.Array]:
        towards = direction(action)
        stride = jnp.asarray(params.stride)[(towards != 0).all().astype(jnp.int32)]
        halves = 2 * state.agent + stride * towards
        # As pygame rounds: halves away from 0, which the endless task's agent can be on either side of.
        agent = jnp.sign(halves) * ((jnp.abs(halves) + 1) // 2)
        return self._confine(agent), rotation_after(state.rotation, action)

    @abstractmethod
    def _confine(self, agent: jax.Array) -> jax.Array:
        """Where the agent is that would be at `agent` i32[2]."""


class MortarMayhem(_Walking, _Arena):
    """MortarMayhem-v0: the agent walks within the arena."""

    task = "MortarMayhem-v0"
    defaults = parameters.DEFAULTS

    def _confine(self, agent: jax.Array) -> jax.Array:
        margin = self._origin + AGENT_RADIUS
        return jnp.clip(agent, margin, SCREEN - margin)


class EndlessMortarMayhem(_Walking):
    """Endless-MortarMayhem-v0: each sequence finished grows by a command, and opposite sides of the screen touch.

    All commands are drawn in the reset. The episode is truncated where one more would not fit, with `overflow` in its
    last info; n commands take about 12 n^2 + 16 n steps.
    """

    task = "Endless-MortarMayhem-v0"
    result_names = ("commands_completed", "max_command_sequence", OVERFLOW)
    defaults = parameters.ENDLESS_DEFAULTS
    rounds = True
    wraps = True

    def __init__(self, max_commands: int = 64) -> None:
        super().__init__(6, max_commands)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> tuple[Self, MortarMayhemParams]:
        """The task and its parameters that Memory Gym's reset options ask for, with room for 63 more commands.

        Raises:
            ConfigError: options that are unknown, not supported or make no sense.
        """
        params = parameters.from_options(Options(options, cls.defaults), rounds=cls.rounds)
        return cls(max_commands=int(params.command_count[0]) + 63), params

    def is_truncated(self, state: MortarMayhemState, params: MortarMayhemParams) -> jax.Array:
        """Whether the sequence has outgrown the room for it."""
        return state.num_commands > self.max_commands

    def _draw_commands(self, tile: jax.Array, bits: jax.Array, count: jax.Array, params: Any) -> jax.Array:
        return _below(bits, params.allowed_commands).astype(jnp.uint8)

    def _offset(self, bits: jax.Array) -> jax.Array:
        return _below(bits, 4) - 2

    def _finish(
        self, state: MortarMayhemState, last: jax.Array, died: jax.Array, params: MortarMayhemParams
    ) -> tuple[MortarMayhemState, jax.Array, dict[str, jax.Array]]:
        state = state.replace(
            num_commands=state.num_commands + last,
            current=jnp.where(last, 0, state.current),
            # Only the new command is shown, while the tiles are still red.
            frames_left=jnp.where(last, state.show_duration + state.show_delay, state.frames_left),
        )
        info = {
            "commands_completed": state.completed.astype(jnp.float32),
            # The sequence counts whose last command was failed at, too.
            "max_command_sequence": (state.num_commands - 1).astype(jnp.float32),
        }
        return state, died | (state.time == params.max_steps), info

    def _confine(self, agent: jax.Array) -> jax.Array:
        low, high = -WRAP, SCREEN + WRAP
        return jnp.where(agent > high, low, jnp.where(agent < low, high, agent))


def _show(state: MortarMayhemState) -> MortarMayhemState:
    """The state a frame further into what is shown."""
    left = state.frames_left - 1
    cycle = state.show_duration + state.show_delay
    command = state.commands[state.num_commands - 1 - left // cycle].astype(jnp.int32)
    visible = cycle - 1 - left % cycle < state.show_duration
    return state.replace(frames_left=left, shown=jnp.where(visible, command, NOTHING))


def _below(bits: jax.Array, bound: ArrayLike) -> jax.Array:
    """Integers i32 below a small bound; that the smallest are likelier by 2^-32 can't be measured."""
    return (bits % jnp.asarray(bound, jnp.uint32)).astype(jnp.int32)


def _choose(bits: jax.Array, choices: jax.Array) -> jax.Array:
    """One of the choices i32[choices]."""
    return jnp.asarray(choices)[_below(bits, len(choices))]
