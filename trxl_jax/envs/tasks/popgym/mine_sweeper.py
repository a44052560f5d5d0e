"""MineSweeper: visit all squares without a mine, told only how many mines are around the one just visited."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment as gymnax_environment
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.popgym.drawing import BLUE, GREY, RED, draw_board, paint
from trxl_jax.envs.tasks.popgym.environment import POPGymEnvironment, share
from trxl_jax.envs.tasks.spaces import MultiDiscrete

BOARDS = {"easy": (4, 2), "medium": (6, 6), "hard": (8, 10)}
"""Squares along a side, and number of mines."""


@struct.dataclass
class MineSweeperState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        mines: bool[side, side].
        visited: bool[side, side], squares without a mine that were visited.
        around: i32[], number of mines around the last square visited and on it.
    """

    time: Any
    mines: jax.Array
    visited: jax.Array
    around: jax.Array


@struct.dataclass
class MineSweeperParams(gymnax_environment.EnvParams):
    """Parameters of the task.

    Fields:
        max_steps_in_episode: steps after which an episode is truncated.
        new_reward: of a square that was not visited before.
        again_reward: of one that was.
        mine_reward: of a mine, which ends the episode.
    """

    max_steps_in_episode: int = 1
    new_reward: float = 1.0
    again_reward: float = -1.0
    mine_reward: float = -1.0


class MineSweeper(POPGymEnvironment):
    """The task.

    Args:
        difficulty: one of `BOARDS`.
    """

    def __init__(self, difficulty: str = "easy") -> None:
        super().__init__(difficulty=difficulty)
        self.side, self.num_mines = BOARDS[difficulty]

    def read_options(self, read: Options) -> dict[str, Any]:
        """See `POPGymEnvironment`."""
        return {"difficulty": read.choice("difficulty", *BOARDS)}

    @property
    def default_params(self) -> MineSweeperParams:
        """As many steps as there are squares without a mine, which together are worth 1."""
        num_clear = self.side**2 - self.num_mines
        again = share(-0.5, num_clear - 2)
        return MineSweeperParams(num_clear, share(1, num_clear), again, share(-0.5 - 1 / num_clear, 1))

    def init_layout(self, key: jax.Array, params: MineSweeperParams) -> jax.Array:
        """Mines bool[side, side], each set of squares equally likely."""
        # Floyd's algorithm for samples without replacement (Bentley, Communications of the ACM 30:9, 1987).
        num_squares = self.side**2
        last = np.arange(num_squares - self.num_mines, num_squares)
        drawn = jax.random.randint(key, last.shape, 0, last + 1, jnp.int32)
        mines = jnp.zeros(num_squares, bool)
        for square, otherwise in zip(drawn, last):
            mines = mines.at[jnp.where(mines[square], otherwise, square)].set(True)
        return mines.reshape(self.side, self.side)

    def reset_from_layout(self, layout: jax.Array, params: MineSweeperParams) -> MineSweeperState:
        """The state with mines bool[side, side]."""
        return MineSweeperState(time=jnp.int32(0), mines=layout, visited=jnp.zeros_like(layout), around=jnp.int32(0))

    def transition(
        self, key: jax.Array, state: MineSweeperState, action: jax.Array, params: MineSweeperParams
    ) -> tuple[MineSweeperState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[2], row and column."""
        row, column = action[0], action[1]
        is_mine, again = state.mines[row, column], state.visited[row, column]
        seen_reward = jnp.where(again, params.again_reward, params.new_reward)
        reward = jnp.where(is_mine, params.mine_reward, seen_reward).astype(jnp.float32)
        window = jax.lax.dynamic_slice(jnp.pad(state.mines, 1), (row, column), (3, 3))
        state = state.replace(
            time=state.time + 1,
            visited=state.visited.at[row, column].set(~is_mine),
            around=window.sum(dtype=jnp.int32),
        )
        terminated = is_mine | (state.visited | state.mines).all()
        return state, reward, terminated, (state.time >= params.max_steps_in_episode) & ~terminated

    def observation(self, state: MineSweeperState) -> jax.Array:
        """Number i32[] of mines around the last square visited and on it; 0 at first."""
        return state.around

    def action_space(self, params: Any = None) -> MultiDiscrete:
        """Row and column."""
        return MultiDiscrete(self.side, self.side)

    def observation_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A number of mines, up to 9."""
        return gymnax_spaces.Discrete(min(self.num_mines + 1, 10))

    def render_debug(self, state: MineSweeperState, params: MineSweeperParams) -> jax.Array:
        """A picture u8[height, width, 3]: mines red, visited squares blue."""
        squares = paint(jnp.zeros((self.side, self.side, 3), jnp.uint8), ~state.mines, GREY)
        return draw_board(paint(paint(squares, state.mines, RED), state.visited, BLUE))
