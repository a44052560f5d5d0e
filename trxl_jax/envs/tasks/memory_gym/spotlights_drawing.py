"""Pictures of Searing Spotlights: what lies under the dark, the dark with its holes, and what lies above it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym import drawing
from trxl_jax.envs.tasks.memory_gym.spotlights import Spotlights
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN, TRANSPARENT, colour, load

BAR_HEIGHT = 4
_QUARTER = SCREEN // 4

_BLACK, _WHITE = colour(0, 0, 0), colour(255, 255, 255)
_GREEN, _RED, _YELLOW, _GREY = colour(0, 255, 0), colour(255, 0, 0), colour(255, 255, 0), colour(50, 50, 50)
_ACTIONS = np.array([colour(120, 120, 120), colour(116, 1, 113), colour(255, 94, 14)], np.uint8)
_NUM_COLOURS = len(load()["palette"])
_LIT, _DARK, _RIM = 0, 1, 2
"""Banks of the palette: colours as they are, under the dark, and under the white rim of a light."""


@dataclass(frozen=True)
class Look:
    """What Memory Gym's options say of the picture.

    Fields:
        black_background: no floor, and lights have a rim.
        hide_chessboard: a white floor.
        show_last_action: in the bar.
        show_last_positive_reward: in the bar.
        bar_is_grey: what the bar shows where it shows nothing: grey, or black.
        coins_visible: above the dark.
        exit_visible: above the dark.
        agent_visible: above the dark.
    """

    black_background: bool = False
    hide_chessboard: bool = False
    show_last_action: bool = True
    show_last_positive_reward: bool = True
    bar_is_grey: bool = True
    coins_visible: bool = False
    exit_visible: bool = False
    agent_visible: bool = False


@dataclass(frozen=True)
class Scene:
    """What is to be drawn, in arrays of one environment.

    Fields:
        agent: i32[2].
        rotation: i32[], of 8.
        lights: those in the frame.
        hit: bool[], whether the floor is red.
        coins: i32[C, 2].
        coins_drawn: bool[C].
        coins_shown: bool[], whether the coins are above the dark for now.
        exit: i32[2], or None where there is none.
        exit_open: bool[].
        alpha: i32[], opacity of the dark in 0..255.
        health_bar: i32[], columns of the bar that are red.
        action: i32[2], shown in the bar.
        rewarded: bool[], shown in the bar.
        started: bool[], whether a step was made; before it the bar shows no reward.
    """

    agent: jax.Array
    rotation: jax.Array
    lights: Spotlights
    hit: jax.Array
    coins: jax.Array
    coins_drawn: jax.Array
    coins_shown: jax.Array
    exit: jax.Array | None
    exit_open: jax.Array
    alpha: jax.Array
    health_bar: jax.Array
    action: jax.Array
    rewarded: jax.Array
    started: jax.Array


def draw(scene: Scene, look: Look) -> jax.Array:
    """What the agent sees, u8[84, 84, 3], x first."""
    # Memory Gym inserts the visible things into its list of layers at places that the hidden ones have moved.
    coins_above, exit_above = look.coins_visible, look.exit_visible
    exit_under_bar = coins_above and exit_above
    agent_under_bar = exit_under_bar and look.agent_visible and scene.exit is not None

    canvas = _floor(scene, look)
    if not coins_above:
        canvas = _draw_coins(canvas, scene, scene.coins_drawn)
    if not exit_above:
        canvas = _draw_exit(canvas, scene)
    if not look.agent_visible:
        canvas = _draw_agent(canvas, scene)
    canvas = canvas + _NUM_COLOURS * _bank(scene.lights, look)
    canvas = _draw_coins(canvas, scene, scene.coins_drawn & (coins_above | scene.coins_shown))
    if exit_under_bar:
        canvas = _draw_exit(canvas, scene)
    if agent_under_bar:
        canvas = _draw_agent(canvas, scene)
    canvas = _draw_bar(canvas, scene, look)
    if exit_above and not exit_under_bar:
        canvas = _draw_exit(canvas, scene)
    if look.agent_visible and not agent_under_bar:
        canvas = _draw_agent(canvas, scene)
    return _in_colours(canvas, scene.alpha, look)


def draw_debug(scene: Scene, look: Look) -> jax.Array:
    """What a person sees, u8[336, 336, 3], rows first: exit, coins and agent above the dark."""
    canvas = _floor(scene, look)
    canvas = canvas + _NUM_COLOURS * _bank(scene.lights, look)
    canvas = _draw_exit(canvas, scene)
    canvas = _draw_coins(canvas, scene, scene.coins_drawn)
    canvas = _draw_agent(canvas, scene)
    canvas = _draw_bar(canvas, scene, look)
    return drawing.enlarged(_in_colours(canvas, scene.alpha, look))


def _floor(scene: Scene, look: Look) -> jax.Array:
    if look.black_background or look.hide_chessboard:
        return jnp.full((SCREEN, SCREEN), _BLACK if look.black_background else _WHITE, jnp.uint8)
    blue, red = load()["chessboard"]
    return jnp.where(scene.hit, red, blue)


def _draw_coins(canvas: jax.Array, scene: Scene, drawn: jax.Array) -> jax.Array:
    for i in range(scene.coins.shape[0]):
        canvas = _draw(canvas, _COIN, 0, scene.coins[i], drawn[i])
    return canvas


def _draw_exit(canvas: jax.Array, scene: Scene) -> jax.Array:
    return canvas if scene.exit is None else _draw(canvas, _EXIT, scene.exit_open.astype(jnp.int32), scene.exit)


def _draw_agent(canvas: jax.Array, scene: Scene) -> jax.Array:
    return _draw(canvas, _AGENT, scene.rotation, scene.agent)


_AGENT, _EXIT, _COIN = load()["agent"], load()["exit"], load()["coin"][None]


def _draw(
    canvas: jax.Array, sprites: np.ndarray, which: ArrayLike, centre: jax.Array, drawn: ArrayLike = True
) -> jax.Array:
    """Draws one of several sprites around its centre, or off the screen."""
    reach = sprites.shape[1] // 2
    return drawing.draw(canvas, sprites, which, jnp.where(drawn, centre[0] - reach, SCREEN), centre[1] - reach)


def _bank(lights: Spotlights, look: Look) -> jax.Array:
    """Which bank of the palette each pixel is shown in, u8[84, 84]."""
    x, y = lights.centre[:, :1], lights.centre[:, 1:]
    column = jnp.arange(SCREEN, dtype=jnp.int32) - x
    # Left of the centre the same columns come again, from the centre outwards.
    column = jnp.where(column < 0, -1 - column, column)
    radius = lights.radius[:, None]

    def half(heights: np.ndarray) -> jax.Array:
        widest = heights.shape[1]
        drawn = lights.drawn[:, None] & (column < widest)
        return jnp.where(drawn, jnp.asarray(heights)[radius, jnp.minimum(column, widest - 1)], 0).astype(jnp.int32)

    disc = half(load()["disc"])
    outer, inner = (half(load()["ring"][:, i]) for i in range(2))
    bank = jnp.full((SCREEN, SCREEN), _DARK, jnp.uint8)
    for i in range(lights.radius.shape[0]):
        bank = jnp.where(_span(y[i] - disc[i], 2 * disc[i]), jnp.uint8(_LIT), bank)
        if look.black_background:
            rim = _span(y[i] - outer[i], 2 * outer[i]) & ~_span(y[i] - inner[i], 2 * inner[i])
            bank = jnp.where(rim, jnp.uint8(_RIM), bank)
    return bank


def _span(first: jax.Array, length: jax.Array) -> jax.Array:
    """In each column the pixels from row `first` i32[84] on, `length` i32[84] many, bool[84, 84].

    Rows are in -102..186 and lengths at most 84.
    """
    # One comparison in bytes, four times as many at once as in words; rows off the screen don't wrap back onto it.
    row = jnp.arange(SCREEN, dtype=jnp.uint8)
    return row[None, :] - first.astype(jnp.uint8)[:, None] < length.astype(jnp.uint8)[:, None]


def _draw_bar(canvas: jax.Array, scene: Scene, look: Look) -> jax.Array:
    column = jnp.arange(SCREEN)
    bar = jnp.where(column < 2 * _QUARTER, _GREEN, _GREY if look.bar_is_grey else _BLACK)
    if look.show_last_action:
        shown = jnp.asarray(_ACTIONS)[scene.action]
        bar = jnp.where(column < 2 * _QUARTER, bar, jnp.where(column < 3 * _QUARTER, shown[0], shown[1]))
    bar = jnp.where(column < scene.health_bar, _RED, bar)
    if look.show_last_positive_reward:
        first, width = (57, 10) if look.show_last_action else (2 * _QUARTER, 2 * _QUARTER)
        here = (column >= first) & (column < first + width) & scene.started
        bar = jnp.where(here, jnp.where(scene.rewarded, _YELLOW, _GREY), bar)
    return jnp.where(jnp.arange(SCREEN)[None, :] < BAR_HEIGHT, bar[:, None].astype(jnp.uint8), canvas)


_UNDER_DARK = {_BLACK, _WHITE} | {
    int(place) for sprites in (load()["chessboard"], _AGENT, _EXIT, _COIN) for place in np.unique(sprites)
} - {TRANSPARENT}
_IN_BAR = {_GREEN, _RED, _YELLOW, _GREY, *_ACTIONS.tolist()}


def _in_colours(canvas: jax.Array, alpha: jax.Array, look: Look) -> jax.Array:
    """The frame u8[84, 84, 3] of a canvas in three banks: lit, under black of this opacity, under white of it."""
    lit = load()["palette"].astype(np.int32)
    # SDL's blend, whose division is by 255 and towards zero.
    dark = lit - lit * alpha // 255
    rim = lit + (255 - lit) * alpha // 255
    banks = (_DARK, _RIM) if look.black_background else (_DARK,)
    places = _UNDER_DARK | _IN_BAR | {bank * _NUM_COLOURS + place for bank in banks for place in _UNDER_DARK}
    return drawing.in_colours(canvas, places, jnp.concatenate([jnp.asarray(lit), dark, rim]))
