"""RepeatFirst: name the suit of the episode's first card in every step."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment as gymnax_environment
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.popgym import deck
from trxl_jax.envs.tasks.popgym.drawing import draw_cards
from trxl_jax.envs.tasks.popgym.environment import POPGymEnvironment, RewardParams, share


@struct.dataclass
class RepeatFirstState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        suits: i32[N], of all cards, in the order in which they are dealt.
    """

    time: Any
    suits: jax.Array


class RepeatFirst(POPGymEnvironment):
    """The task. Nothing but time tells the first observation from later ones, as in the released package.

    Args:
        num_decks: number of decks, which sets the length of episodes.
    """

    def __init__(self, num_decks: int = 1) -> None:
        super().__init__(num_decks=num_decks)
        self.num_cards = deck.DECK_SIZE * num_decks

    def read_options(self, read: Options) -> dict[str, Any]:
        """See `POPGymEnvironment`."""
        return {"num_decks": deck.read_num_decks(read)}

    @property
    def default_params(self) -> RewardParams:
        """All right answers together are worth 1."""
        return RewardParams(self.num_cards - 1, share(1, self.num_cards - 1))

    def init_layout(self, key: jax.Array, params: RewardParams) -> jax.Array:
        """Suits i32[N] of the shuffled cards."""
        return deck.shuffled(key, self.settings["num_decks"], "suits")

    def reset_from_layout(self, layout: jax.Array, params: RewardParams) -> RepeatFirstState:
        """The state with suits i32[N], after the first card was dealt."""
        return RepeatFirstState(time=jnp.int32(0), suits=layout)

    def transition(
        self, key: jax.Array, state: RepeatFirstState, action: jax.Array, params: RewardParams
    ) -> tuple[RepeatFirstState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[], a suit."""
        reward = jnp.where(action == state.suits[0], params.reward, -params.reward).astype(jnp.float32)
        state = state.replace(time=state.time + 1)
        return state, reward, state.time == self.num_cards - 1, jnp.bool_(False)

    def observation(self, state: RepeatFirstState) -> jax.Array:
        """The suit i32[] of the card that was dealt last."""
        return state.suits[state.time]

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A suit."""
        return gymnax_spaces.Discrete(deck.NUM_SUITS)

    def observation_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A suit."""
        return gymnax_spaces.Discrete(deck.NUM_SUITS)

    def render_debug(self, state: RepeatFirstState, params: RewardParams) -> jax.Array:
        """A picture u8[height, width, 3] of all cards; see `draw_cards`."""
        place = jnp.arange(self.num_cards)
        return draw_cards(state.suits, deck.NUM_SUITS, place <= state.time, place == state.time, place == 0)
