"""RepeatFirst: name the suit of the episode's first card in every step."""

from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.popgym import deck
from trxl_jax.envs.tasks.popgym.dealing import DealingTask, DealtState
from trxl_jax.envs.tasks.popgym.drawing import draw_cards
from trxl_jax.envs.tasks.popgym.environment import RewardParams, share


class RepeatFirst(DealingTask):
    """The task. Nothing but time tells the first observation from later ones, as in the released package.

    Args:
        num_decks: number of decks, which sets the length of episodes.
    """

    @property
    def default_params(self) -> RewardParams:
        """All right answers together are worth 1."""
        return RewardParams(self.num_cards - 1, share(1, self.num_cards - 1))

    def transition(
        self, key: jax.Array, state: DealtState, action: jax.Array, params: RewardParams
    ) -> tuple[DealtState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[], a suit."""
        reward = jnp.where(action == state.cards[0], params.reward, -params.reward).astype(jnp.float32)
        state = state.replace(time=state.time + 1)
        return state, reward, state.time == self.num_cards - 1, jnp.bool_(False)

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A suit."""
        return gymnax_spaces.Discrete(deck.NUM_SUITS)

    def observation_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A suit."""
        return gymnax_spaces.Discrete(deck.NUM_SUITS)

    def render_debug(self, state: DealtState, params: RewardParams) -> jax.Array:
        """A picture u8[height, width, 3] of all cards; see `draw_cards`."""
        place = jnp.arange(self.num_cards)
        return draw_cards(state.cards, deck.NUM_SUITS, place <= state.time, place == state.time, place == 0)
