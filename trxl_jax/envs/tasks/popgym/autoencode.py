"""Autoencode: watch all cards, then name their suits in reverse order."""

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
class AutoencodeState(gymnax_environment.EnvState):
    """State of one episode of 2N - 1 steps.

    Fields:
        time: i32[], steps so far. In the first N - 1 the agent watches, and its actions don't matter.
        suits: i32[N], of all cards, in the order in which they are dealt.
    """

    time: Any
    suits: jax.Array


class Autoencode(POPGymEnvironment):
    """The task.

    Args:
        num_decks: number of decks to remember.
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
        return RewardParams(2 * self.num_cards - 1, share(1, self.num_cards))

    def init_layout(self, key: jax.Array, params: RewardParams) -> jax.Array:
        """Suits i32[N] of the shuffled cards."""
        return deck.shuffled(key, self.settings["num_decks"], "suits")

    def reset_from_layout(self, layout: jax.Array, params: RewardParams) -> AutoencodeState:
        """The state with suits i32[N], after the first card was dealt."""
        return AutoencodeState(time=jnp.int32(0), suits=layout)

    def transition(
        self, key: jax.Array, state: AutoencodeState, action: jax.Array, params: RewardParams
    ) -> tuple[AutoencodeState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[], a suit."""
        asked = self._asked(state)
        right = action == state.suits[asked]
        watches = asked >= self.num_cards
        reward = jnp.where(watches, 0, jnp.where(right, params.reward, -params.reward)).astype(jnp.float32)
        state = state.replace(time=state.time + 1)
        return state, reward, state.time == 2 * self.num_cards - 1, jnp.bool_(False)

    def observation(self, state: AutoencodeState) -> tuple[jax.Array, jax.Array]:
        """Whether more cards follow, i32[], and the suit i32[] of the card dealt last.

        The last card comes with 0, since the next action is an answer already. Later the suit reads 0.
        """
        last = self.num_cards - 1
        suit = jnp.where(state.time <= last, state.suits[jnp.minimum(state.time, last)], 0)
        return (state.time < last).astype(jnp.int32), suit

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A suit."""
        return gymnax_spaces.Discrete(deck.NUM_SUITS)

    def observation_space(self, params: Any = None) -> gymnax_spaces.Tuple:
        """Whether more cards follow, and a suit."""
        return gymnax_spaces.Tuple((gymnax_spaces.Discrete(2), gymnax_spaces.Discrete(deck.NUM_SUITS)))

    def render_debug(self, state: AutoencodeState, params: RewardParams) -> jax.Array:
        """A picture u8[height, width, 3] of all cards; see `draw_cards`."""
        place = jnp.arange(self.num_cards)
        asked = place == self._asked(state)
        return draw_cards(state.suits, deck.NUM_SUITS, place <= state.time, place == state.time, asked)

    def _asked(self, state: AutoencodeState) -> jax.Array:
        """Place of the card that the next action names; beyond the last one while the agent watches."""
        return 2 * self.num_cards - 2 - state.time
