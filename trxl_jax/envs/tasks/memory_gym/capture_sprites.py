"""Extracts the sprites from the installed Memory Gym and writes them to `sprites.npz`.

    python -m trxl_jax.envs.tasks.memory_gym.capture_sprites

Run it again if Memory Gym's drawing changes. The sprites have the default scales. Only this module imports pygame.
"""

import os
from typing import Any

import numpy as np

from trxl_jax.envs.tasks.memory_gym.sprites import FILE, TRANSPARENT

SCALE = 0.25
LARGEST_RADIUS = 42
"""Largest radius of spotlights in pixels: such a disc is as large as the screen."""


class Palette:
    """Assigns palette indices to colours in order of first use; index 0 is reserved for transparency."""

    def __init__(self) -> None:
        self.indices: dict[tuple[int, ...], int] = {}

    def sprite(self, surface: Any, key: tuple[int, int, int] | None = None) -> np.ndarray:
        """Converts a pygame surface to palette indices u8[width, height].

        Args:
            surface: the surface.
            key: the transparent colour; None if there is none.
        """
        import pygame

        pixels = pygame.surfarray.array3d(surface)
        sprite = np.zeros(pixels.shape[:2], np.uint8)
        for pixel in np.ndindex(*sprite.shape):
            colour = tuple(int(x) for x in pixels[pixel])
            sprite[pixel] = TRANSPARENT if colour == key else self.index(*colour)
        return sprite

    def index(self, *colour: int) -> int:
        """Index of a colour, which is added if it is new."""
        return self.indices.setdefault(colour, len(self.indices) + 1)

    def array(self) -> np.ndarray:
        """The palette as u8[colours, 3]."""
        return np.array([(0, 0, 0), *self.indices], np.uint8)


def check_pygame_rounds() -> None:
    """Checks that pygame's `Rect` rounds floats: Memory Gym's published movement depends on it.

    Raises:
        SystemExit: it truncates floats, as pygame-ce does.
    """
    import pygame

    rect = pygame.Rect(0, 0, 2, 2)
    rect.center = (2.75, 2.75)  # type: ignore[assignment]
    if rect.center != (3, 3):
        raise SystemExit("pygame truncates floats given to Rect.center; install pygame itself, not pygame-ce")


def agent(palette: Palette) -> dict[str, np.ndarray]:
    """`agent`, u8[8, 28, 28]: the agent in 8 rotations of 45 degrees."""
    from memory_gym.character_controller import CharacterController

    surfaces = CharacterController(speed=12 * SCALE, scale=SCALE).character_surfaces
    return {"agent": np.stack([palette.sprite(surface, (0, 0, 255)) for surface in surfaces])}


