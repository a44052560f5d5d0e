"""CountRecall: say how often a card has been dealt so far."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment as gymnax_environment
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.popgym import deck
from trxl_jax.envs.tasks.popgym.drawing import draw_cards
from trxl_jax.envs.tasks.popgym.environment import POPGymEnvironment, RewardParams, share
from trxl_jax.envs.tasks.spaces import MultiDiscrete


class CountRecallLayout(NamedTuple):
    """Two shuffles of the same cards, in the order in which they are dealt.

    Fields:
        values: i32[N], the cards to count.
        queries: i32[N], the cards that are asked for.
    """

    values: jax.Array
    queries: jax.Array


@struct.dataclass
class CountRecallState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        layout: the cards.
        counts: i32[kinds], how often each card was dealt, the current one included.
    """

    time: Any
    layout: CountRecallLayout
    counts: jax.Array


class CountRecall(POPGymEnvironment):
    """The task.

    Args:
        num_decks: number of decks, which sets the length of episodes.
        deck_type: what tells cards apart: colors, suits or ranks.
    """

    def __init__(self, num_decks: int = 1, deck_type: str = "colors") -> None:
        super().__init__(num_decks=num_decks, deck_type=deck_type)
        self.num_cards = deck.DECK_SIZE * num_decks
        self.num_kinds = deck.KINDS[deck_type]

    def read_options(self, read: Options) -> dict[str, Any]:
        """See `POPGymEnvironment`."""
        return {"num_decks": deck.read_num_decks(read), "deck_type": deck.read_deck_type(read, *deck.KINDS)}

    @property
    def default_params(self) -> RewardParams:
        """All right answers together are worth 1."""
        return RewardParams(self.num_cards - 1, share(1, self.num_cards - 1))

    def init_layout(self, key: jax.Array, params: RewardParams) -> CountRecallLayout:
        """Shuffles the cards i32[N] twice."""
        num_decks, kind = self.settings["num_decks"], self.settings["deck_type"]
        values_key, queries_key = jax.random.split(key)
        return CountRecallLayout(
            deck.shuffled(values_key, num_decks, kind), deck.shuffled(queries_key, num_decks, kind)
        )

    def reset_from_layout(self, layout: CountRecallLayout, params: RewardParams) -> CountRecallState:
        """The state with cards i32[N], after the first card and question."""
        return CountRecallState(time=jnp.int32(0), layout=layout, counts=self._is_kind(layout.values[0]))

    def transition(
        self, key: jax.Array, state: CountRecallState, action: jax.Array, params: RewardParams
    ) -> tuple[CountRecallState, jax.Array, jax.Array, jax.Array]:
        """See `POPGymEnvironment`; action i32[], a count."""
        right = action == state.counts[state.layout.queries[state.time]]
        reward = jnp.where(right, params.reward, -params.reward).astype(jnp.float32)
        time = state.time + 1
        state = state.replace(time=time, counts=state.counts + self._is_kind(state.layout.values[time]))
        return state, reward, time == self.num_cards - 1, jnp.bool_(False)

    def observation(self, state: CountRecallState) -> jax.Array:
        """The card dealt last and the card asked for, i32[2]."""
        return jnp.stack([state.layout.values[state.time], state.layout.queries[state.time]])

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        """A count, from 0 to the number of equal cards."""
        return gymnax_spaces.Discrete(self.num_cards // self.num_kinds + 1)

    def observation_space(self, params: Any = None) -> MultiDiscrete:
        """The card dealt last and the card asked for."""
        return MultiDiscrete(self.num_kinds, self.num_kinds)

    def render_debug(self, state: CountRecallState, params: RewardParams) -> jax.Array:
        """A picture u8[height, width, 3]: above the cards dealt, the counted ones marked; below those asked for."""
        place = jnp.arange(self.num_cards)
        now, dealt = place == state.time, place <= state.time
        values, queries = state.layout
        counted = dealt & (values == queries[state.time])
        above = draw_cards(values, self.num_kinds, dealt, now & ~counted, counted)
        below = draw_cards(queries, self.num_kinds, dealt, now, jnp.zeros_like(now))
        return jnp.concatenate([above, jnp.zeros_like(above[:12]), below])

    def _is_kind(self, card: jax.Array) -> jax.Array:
        """1 at the card's own place, i32[kinds]."""
        return (jnp.arange(self.num_kinds) == card).astype(jnp.int32)
