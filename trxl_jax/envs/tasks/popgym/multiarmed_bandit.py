"""MultiarmedBandit: find the arm that wins most often."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment as gymnax_environment
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.options import MAX_INT, Options
from trxl_jax.envs.tasks.popgym.drawing import GREY, WHITE, draw_board, paint
from trxl_jax.envs.tasks.popgym.environment import POPGymEnvironment, RewardParams, share


class MultiarmedBanditLayout(NamedTuple):
    """What is random in an episode.

    Fields:
        chances: f32[arms], how likely each arm wins.
        draws: f32[T], recorded draws of the episode's steps, an arm wins if its chance is higher; None: steps draw.
    """

    chances: jax.Array
    draws: jax.Array | None = None


@struct.dataclass
class MultiarmedBanditState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        layout: the arms.
        won: i32[], whether the last step won.
    """

    time: Any
    layout: MultiarmedBanditLayout
    won: jax.Array


class MultiarmedBandit(POPGymEnvironment):
    """The task.

    Args:
        num_bandits: number of arms.
        episode_length: steps of an episode, which is then truncated.
    """

    def __init__(self, num_bandits: int = 10, episode_length: int = 200) -> None:
        super().__init__(num_bandits=num_bandits, episode_length=episode_length)
        self.num_arms = num_bandits

    def read_options(self, read: Options) -> dict[str, Any]:
        """See `POPGymEnvironment`."""
        return {
            "num_bandits": read.integer("num_bandits", 1, 1000),
            "episode_length": read.integer("episode_length", 1, MAX_INT),
        }

    @property
    def default_params(self) -> RewardParams:
        """An episode that always wins is worth 1, one that always loses -1."""
        num_steps = self.settings["episode_length"]
        return RewardParams(num_steps, share(1, num_steps))

    def init_layout(self, key: jax.Array, params: RewardParams) -> MultiarmedBanditLayout:
        """Chances f32[arms] between 0 and 1."""
        return MultiarmedBanditLayout(jax.random.uniform(key, (self.num_arms,), jnp.float32))

    def reset_from_layout(self, layout: MultiarmedBanditLayout, params: RewardParams) -> MultiarmedBanditState:
        """The state with these arms f32[arms]."""
        return MultiarmedBanditState(time=jnp.int32(0), layout=layout, won=jnp.int32(0))

    def transition(
        self, key: jax.Array, state: MultiarmedBanditState, action: jax.Array, params: RewardParams
    ) -> tuple[MultiarmedBanditState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[], an arm."""
        chances, draws = state.layout
        draw = jax.random.uniform(key, (), jnp.float32) if draws is None else draws[state.time]
        won = draw < chances[action]
        reward = jnp.where(won, params.reward, -params.reward).astype(jnp.float32)
        state = state.replace(time=state.time + 1, won=won.astype(jnp.int32))
        return state, reward, jnp.bool_(False), state.time >= params.max_steps_in_episode

    def observation(self, state: MultiarmedBanditState) -> jax.Array:
        """Whether the last step won, i32[]."""
        return state.won

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """An arm."""
        return gymnax_spaces.Discrete(self.num_arms)

    def observation_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """Whether the last step won."""
        return gymnax_spaces.Discrete(2)

    def render_debug(self, state: MultiarmedBanditState, params: RewardParams) -> jax.Array:
        """A picture u8[240, width, 3]: a column for each arm, as high as its chance; bright if the last step won."""
        height = jnp.arange(10, 0, -1)[:, None]
        filled = height <= jnp.round(10 * state.layout.chances)
        squares = paint(jnp.zeros((10, self.num_arms, 3), jnp.uint8), filled & (state.won == 0), GREY)
        return draw_board(paint(squares, filled & (state.won == 1), WHITE))
