"""Battleship: hit all squares of hidden ships, told only whether the last shot hit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment as gymnax_environment
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.popgym.drawing import BLUE, GREY, RED, WHITE, draw_board, paint
from trxl_jax.envs.tasks.popgym.environment import POPGymEnvironment, share
from trxl_jax.envs.tasks.spaces import MultiDiscrete

SHIP_LENGTHS = (2, 3, 3, 4)
NUM_SHIP_SQUARES = sum(SHIP_LENGTHS)


@struct.dataclass
class BattleshipState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        ships: bool[side, side].
        shot: bool[side, side], squares that were shot at.
        hit: i32[], whether the last shot hit a ship, at a square not shot at before.
    """

    time: Any
    ships: jax.Array
    shot: jax.Array
    hit: jax.Array


@struct.dataclass
class BattleshipParams(gymnax_environment.EnvParams):
    """Parameters of the task.

    Fields:
        max_steps_in_episode: steps after which an episode is truncated.
        hit_reward: of a hit.
        miss_reward: of any other shot.
    """

    max_steps_in_episode: int = 1
    hit_reward: float = 1.0
    miss_reward: float = -1.0


class Battleship(POPGymEnvironment):
    """The task.

    Args:
        board_size: squares along a side of the board.
    """

    def __init__(self, board_size: int = 10) -> None:
        super().__init__(board_size=board_size)
        self.side = board_size

    def read_options(self, read: Options) -> dict[str, Any]:
        """See `POPGymEnvironment`."""
        return {"board_size": read.integer("board_size", 8, 100)}

    @property
    def default_params(self) -> BattleshipParams:
        """As many steps as squares; all hits together are worth 1, and so are all squares without a ship -1."""
        num_squares = self.side**2
        return BattleshipParams(num_squares, share(1, NUM_SHIP_SQUARES), share(-1, num_squares - NUM_SHIP_SQUARES))

    def init_layout(self, key: jax.Array, params: BattleshipParams) -> jax.Array:
        """Ships bool[side, side]: one after the other, each uniform among the places where it fits."""
        lengths = jnp.array(SHIP_LENGTHS, jnp.int32)
        row, column = (x.astype(np.int32) for x in np.mgrid[: self.side, : self.side])

        def attempt(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            ships, num_placed, num_attempts = carry
            draws = jax.random.bits(jax.random.fold_in(key, num_attempts), (3,))
            upright = draws[0] % 2 == 0
            along, across = jnp.where(upright, row, column), jnp.where(upright, column, row)
            start, line = (draws[1:] % self.side).astype(jnp.int32)
            length = lengths[num_placed]
            ship = (across == line) & (along >= start) & (along < start + length)
            fits = (start + length <= self.side) & ~(ship & ships).any()
            return ships | (ship & fits), num_placed + fits, num_attempts + 1

        start = (jnp.zeros((self.side, self.side), bool), jnp.int32(0), jnp.int32(0))
        return jax.lax.while_loop(lambda carry: carry[1] < len(SHIP_LENGTHS), attempt, start)[0]

    def reset_from_layout(self, layout: jax.Array, params: BattleshipParams) -> BattleshipState:
        """The state with ships bool[side, side]."""
        return BattleshipState(time=jnp.int32(0), ships=layout, shot=jnp.zeros_like(layout), hit=jnp.int32(0))

    def transition(
        self, key: jax.Array, state: BattleshipState, action: jax.Array, params: BattleshipParams
    ) -> tuple[BattleshipState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[2], row and column."""
        row, column = action[0], action[1]
        hit = state.ships[row, column] & ~state.shot[row, column]
        reward = jnp.where(hit, params.hit_reward, params.miss_reward).astype(jnp.float32)
        state = state.replace(time=state.time + 1, shot=state.shot.at[row, column].set(True), hit=hit.astype(jnp.int32))
        terminated = ~(state.ships & ~state.shot).any()
        return state, reward, terminated, state.time >= params.max_steps_in_episode

    def observation(self, state: BattleshipState) -> jax.Array:
        """Whether the last shot hit, i32[]; 0 at first."""
        return state.hit

    def action_space(self, params: Any = None) -> MultiDiscrete:
        """Row and column."""
        return MultiDiscrete(self.side, self.side)

    def observation_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """Whether the last shot hit."""
        return gymnax_spaces.Discrete(2)

    def render_debug(self, state: BattleshipState, params: BattleshipParams) -> jax.Array:
        """A picture u8[height, width, 3]: ships grey, hits red, misses white, other squares blue."""
        squares = paint(jnp.zeros((self.side, self.side, 3), jnp.uint8), ~state.ships, BLUE)
        squares = paint(paint(squares, state.ships, GREY), state.shot & state.ships, RED)
        return draw_board(paint(squares, state.shot & ~state.ships, WHITE))
