"""The pictures that the tasks are drawn from, as `capture_sprites` took them from Memory Gym.

A sprite is an array of places in one palette, x first as in Memory Gym's observations; 0 is transparent.
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
    """Every sprite by name, u8[..., width, height], and `palette` u8[colours, 3], whose first row means nothing."""
    with np.load(FILE) as file:
        sprites = dict(file)
    for sprite in sprites.values():
        sprite.flags.writeable = False
    return sprites


def colour(red: int, green: int, blue: int) -> int:
    """Place of a colour in the palette.

    Raises:
        ValueError: it isn't there.
    """
    (places,) = np.nonzero((load()["palette"] == (red, green, blue)).all(axis=1))
    places = places[places != TRANSPARENT]
    if not places.size:
        raise ValueError(f"({red}, {green}, {blue}) isn't in the palette; run capture_sprites")
    return int(places[0])
