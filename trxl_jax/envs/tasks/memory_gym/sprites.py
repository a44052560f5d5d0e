"""Loads the sprites, which `capture_sprites` has extracted from Memory Gym.

A sprite is an array of palette indices, indexed [x, y] like Memory Gym's observations; 0 is transparent.
"""

from functools import cache
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("sprites.npz")
SCREEN = 84
"""Width and height of a frame in pixels."""

TRANSPARENT = 0


@cache
def load() -> dict[str, np.ndarray]:
    """All sprites by name, u8[..., width, height], and `palette`, u8[colours, 3]; row 0 (transparent) is unused."""
    with np.load(FILE) as file:
        sprites = dict(file)
    for sprite in sprites.values():
        sprite.flags.writeable = False
    return sprites


def colour(red: int, green: int, blue: int) -> int:
    """Palette index of a colour.

    Raises:
        ValueError: the colour isn't in the palette.
    """
    (indices,) = np.nonzero((load()["palette"] == (red, green, blue)).all(axis=1))
    indices = indices[indices != TRANSPARENT]
    if not indices.size:
        raise ValueError(f"({red}, {green}, {blue}) isn't in the palette; run capture_sprites")
    return int(indices[0])
