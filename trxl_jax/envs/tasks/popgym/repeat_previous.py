"""RepeatPrevious: name the suit of the card that was shown k - 1 steps before the current one."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.popgym import deck
from trxl_jax.envs.tasks.popgym.dealing import DealingTask, DealtState
from trxl_jax.envs.tasks.popgym.drawing import draw_cards
from trxl_jax.envs.tasks.popgym.environment import RewardParams, share


@struct.dataclass
class RepeatPreviousParams(RewardParams):
    """Parameters of the task.

    Fields:
        k: which of the cards seen is asked for: 1 the current one, 2 the one before. There is no question, and no
            reward, before k cards were seen.
    """

    k: int = 1


class RepeatPrevious(DealingTask):
    """The task.

    Args:
        num_decks: number of decks, which sets the length of episodes.
        k: see `RepeatPreviousParams`.
    """

    def __init__(self, num_decks: int = 1, k: int = 4) -> None:
        super().__init__(num_decks, k=k)

    def read_options(self, read: Options) -> dict[str, Any]:
        """See `POPGymEnvironment`."""
        num_decks = deck.read_num_decks(read)
        return {"num_decks": num_decks, "k": read.integer("k", 1, deck.DECK_SIZE * num_decks - 1)}

    @property
    def default_params(self) -> RepeatPreviousParams:
        """The settings; all right answers together are worth 1."""
        k = self.settings["k"]
        return RepeatPreviousParams(self.num_cards - 1, share(1, self.num_cards - k), k)

    def transition(
        self, key: jax.Array, state: DealtState, action: jax.Array, params: RepeatPreviousParams
    ) -> tuple[DealtState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[], a suit."""
        asked = state.time + 1 - params.k
        right = action == state.cards[asked]
        reward = jnp.where(asked < 0, 0, jnp.where(right, params.reward, -params.reward)).astype(jnp.float32)
        state = state.replace(time=state.time + 1)
        return state, reward, state.time == self.num_cards - 1, jnp.bool_(False)

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A suit."""
        return gymnax_spaces.Discrete(deck.NUM_SUITS)

    def observation_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A suit."""
        return gymnax_spaces.Discrete(deck.NUM_SUITS)

    def render_debug(self, state: DealtState, params: RepeatPreviousParams) -> jax.Array:
        """A picture u8[height, width, 3] of all cards; see `draw_cards`."""
        place = jnp.arange(self.num_cards)
        asked = place == state.time + 1 - params.k
        return draw_cards(state.cards, deck.NUM_SUITS, place <= state.time, place == state.time, asked)
