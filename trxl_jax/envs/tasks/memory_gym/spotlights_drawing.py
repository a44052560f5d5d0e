"""Draws Searing Spotlights.

The scene is drawn in layers: floor and hidden objects, a dark layer with holes where the spotlights are, and visible
objects with the bar on top.
"""

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
"""Banks of the palette: plain colours, colours below the dark layer, and colours below the white rim of a spotlight."""


@dataclass(frozen=True)
class DrawingOptions:
    """Options of Memory Gym that affect only the observation.

    Fields:
        black_background: draw a black floor, and spotlights with a white rim.
        hide_chessboard: draw a white floor.
        show_last_action: show the previous action in the bar.
        show_last_positive_reward: show in the bar whether the previous reward was positive.
        grey_bar: background of the bar: grey or black.
        coins_visible: draw coins above the dark layer.
        exit_visible: draw the exit above the dark layer.
        agent_visible: draw the agent above the dark layer.
    """

    black_background: bool = False
    hide_chessboard: bool = False
    show_last_action: bool = True
    show_last_positive_reward: bool = True
    grey_bar: bool = True
    coins_visible: bool = False
    exit_visible: bool = False
    agent_visible: bool = False


@dataclass(frozen=True)
class Scene:
    """What to draw, for one environment. Positions are centres in pixels, x and y.

    Fields:
        agent: i32[2].
        rotation: i32[], 0..7.
        lights: the spotlights.
        hit: bool[], draw the floor red.
        coins: i32[C, 2].
        coins_drawn: bool[C], which coins exist.
        coins_shown: bool[], draw coins above the dark layer in this frame.
        exit: i32[2], or None if there is no exit.
        exit_open: bool[].
        alpha: i32[], opacity of the dark layer, 0..255.
        health_bar: i32[], number of red columns of the bar.
        action: i32[2], action shown in the bar.
        rewarded: bool[], whether the bar shows a positive reward.
        started: bool[], False after a reset, when the bar shows no reward.
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


def draw(scene: Scene, options: DrawingOptions) -> jax.Array:
    """Draws the observation u8[84, 84, 3], indexed [x, y, channel]."""
    # The order of layers depends on what is visible, because Memory Gym inserts visible objects at fixed list indices.
    coins_above, exit_above = options.coins_visible, options.exit_visible
    exit_under_bar = coins_above and exit_above
    agent_under_bar = exit_under_bar and options.agent_visible and scene.exit is not None

    canvas = _floor(scene, options)
    if not coins_above:
        canvas = _draw_coins(canvas, scene, scene.coins_drawn)
    if not exit_above:
        canvas = _draw_exit(canvas, scene)
    if not options.agent_visible:
        canvas = _draw_agent(canvas, scene)
    canvas = canvas + _NUM_COLOURS * _bank(scene.lights, options)
    canvas = _draw_coins(canvas, scene, scene.coins_drawn & (coins_above | scene.coins_shown))
    if exit_under_bar:
        canvas = _draw_exit(canvas, scene)
    if agent_under_bar:
        canvas = _draw_agent(canvas, scene)
    canvas = _draw_bar(canvas, scene, options)
    if exit_above and not exit_under_bar:
        canvas = _draw_exit(canvas, scene)
    if options.agent_visible and not agent_under_bar:
        canvas = _draw_agent(canvas, scene)
    return _to_rgb(canvas, scene.alpha, options)


def draw_debug(scene: Scene, options: DrawingOptions) -> jax.Array:
    """Draws a picture for people, u8[336, 336, 3], rows first, with exit, coins and agent above the dark layer."""
    canvas = _floor(scene, options)
    canvas = canvas + _NUM_COLOURS * _bank(scene.lights, options)
    canvas = _draw_exit(canvas, scene)
    canvas = _draw_coins(canvas, scene, scene.coins_drawn)
    canvas = _draw_agent(canvas, scene)
    canvas = _draw_bar(canvas, scene, options)
    return drawing.scale_up(_to_rgb(canvas, scene.alpha, options))


def _floor(scene: Scene, options: DrawingOptions) -> jax.Array:
    if options.black_background or options.hide_chessboard:
        return jnp.full((SCREEN, SCREEN), _BLACK if options.black_background else _WHITE, jnp.uint8)
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
    """Draws one of several sprites at a centre i32[2], if `drawn`."""
    reach = sprites.shape[1] // 2
    return drawing.draw(canvas, sprites, which, jnp.where(drawn, centre[0] - reach, SCREEN), centre[1] - reach)


def _bank(lights: Spotlights, options: DrawingOptions) -> jax.Array:
    """Palette bank of each pixel, u8[84, 84]."""
    x, y = lights.centre[:, :1], lights.centre[:, 1:]
    column = jnp.arange(SCREEN, dtype=jnp.int32) - x
    # Discs are symmetric: columns left of the centre mirror those to the right.
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
        if options.black_background:
            rim = _span(y[i] - outer[i], 2 * outer[i]) & ~_span(y[i] - inner[i], 2 * inner[i])
            bank = jnp.where(rim, jnp.uint8(_RIM), bank)
    return bank


def _span(first: jax.Array, length: jax.Array) -> jax.Array:
    """Mask bool[84, 84] of, in each column, `length` i32[84] pixels from row `first` i32[84].

    Rows must be in -102..186 and lengths at most 84.
    """
    # A single comparison of bytes is faster than of words. In the ranges above, rows outside don't wrap onto the
    # screen.
    row = jnp.arange(SCREEN, dtype=jnp.uint8)
    return row[None, :] - first.astype(jnp.uint8)[:, None] < length.astype(jnp.uint8)[:, None]


def _draw_bar(canvas: jax.Array, scene: Scene, options: DrawingOptions) -> jax.Array:
    column = jnp.arange(SCREEN)
    bar = jnp.where(column < 2 * _QUARTER, _GREEN, _GREY if options.grey_bar else _BLACK)
    if options.show_last_action:
        shown = jnp.asarray(_ACTIONS)[scene.action]
        bar = jnp.where(column < 2 * _QUARTER, bar, jnp.where(column < 3 * _QUARTER, shown[0], shown[1]))
    bar = jnp.where(column < scene.health_bar, _RED, bar)
    if options.show_last_positive_reward:
        first, width = (57, 10) if options.show_last_action else (2 * _QUARTER, 2 * _QUARTER)
        here = (column >= first) & (column < first + width) & scene.started
        bar = jnp.where(here, jnp.where(scene.rewarded, _YELLOW, _GREY), bar)
    return jnp.where(jnp.arange(SCREEN)[None, :] < BAR_HEIGHT, bar[:, None].astype(jnp.uint8), canvas)


_UNDER_DARK = {_BLACK, _WHITE} | {
    int(index) for sprites in (load()["chessboard"], _AGENT, _EXIT, _COIN) for index in np.unique(sprites)
} - {TRANSPARENT}
_IN_BAR = {_GREEN, _RED, _YELLOW, _GREY, *_ACTIONS.tolist()}


def _to_rgb(canvas: jax.Array, alpha: jax.Array, options: DrawingOptions) -> jax.Array:
    """Converts a canvas in three banks to RGB u8[84, 84, 3]: plain, below black and below white of opacity `alpha`."""
    lit = load()["palette"].astype(np.int32)
    # SDL's blending, which divides by 255 and truncates.
    dark = lit - lit * alpha // 255
    rim = lit + (255 - lit) * alpha // 255
    banks = (_DARK, _RIM) if options.black_background else (_DARK,)
    indices = _UNDER_DARK | _IN_BAR | {bank * _NUM_COLOURS + index for bank in banks for index in _UNDER_DARK}
    return drawing.to_rgb(canvas, indices, jnp.concatenate([jnp.asarray(lit), dark, rim]))
