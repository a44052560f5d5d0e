"""LabyrinthExplore and LabyrinthEscape: walk through all of a maze, or to its end, seeing the eight places around."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment as gymnax_environment
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.popgym.drawing import BLACK, BLUE, GREEN, RED, WHITE, draw_board, paint
from trxl_jax.envs.tasks.popgym.environment import POPGymEnvironment, share
from trxl_jax.envs.tasks.popgym.mazes import STEPS, Maze, draw_maze
from trxl_jax.envs.tasks.spaces import MultiDiscrete

WALL, START, GOAL = 1, 2, 3
"""What an observation shows; 0 is a free place, and 4 is never seen."""
NUM_KINDS = 5
NO_ACTION = 4


@struct.dataclass
class LabyrinthState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        maze: the maze.
        explored: bool[height, width], places where the agent has been.
        position: i32[2], row and column.
        last_action: i32[], `NO_ACTION` at first.
    """

    time: Any
    maze: Maze
    explored: jax.Array
    position: jax.Array
    last_action: jax.Array


@struct.dataclass
class LabyrinthParams(gymnax_environment.EnvParams):
    """Parameters of the tasks.

    Fields:
        max_steps_in_episode: steps after which an episode is truncated, one less than `episode_length`.
        step_reward: of a step.
        goal_reward: of the step to the end of the maze, for LabyrinthEscape.
    """

    max_steps_in_episode: int = 1
    step_reward: float = -1.0
    goal_reward: float = 1.0


