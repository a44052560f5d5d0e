"""POPGym's cards: 52 a deck, numbered 0..51 from ace to king, in each rank spade, diamond, club, heart."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from trxl_jax.envs.tasks.options import Options

DECK_SIZE = 52
NUM_COLOURS, NUM_SUITS, NUM_RANKS = 2, 4, 13

KINDS: Mapping[str, int] = {"colors": NUM_COLOURS, "suits": NUM_SUITS, "ranks": NUM_RANKS}
"""Number of different cards, by the released package's names of what tells them apart."""

MAX_DECKS = 16


def shuffled(key: jax.Array, num_decks: int, kind: str) -> jax.Array:
    """Shuffled decks: what the cards show, i32[52 * num_decks], in the order in which they are dealt.

    Args:
        key: random key.
        num_decks: number of decks.
        kind: one of `KINDS`.
    """
    return shows(jax.random.permutation(key, DECK_SIZE * num_decks).astype(jnp.int32), kind)


def shows(card: jax.Array, kind: str) -> jax.Array:
    """What cards show: their colour, suit or rank i32[...], counted from 0, from their numbers i32[...]."""
    return card // NUM_SUITS % NUM_RANKS if kind == "ranks" else card % KINDS[kind]


def read_num_decks(read: Options) -> int:
    """The option `num_decks`.

    Raises:
        ConfigError: it is not a whole number from 1 to `MAX_DECKS`.
    """
    return read.integer("num_decks", 1, MAX_DECKS)


def read_deck_type(read: Options, *allowed: str) -> str:
    """The option `deck_type`.

    Raises:
        ConfigError: it is not among those allowed.
    """
    return read.choice("deck_type", *allowed)
