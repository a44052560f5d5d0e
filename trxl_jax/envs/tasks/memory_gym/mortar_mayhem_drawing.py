"""Draws Mortar Mayhem, for one environment."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.memory_gym import drawing
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN, colour, load

TILE = 14
"""Width and height of a tile in pixels."""

COMMAND_CORNER = 31
"""Column and row of the upper left corner of all commands. Diagonal ones are wider and therefore off centre."""


def origin(arena_size: int) -> int:
    """Column and row of the arena's upper left corner."""
    return SCREEN // 2 - arena_size * TILE // 2


@cache
def arenas(arena_size: int) -> np.ndarray:
    """The empty arena with blue and with red tiles, u8[2, 84, 84]."""
    corner, width = origin(arena_size), arena_size * TILE
    drawn = np.full((2, SCREEN, SCREEN), colour(0, 0, 0), np.uint8)
    drawn[:, corner : corner + width, corner : corner + width] = np.tile(
        load()["mortar_tiles"], (1, arena_size, arena_size)
    )
    return drawn


@cache
def commands() -> np.ndarray:
    """Bit masks u32[84, 84]: bit k of a pixel is set if command k covers it, so that a shift selects a command."""
    covered = np.zeros((SCREEN, SCREEN), np.uint32)
    for bit, sprite in enumerate(load()["mortar_commands"]):
        pixels = drawing.sprite_canvas(sprite, COMMAND_CORNER, COMMAND_CORNER) > 0
        covered |= pixels.astype(np.uint32) << np.uint32(bit)
    return covered


def canvas(
    arena_size: int,
    red: ArrayLike,
    target: jax.Array,
    agent: jax.Array,
    rotation: ArrayLike,
    command: ArrayLike,
) -> jax.Array:
    """Draws a frame.

    Args:
        arena_size: tiles along one side of the arena.
        red: bool[], whether all tiles but the target are red.
        target: i32[2], column and row of the target tile.
        agent: i32[2], centre of the agent in pixels.
        rotation: i32[], rotation of the agent in multiples of 45 degrees.
        command: i32[], the command shown on top; 9 for none.

    Returns:
        Palette indices u8[84, 84].
    """
    blue_arena, red_arena = arenas(arena_size)
    tile = (np.arange(SCREEN) - origin(arena_size)) // TILE
    is_target = (tile == target[0])[:, None] & (tile == target[1])[None, :]
    frame = jnp.where(jnp.asarray(red) & ~is_target, red_arena, blue_arena)
    agents = load()["agent"]
    frame = drawing.draw(frame, agents, rotation, *(agent - agents.shape[-1] // 2))
    shown = (commands() >> jnp.asarray(command, jnp.uint32)) & 1
    return jnp.where(shown == 1, colour(255, 255, 255), frame).astype(jnp.uint8)


def picture(frame: jax.Array) -> jax.Array:
    """Converts a canvas u8[84, 84] to the observation u8[84, 84, 3]."""
    sprites = (load()[name] for name in ("mortar_tiles", "mortar_commands", "agent"))
    return drawing.to_rgb(frame, np.unique(np.concatenate([sprite.ravel() for sprite in sprites])).tolist())


def debug_picture(frame: jax.Array, arena_size: int, target: jax.Array) -> jax.Array:
    """Converts a canvas u8[84, 84] to a picture with marked target, u8[336, 336, 3], rows first; see `canvas`."""
    marked = drawing.draw(frame, load()["mortar_target"][None], 0, *(origin(arena_size) + TILE * target))
    return drawing.debug_frame(marked)
