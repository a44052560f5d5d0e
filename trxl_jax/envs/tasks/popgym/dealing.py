"""What the tasks share that deal all cards of some decks, one a step."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment as gymnax_environment

from trxl_jax.envs.tasks.options import Options
from trxl_jax.envs.tasks.popgym import deck
from trxl_jax.envs.tasks.popgym.environment import POPGymEnvironment


@struct.dataclass
class DealtState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        cards: i32[N], the suits or ranks of all cards, in the order in which they are dealt.
    """

    time: Any
    cards: jax.Array


class DealingTask(POPGymEnvironment):
    """Base class of such a task.

    Args:
        num_decks: number of decks, which sets the length of episodes.
        settings: further arguments of the task's constructor.

    Fields:
        kind: what tells the cards apart, one of `deck.KINDS`.
        num_cards: N.
    """

    kind: ClassVar[str] = "suits"

    def __init__(self, num_decks: int = 1, **settings: Any) -> None:
        super().__init__(num_decks=num_decks, **settings)
        self.num_cards = deck.DECK_SIZE * num_decks

    def read_options(self, read: Options) -> dict[str, Any]:
        """See `POPGymEnvironment`."""
        return {"num_decks": deck.read_num_decks(read)}

    def init_layout(self, key: jax.Array, params: Any) -> jax.Array:
        """Suits or ranks i32[N] of the shuffled cards."""
        return deck.shuffled(key, self.settings["num_decks"], self.kind)

    def reset_from_layout(self, layout: jax.Array, params: Any) -> DealtState:
        """The state with suits or ranks i32[N], after the first card was dealt."""
        return DealtState(time=jnp.int32(0), cards=layout)

    def observation(self, state: DealtState) -> Any:
        """The suit or rank i32[] of the card that was dealt last."""
        return state.cards[state.time]
