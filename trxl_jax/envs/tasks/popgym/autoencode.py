"""Autoencode: watch all cards, then name their suits in reverse order."""

from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.popgym import deck
from trxl_jax.envs.tasks.popgym.dealing import DealingTask, DealtState
from trxl_jax.envs.tasks.popgym.drawing import draw_cards
from trxl_jax.envs.tasks.popgym.environment import RewardParams, share


class Autoencode(DealingTask):
    """The task.

    Args:
        num_decks: number of decks to remember.
    """

    @property
    def default_params(self) -> RewardParams:
        """All right answers together are worth 1."""
        return RewardParams(2 * self.num_cards - 1, share(1, self.num_cards))

    def transition(
        self, key: jax.Array, state: DealtState, action: jax.Array, params: RewardParams
    ) -> tuple[DealtState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[], a suit."""
        asked = self._asked(state)
        right = action == state.cards[asked]
        watches = asked >= self.num_cards
        reward = jnp.where(watches, 0, jnp.where(right, params.reward, -params.reward)).astype(jnp.float32)
        state = state.replace(time=state.time + 1)
        return state, reward, state.time == 2 * self.num_cards - 1, jnp.bool_(False)

    def observation(self, state: DealtState) -> tuple[jax.Array, jax.Array]:
        """Whether more cards follow, i32[], and the suit i32[] of the card dealt last.

        The last card comes with 0, since the next action is an answer already. Later the suit reads 0.
        """
        last = self.num_cards - 1
        suit = jnp.where(state.time <= last, state.cards[jnp.minimum(state.time, last)], 0)
        return (state.time < last).astype(jnp.int32), suit

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A suit."""
        return gymnax_spaces.Discrete(deck.NUM_SUITS)

    def observation_space(self, params: Any = None) -> gymnax_spaces.Tuple:
        """Whether more cards follow, and a suit."""
        return gymnax_spaces.Tuple((gymnax_spaces.Discrete(2), gymnax_spaces.Discrete(deck.NUM_SUITS)))

    def render_debug(self, state: DealtState, params: RewardParams) -> jax.Array:
        """A picture u8[height, width, 3] of all cards; see `draw_cards`."""
        place = jnp.arange(self.num_cards)
        asked = place == self._asked(state)
        return draw_cards(state.cards, deck.NUM_SUITS, place <= state.time, place == state.time, asked)

    def _asked(self, state: DealtState) -> jax.Array:
        """Place of the card that the next action names; beyond the last one while the agent watches."""
        return 2 * self.num_cards - 2 - state.time