def mortar_mayhem(palette: Palette) -> dict[str, np.ndarray]:
    """Sprites of Mortar Mayhem.

    Returns:
        mortar_tiles: u8[2, 14, 14], blue and red.
        mortar_commands: u8[9, 31, 31], in the order of command numbers.
        mortar_target: u8[14, 14], marks the target in debug pictures.
    """
    import pygame
    from memory_gym.pygame_assets import Command, MortarTile

    size = 56 * SCALE
    tile = MortarTile(size, SCALE, (0, 0), (0, 0))
    tiles = [palette.sprite(tile.surface)]
    tile.toggle_color(True)
    tiles.append(palette.sprite(tile.surface))

    # Diagonal commands are wider; Memory Gym draws all commands with the same upper left corner.
    drawn = [palette.sprite(Command(name, SCALE).surface, (0, 0, 0)) for name in Command.COMMANDS]
    width = max(len(sprite) for sprite in drawn)
    commands = [np.pad(sprite, ((0, width - len(sprite)), (0, width - sprite.shape[1]))) for sprite in drawn]

    surface = pygame.Surface((size, size))
    pygame.draw.circle(surface, (0, 255, 0), (size // 2, size // 2), size // 2, int(8 * SCALE))
    return {
        "mortar_tiles": np.stack(tiles),
        "mortar_commands": np.stack(commands),
        "mortar_target": palette.sprite(surface, (0, 0, 0)),
    }


def mystery_path(palette: Palette) -> dict[str, np.ndarray]:
    """Sprites of Mystery Path.

    Returns:
        cross: u8[10, 10], drawn when the agent leaves the path.
        path_above: u8[3, 1], the half transparent path of debug pictures over black, over a tile and over a tile's
            border.
    """
    import pygame

    cross = pygame.Surface((40 * SCALE, 40 * SCALE))
    last = 40 * SCALE - 1
    for start, end in (((0, 0), (last, last)), ((last, 0), (0, last))):
        pygame.draw.line(cross, (255, 0, 0), start, end, int(12 * SCALE))
    # Black, a tile and a tile's border.
    colours = [(0, 0, 0), (125, 177, 250), (210, 210, 210)]
    below = pygame.Surface((len(colours), 1))
    for x, colour in enumerate(colours):
        palette.index(*colour)
        below.set_at((x, 0), colour)
    path = pygame.Surface(below.get_size())
    path.fill((255, 255, 255))
    path.set_colorkey((0, 0, 0))
    path.set_alpha(200)
    below.blit(path, (0, 0))
    palette.index(0, 255, 0)
    palette.index(0, 0, 255)
    return {"cross": palette.sprite(cross, (0, 0, 0)), "path_above": palette.sprite(below)}


def searing_spotlights(palette: Palette) -> dict[str, np.ndarray]:
    """Sprites of Searing Spotlights, and tables of circle shapes, which `spotlights_drawing` uses.

    Returns:
        chessboard: u8[2, 84, 84], the floor in blue and, for a hit, in red.
        coin: u8[6, 6], centre at (3, 3).
        exit: u8[2, 10, 10], closed and open, centre at (5, 5).
        disc: u8[R, R], by radius: half the height of a disc in each column to the right of its centre.
        ring: u8[R, 2, R], by radius: the same for the outer and inner edge of a circle's outline.
    """
    import pygame
    from memory_gym.pygame_assets import Coin, Exit, get_tiled_background_surface

    screen = pygame.display.get_surface()
    blue, red = (get_tiled_background_surface(screen, 84, colour, SCALE) for colour in ((0, 0, 255), (255, 0, 0)))
    surface = pygame.Surface((6, 6))
    surface.fill(255)
    Coin(1.5 * SCALE, (3, 3)).draw(surface)
    coin = palette.sprite(surface, (0, 0, 255))
    exits = []
    for is_open in (False, True):
        gate = Exit((5, 5), 2 * SCALE)
        gate.draw(open=False)
        gate.draw(open=is_open)
        exits.append(palette.sprite(gate.surface, (0, 0, 255)))
    for bar_colour in (
        (50, 50, 50),
        (0, 255, 0),
        (255, 0, 0),
        (255, 255, 0),
        (120, 120, 120),
        (116, 1, 113),
        (255, 94, 14),
    ):
        palette.index(*bar_colour)
    return {
        "chessboard": np.stack([palette.sprite(blue), palette.sprite(red)]),
        "coin": coin,
        "exit": np.stack(exits),
        "disc": np.stack([_half_heights(radius, 0)[0] for radius in range(LARGEST_RADIUS + 1)]),
        "ring": np.stack([_half_heights(radius, 1) for radius in range(LARGEST_RADIUS + 1)]),
    }


def _half_heights(radius: int, width: int) -> np.ndarray:
    """Half heights u8[2, R] of a circle's outer and inner edge in each column to the right of its centre.

    One quadrant is enough because pygame's circles are 2 r pixels wide and high and symmetric, which is checked here.
    """
    import pygame

    middle = LARGEST_RADIUS
    surface = pygame.Surface((2 * middle, 2 * middle))
    pygame.draw.circle(surface, (255, 255, 255), (middle, middle), radius, width)
    drawn = pygame.surfarray.array3d(surface)[..., 0] > 0
    if not (drawn == drawn[::-1]).all() or not (drawn == drawn[:, ::-1]).all():
        raise SystemExit(f"the circle of radius {radius} isn't symmetric; a quadrant can't represent it")
    below = drawn[middle:, middle:]
    outer = np.where(below.any(axis=1), middle - below[:, ::-1].argmax(axis=1), 0)
    inner = np.where(below.any(axis=1), below.argmax(axis=1), 0)
    if (below.sum(axis=1) != outer - inner).any():
        raise SystemExit(f"the circle of radius {radius} has gaps")
    return np.stack([outer, inner]).astype(np.uint8)


def main() -> None:
    """Extracts all sprites and writes the file."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    check_pygame_rounds()
    pygame.init()
    pygame.display.set_mode((84, 84))
    palette = Palette()
    palette.index(0, 0, 0)
    palette.index(255, 255, 255)
    sprites = agent(palette) | mortar_mayhem(palette) | mystery_path(palette) | searing_spotlights(palette)
    sprites["palette"] = palette.array()
    np.savez_compressed(FILE, **sprites)  # type: ignore[arg-type]
    print(f"{FILE.name}: {len(sprites) - 1} sprites, {len(palette.indices)} colours, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
