"""Kills runs at random moments, and gives commands damaged files and senseless flags, at random until the time is over.

    python -m tests.hostile [--minutes 10] [--seed 0] [--only kills files models flags] [--dir DIR]

Prints a line for each round and exits with 1 at the end if one failed. `--dir` keeps what a failure left behind.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.hostile import damage, flags
from tests.hostile.kills import Kills

KINDS = ("kills", "files", "models", "flags")


def main() -> int:
    """Plays rounds of each kind in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="time after which no round is started (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all choices (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="kinds of rounds")
    parser.add_argument("--dir", type=Path, help="directory for runs, kept afterwards; else a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = given.dir or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        return _play(given.only, random.Random(given.seed), directory, time.monotonic() + 60 * given.minutes)


def _play(kinds: Sequence[str], rng: random.Random, directory: Path, end: float) -> int:
    rounds: Counter[str] = Counter()
    failures, kills = 0, Kills()
    play = {
        "kills": kills.play_round,
        "files": damage.damage_run,
        "models": damage.damage_model,
        "flags": flags.play_round,
    }
    while time.monotonic() < end:
        kind = kinds[rounds.total() % len(kinds)]
        rounds[kind] += 1
        try:
            print(f"{kind} {rounds[kind]}: {play[kind](rng, directory)}", flush=True)
        except AssertionError as error:
            failures += 1
            print(f"{kind} {rounds[kind]}: FAILED: {error}", flush=True)
    played = ", ".join(f"{count} of {kind}" for kind, count in rounds.items())
    print(f"rounds: {played}; {kills.count} processes killed; {failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
