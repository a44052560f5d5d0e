"""HigherLower: guess whether the next card's rank is higher or lower than the current one's."""

from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.popgym import deck
from trxl_jax.envs.tasks.popgym.dealing import DealingTask, DealtState
from trxl_jax.envs.tasks.popgym.drawing import draw_cards
from trxl_jax.envs.tasks.popgym.environment import RewardParams, share


class HigherLower(DealingTask):
    """The task.

    Args:
        num_decks: number of decks, which sets the length of episodes.
    """

    kind = "ranks"

    @property
    def default_params(self) -> RewardParams:
        """A guess is worth 1/N, although an episode has N - 1 of them; an equal rank is worth 0."""
        return RewardParams(self.num_cards - 1, share(1, self.num_cards))

    def transition(
        self, key: jax.Array, state: DealtState, action: jax.Array, params: RewardParams
    ) -> tuple[DealtState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[], 0 for higher and 1 for lower."""
        change = state.cards[state.time + 1] - state.cards[state.time]
        right = (change > 0) == (action == 0)
        reward = jnp.where(change == 0, 0, jnp.where(right, params.reward, -params.reward)).astype(jnp.float32)
        state = state.replace(time=state.time + 1)
        return state, reward, state.time == self.num_cards - 1, jnp.bool_(False)

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """0 higher, 1 lower."""
        return gymnax_spaces.Discrete(2)

    def observation_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A rank."""
        return gymnax_spaces.Discrete(deck.NUM_RANKS)

    def render_debug(self, state: DealtState, params: RewardParams) -> jax.Array:
        """A picture u8[height, width, 3] of all cards, the next one marked; see `draw_cards`."""
        place = jnp.arange(self.num_cards)
        return draw_cards(
            state.cards, deck.NUM_RANKS, place <= state.time, place == state.time, place == state.time + 1
        )
