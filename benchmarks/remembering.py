"""Draws an agent that remembers, as a GIF: the corridor of Proof of Memory, and what each layer attends to.

python benchmarks/remembering.py [--agent RUN] [--seed 4] [--out docs/images/remembering.gif]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parent.parent))

from trxl_jax.envs.tasks.proof_of_memory.host import NUM_SHOW_STEPS
from trxl_jax.loading import load
from trxl_jax.play.episode import make_record, play_episode
from trxl_jax.play.record import EpisodeRecord
from trxl_jax.play.single_env import make_single_env

WIDTH, HEIGHT = 720, 430
BACKGROUND, BORDER, INK, SOFT = (255, 255, 255), (213, 217, 224), (29, 36, 48), (90, 100, 117)
GOOD, BAD, AGENT, HIDDEN = (40, 160, 60), (200, 50, 50), (40, 80, 220), (200, 200, 200)
NO_WEIGHT, FULL_WEIGHT = np.array((238, 240, 244)), np.array((214, 120, 0))
LEFT, CELL, ROW = 110, 54, 30
MILLISECONDS, LAST = 1100, 3500


def text(draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, size: int = 15, fill: tuple = INK) -> None:
    """Writes a line whose left end and middle are at a point."""
    draw.text(at, words, fill=fill, font=ImageFont.load_default(size), anchor="lm")


def thumbnail(draw: ImageDraw.ImageDraw, x: int, y: int, observation: np.ndarray) -> None:
    """What the agent saw in a step, f32[3]: both goals, and the position between them."""
    left, position, right = observation
    for goal, start in ((left, x), (right, x + CELL - 16)):
        draw.rectangle((start, y, start + 11, y + 22), fill=HIDDEN if goal == 0 else GOOD if goal > 0 else BAD)
        if goal:
            text(draw, (start + 2, y + 10), "+" if goal > 0 else "-", 13, BACKGROUND)
    middle = x + CELL / 2 - 3 + position * 9
    draw.ellipse((middle - 4, y + 7, middle + 4, y + 15), fill=AGENT)


def frame(record: EpisodeRecord, k: int) -> Image.Image:
    """The picture of step k: the corridor, what is in the memory, and the weight of each step in each layer."""
    assert record.attention is not None
    assert record.pictures is not None
    picture = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((0, 0, WIDTH - 1, HEIGHT - 1), 10, outline=BORDER)
    shown = record.observations[k][0] != 0
    what = "the goals are shown: remember them" if shown else "the goals are hidden: only the memory knows them"
    text(draw, (24, 28), f"step {k}: {what}", 18)
    picture.paste(Image.fromarray(record.pictures[k]), ((WIDTH - record.pictures.shape[2]) // 2, 50))
    right = record.probabilities[k][1]
    chance = f"{100 * right:.0f}% right, {100 * (1 - right):.0f}% left"
    goes = f"the agent goes {('left', 'right')[int(record.actions[k, 0])]} ({chance})"
    text(draw, (24, 158), "the agent can't move yet" if k < NUM_SHOW_STEPS else goes, 15, SOFT)
    text(draw, (24, 192), "what it attends to, layer by layer (darker: more weight)", 15)
    layers = record.attention.shape[1]
    for layer in range(layers):
        y = 210 + layer * ROW
        text(draw, (24, y + ROW / 2 - 2), f"layer {layers - layer}", 14, SOFT)
        for j in range(k):
            weight = record.attention[k, layers - 1 - layer, :, k - 1 - j].mean()
            colour = tuple(int(c) for c in NO_WEIGHT + weight * (FULL_WEIGHT - NO_WEIGHT))
            x = LEFT + j * (CELL + 6)
            draw.rounded_rectangle((x, y, x + CELL, y + ROW - 6), 4, fill=colour)
            text(draw, (x + 15, y + ROW / 2 - 3), f"{weight:.2f}".lstrip("0"), 13, BACKGROUND if weight > 0.6 else INK)
    y = 216 + layers * ROW
    text(draw, (24, y + 12), "it saw", 14, SOFT)
    for j in range(k):
        thumbnail(draw, LEFT + j * (CELL + 6) + 3, y + 2, record.observations[j])
        text(draw, (LEFT + j * (CELL + 6) + 8, y + 40), f"step {j}", 13, SOFT)
    if k == record.num_steps - 1:
        text(draw, (24, HEIGHT - 22), f"reached: return {record.results['r']:.1f}", 15, GOOD)
    return picture


def main() -> None:
    """Plays an episode and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", default="tests/golden/ProofofMemory-v0_seed1.nn", help="a run or a file of an agent")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("docs/images/remembering.gif"))
    options = parser.parse_args()
    policy = load(options.agent)
    env = make_single_env(policy.config.for_evaluation(1, options.seed), pictures=True)
    record = make_record(env, 0, list(play_episode(policy, env, 0, attention=True)))
    frames = [frame(record, k).quantize(64, dither=Image.Dither.NONE) for k in range(record.num_steps)]
    durations = [MILLISECONDS] * (len(frames) - 1) + [LAST]
    frames[0].save(options.out, save_all=True, append_images=frames[1:], duration=durations, loop=0)
    print(f"wrote {options.out}, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