class Labyrinth(POPGymEnvironment):
    """What both tasks have in common.

    Args:
        maze_dims: height and width of a maze, even numbers; it has one more row and column.
        episode_length: one more than the steps of the longest episode.
    """

    def __init__(self, maze_dims: tuple[int, int] = (10, 10), episode_length: int = 1024) -> None:
        super().__init__(maze_dims=maze_dims, episode_length=episode_length)
        self.height, self.width = (side + 1 for side in maze_dims)
        self.episode_length = episode_length

    def read_options(self, read: Options) -> dict[str, Any]:
        """See `POPGymEnvironment`."""
        wanted = "two even numbers from 6 to 100, height and width"
        sides = read.integers("maze_dims", 6, 100, wanted)
        if len(sides) != 2 or any(side % 2 for side in sides):
            raise read.invalid("maze_dims", wanted)
        return {"maze_dims": (sides[0], sides[1]), "episode_length": read.integer("episode_length", 2)}

    @property
    def default_params(self) -> LabyrinthParams:
        """A step costs 1 of `episode_length`."""
        step, goal = share(-1, self.episode_length), share(self.episode_length - 1, self.episode_length)
        return LabyrinthParams(self.episode_length - 1, step, goal)

    def init_layout(self, key: jax.Array, params: LabyrinthParams) -> Maze:
        """A maze; see `Maze` for shapes."""
        return draw_maze(key, self.height // 2, self.width // 2)

    def reset_from_layout(self, layout: Maze, params: LabyrinthParams) -> LabyrinthState:
        """The state at the start of a maze."""
        row, column = layout.start
        explored = jnp.zeros_like(layout.walls).at[row, column].set(True)
        return LabyrinthState(jnp.int32(0), layout, explored, layout.start, jnp.int32(NO_ACTION))

    def move(self, state: LabyrinthState, action: jax.Array, params: LabyrinthParams) -> tuple[Any, jax.Array, Any]:
        """One step; next state, whether its place is new, bool[], and whether the episode is truncated, bool[]."""
        last = np.array([self.height - 1, self.width - 1], np.int32)
        ahead = jnp.clip(state.position + jnp.asarray(STEPS)[action], 0, last)
        ahead = jnp.where(self.open_places(state.maze)[ahead[0], ahead[1]], ahead, state.position)
        row, column = ahead
        time = state.time + 1
        following = state.replace(
            time=time,
            explored=state.explored.at[row, column].set(True),
            position=ahead,
            last_action=action.astype(jnp.int32),
        )
        return following, ~state.explored[row, column], time >= params.max_steps_in_episode

    def observation(self, state: LabyrinthState) -> jax.Array:
        """What nine places show, by rows, and the last action, i32[10].

        As in the package, a window that sticks out of the maze is cut, and filled up with walls below and to the right:
        at the upper and left borders the agent isn't in its centre.
        """
        first = jnp.maximum(state.position - 1, 0)
        shown = jax.lax.dynamic_slice(jnp.pad(state.maze.walls, ((0, 2), (0, 2)), constant_values=True), first, (3, 3))
        places = jnp.stack(jnp.meshgrid(*(first[:, None] + jnp.arange(3)), indexing="ij"), axis=-1)
        kinds = jnp.where(shown, WALL, 0)
        kinds = jnp.where((places == state.maze.start).all(axis=-1), START, kinds)
        kinds = self._show_end(kinds, (places == state.maze.end).all(axis=-1))
        # The package confuses height and width here, which matters only where they differ.
        last = jnp.minimum(state.position + 1, np.array([self.width, self.height], np.int32))
        kinds = jnp.where((places <= last).all(axis=-1), kinds, WALL)
        return jnp.append(kinds.ravel(), state.last_action).astype(jnp.int32)

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """Left, right, up, down."""
        return gymnax_spaces.Discrete(len(STEPS))

    def observation_space(self, params: Any = None) -> MultiDiscrete:
        """Nine places, and the last action."""
        return MultiDiscrete(*[NUM_KINDS] * 9, NO_ACTION + 1)

    def render_debug(self, state: LabyrinthState, params: LabyrinthParams) -> jax.Array:
        """A picture u8[height, width, 3]: walls black, explored places blue, start green, end red, the agent marked."""
        rows, columns = jnp.indices((self.height, self.width))

        def at(place: jax.Array) -> jax.Array:
            return (rows == place[0]) & (columns == place[1])

        squares = paint(jnp.zeros((self.height, self.width, 3), jnp.uint8), self.open_places(state.maze), WHITE)
        squares = paint(paint(squares, state.explored, BLUE), at(state.maze.start), GREEN)
        squares = paint(squares, at(state.maze.end) & self.open_places(state.maze), RED)
        return draw_board(squares, paint(squares, at(state.position), BLACK))

    def open_places(self, maze: Maze) -> jax.Array:
        """Places where the agent may go, bool[height, width]."""
        return ~maze.walls

    def _show_end(self, kinds: jax.Array, is_end: jax.Array) -> jax.Array:
        """What places show, i32[3, 3], given which of them is the end of the maze, bool[3, 3]."""
        return kinds


class LabyrinthExplore(Labyrinth):
    """New places are worth 1 together; in other steps the agent pays. Walking through the whole maze ends the episode.

    The end of the maze is a wall.
    """

    def transition(
        self, key: jax.Array, state: LabyrinthState, action: jax.Array, params: LabyrinthParams
    ) -> tuple[LabyrinthState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[]."""
        state, is_new, truncated = self.move(state, action, params)
        is_open = self.open_places(state.maze)
        reward = jnp.where(is_new, 1 / (is_open.sum() - 1).astype(jnp.float32), params.step_reward)
        return state, reward.astype(jnp.float32), (is_open == state.explored).all(), truncated


class LabyrinthEscape(Labyrinth):
    """The agent pays for each step until it reaches the end of the maze, which is worth 1."""

    def transition(
        self, key: jax.Array, state: LabyrinthState, action: jax.Array, params: LabyrinthParams
    ) -> tuple[LabyrinthState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[]."""
        state, _, truncated = self.move(state, action, params)
        escaped = (state.position == state.maze.end).all()
        reward = jnp.where(escaped, params.goal_reward, params.step_reward)
        return state, reward.astype(jnp.float32), escaped, truncated

    def open_places(self, maze: Maze) -> jax.Array:
        """See `Labyrinth`."""
        return ~maze.walls.at[maze.end[0], maze.end[1]].set(False)

    def _show_end(self, kinds: jax.Array, is_end: jax.Array) -> jax.Array:
        return jnp.where(is_end, GOAL, kinds)
