"""Pictures of cards and boards for people: coloured squares, some of which are marked."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

SIDE = 24
"""Pixels along a square."""

BLACK, GREY, WHITE, RED, GREEN, BLUE = (
    (0, 0, 0),
    (90, 90, 90),
    (255, 255, 255),
    (220, 60, 50),
    (60, 180, 75),
    (70, 110, 230),
)

_ACROSS = np.arange(SIDE)
_INSIDE = (_ACROSS >= 1) & (_ACROSS < SIDE - 1)
_CENTRE = (_ACROSS >= 8) & (_ACROSS < SIDE - 8)


def palette(size: int) -> np.ndarray:
    """Colours u8[size, 3] whose hues differ by equal steps."""
    return np.array([np.multiply(colorsys.hsv_to_rgb(i / size, 0.8, 0.95), 255) for i in range(size)], np.uint8)


def paint(squares: jax.Array, where: ArrayLike, colour: tuple[int, int, int]) -> jax.Array:
    """Squares u8[..., 3] with another colour where bool[...] is true."""
    return jnp.where(jnp.asarray(where)[..., None], jnp.array(colour, jnp.uint8), squares)


def draw_board(squares: jax.Array, marks: jax.Array | None = None) -> jax.Array:
    """A picture u8[SIDE * rows, SIDE * columns, 3].

    Args:
        squares: u8[rows, columns, 3], their colours.
        marks: u8[rows, columns, 3], colours of their centres; None: without marks.
    """

    def enlarged(colours: jax.Array) -> jax.Array:
        return jnp.repeat(jnp.repeat(colours, SIDE, axis=0), SIDE, axis=1)

    def pattern(line: np.ndarray) -> jax.Array:
        return jnp.tile(jnp.asarray(line[:, None] & line), squares.shape[:2])[..., None]

    picture = jnp.where(pattern(_INSIDE), enlarged(squares), jnp.uint8(0))
    return picture if marks is None else jnp.where(pattern(_CENTRE), enlarged(marks), picture)


def draw_cards(cards: jax.Array, num_kinds: int, dealt: ArrayLike, now: ArrayLike, asked: ArrayLike) -> jax.Array:
    """A picture u8[height, width, 3] of cards in the order in which they are dealt, in rows of 13 or 26.

    Args:
        cards: i32[N], what they show.
        num_kinds: number of different cards.
        dealt: bool[N]; others are darker.
        now: bool[N], the cards that the agent sees, which have a white centre.
        asked: bool[N], the cards that it is asked for, which have a black centre.
    """
    colours = jnp.asarray(palette(num_kinds))[cards]
    squares = jnp.where(jnp.asarray(dealt)[:, None], colours, colours // 3)
    marks = paint(paint(squares, asked, BLACK), now, WHITE)
    shape = (-1, 13 if len(cards) <= 208 else 26, 3)
    return draw_board(squares.reshape(shape), marks.reshape(shape))
