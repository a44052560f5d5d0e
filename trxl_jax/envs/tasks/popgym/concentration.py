"""Concentration: turn two cards at a time until all pairs are found."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment as gymnax_environment
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.popgym import deck
from trxl_jax.envs.tasks.popgym.drawing import BLACK, GREY, draw_board, paint, palette
from trxl_jax.envs.tasks.popgym.environment import POPGymEnvironment, share
from trxl_jax.envs.tasks.spaces import MultiDiscrete


@struct.dataclass
class ConcentrationState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        cards: i32[N], what the card at each place shows.
        found: bool[N], places of the pairs that were found, which stay face up.
        turned: i32[2], places of the cards turned in the current try, or in the last one if it has ended; -1: none.
        trying: bool[], whether the current try waits for its second card.
    """

    time: Any
    cards: jax.Array
    found: jax.Array
    turned: jax.Array
    trying: jax.Array


@struct.dataclass
class ConcentrationParams(gymnax_environment.EnvParams):
    """Parameters of the task.

    Fields:
        max_steps_in_episode: steps after which an episode is truncated.
        pair_reward: of a pair.
        failure_reward: of each card turned in a try that finds no pair.
    """

    max_steps_in_episode: int = 1
    pair_reward: float = 1.0
    failure_reward: float = -1.0


class Concentration(POPGymEnvironment):
    """The task.

    A try ends with its second card, or at once with one that was found before. Turning a card twice finds no pair. The
    cards of a try can be seen until the next one.

    Args:
        num_decks: number of decks on the table.
        deck_type: what makes a pair: colors or ranks.
    """

    def __init__(self, num_decks: int = 1, deck_type: str = "ranks") -> None:
        super().__init__(num_decks=num_decks, deck_type=deck_type)
        self.num_cards = deck.DECK_SIZE * num_decks
        self.num_kinds = deck.KINDS[deck_type]

    def read_options(self, read: Options) -> dict[str, Any]:
        """See `POPGymEnvironment`."""
        return {"num_decks": deck.read_num_decks(read), "deck_type": deck.read_deck_type(read, "colors", "ranks")}

    @property
    def default_params(self) -> ConcentrationParams:
        """Two steps for each card; all pairs together are worth 1, an episode of failures -1."""
        num_steps = 2 * self.num_cards
        return ConcentrationParams(num_steps, share(1, self.num_cards // 2), share(-1, num_steps))

    def init_layout(self, key: jax.Array, params: ConcentrationParams) -> jax.Array:
        """What the cards show, i32[N]."""
        return deck.shuffled(key, self.settings["num_decks"], self.settings["deck_type"])

    def reset_from_layout(self, layout: jax.Array, params: ConcentrationParams) -> ConcentrationState:
        """The state with cards i32[N], all face down."""
        return ConcentrationState(
            time=jnp.int32(0),
            cards=layout,
            found=jnp.zeros(self.num_cards, bool),
            turned=jnp.full(2, -1, jnp.int32),
            trying=jnp.bool_(False),
        )

    def transition(
        self, key: jax.Array, state: ConcentrationState, action: jax.Array, params: ConcentrationParams
    ) -> tuple[ConcentrationState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[], the place of a card."""
        action = action.astype(jnp.int32)
        first, second = state.turned[0], state.trying
        found_before = state.found[action]
        pair = second & ~found_before & (state.cards[first] == state.cards[action]) & (first != action)
        failed = ~pair & (found_before | second)
        cost = params.failure_reward * jnp.where(second, 2, 1)
        reward = jnp.where(pair, params.pair_reward, jnp.where(failed, cost, 0)).astype(jnp.float32)
        turned = jnp.where(second, jnp.stack([first, action]), jnp.stack([action, -1]))
        state = state.replace(
            time=state.time + 1,
            found=state.found | (pair & self._is_at(turned)),
            turned=turned.astype(jnp.int32),
            trying=~second & ~found_before,
        )
        return state, reward, state.found.all(), state.time >= params.max_steps_in_episode

    def observation(self, state: ConcentrationState) -> jax.Array:
        """What each card shows, i32[N]; the number of kinds for those that are face down."""
        return jnp.where(state.found | self._is_at(state.turned), state.cards, self.num_kinds)

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """The place of a card."""
        return gymnax_spaces.Discrete(self.num_cards)

    def observation_space(self, params: Any = None) -> MultiDiscrete:
        """What each card shows."""
        return MultiDiscrete(*[self.num_kinds + 1] * self.num_cards)

    def render_debug(self, state: ConcentrationState, params: ConcentrationParams) -> jax.Array:
        """A picture u8[height, width, 3]: cards face up in full colour, others grey with a centre of their colour."""
        colours = jnp.asarray(palette(self.num_kinds))[state.cards]
        turned = self._is_at(state.turned)
        squares = paint(colours, ~(state.found | turned), GREY)
        marks = paint(colours, turned, BLACK)
        return draw_board(squares.reshape(-1, 13, 3), marks.reshape(-1, 13, 3))

    def _is_at(self, places: jax.Array) -> jax.Array:
        """bool[N]: true at two places i32[2]."""
        return (jnp.arange(self.num_cards)[:, None] == places).any(axis=1)
