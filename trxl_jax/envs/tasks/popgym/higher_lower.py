"""HigherLower: guess whether the next card's rank is higher or lower than the current one's."""

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
class HigherLowerState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        ranks: i32[N], of all cards, in the order in which they are dealt.
    """

    time: Any
    ranks: jax.Array


class HigherLower(POPGymEnvironment):
    """The task.

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
        """A guess is worth 1/N, although an episode has N - 1 of them; an equal rank is worth 0."""
        return RewardParams(self.num_cards - 1, share(1, self.num_cards))

    def init_layout(self, key: jax.Array, params: RewardParams) -> jax.Array:
        """Ranks i32[N] of the shuffled cards."""
        return deck.shuffled(key, self.settings["num_decks"], "ranks")

    def reset_from_layout(self, layout: jax.Array, params: RewardParams) -> HigherLowerState:
        """The state with ranks i32[N], after the first card was dealt."""
        return HigherLowerState(time=jnp.int32(0), ranks=layout)

    def transition(
        self, key: jax.Array, state: HigherLowerState, action: jax.Array, params: RewardParams
    ) -> tuple[HigherLowerState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[], 0 for higher and 1 for lower."""
        change = state.ranks[state.time + 1] - state.ranks[state.time]
        right = (change > 0) == (action == 0)
        reward = jnp.where(change == 0, 0, jnp.where(right, params.reward, -params.reward)).astype(jnp.float32)
        state = state.replace(time=state.time + 1)
        return state, reward, state.time == self.num_cards - 1, jnp.bool_(False)

    def observation(self, state: HigherLowerState) -> jax.Array:
        """The rank i32[] of the card that was dealt last."""
        return state.ranks[state.time]

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """0 higher, 1 lower."""
        return gymnax_spaces.Discrete(2)

    def observation_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A rank."""
        return gymnax_spaces.Discrete(deck.NUM_RANKS)

    def render_debug(self, state: HigherLowerState, params: RewardParams) -> jax.Array:
        """A picture u8[height, width, 3] of all cards, the next one marked; see `draw_cards`."""
        place = jnp.arange(self.num_cards)
        return draw_cards(
            state.ranks, deck.NUM_RANKS, place <= state.time, place == state.time, place == state.time + 1
        )
