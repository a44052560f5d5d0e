"""The table of Mortar Mayhem's experiments from their curves: `docs/results/mortar-mayhem-*.csv`.

    python benchmarks/mayhem_study.py

Writes `mayhem_study.md`, which `docs/results.md` shows: each core's mean return over the 500,000 steps before some step
and over the last tenth of the steps, with the lowest and the highest seed, and its median speed.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from experiment_curves import before, final, runs_by_experiment
from popgym_study import CORES

from trxl_jax.files import write_text_atomically

RESULTS = Path(__file__).parent.parent / "docs" / "results"
GAMES = {3: RESULTS / "mortar-mayhem-3.csv", 10: RESULTS / "mortar-mayhem-10.csv"}
"""Curves of the experiments `mortar-mayhem-N-CORE`, by the number of commands."""

STEPS = (1_000_000, 3_000_000)
_BEFORE = 500_000


def returns(commands: int) -> dict[str, list[pd.DataFrame]]:
    """The runs of a game by core."""
    found = runs_by_experiment([GAMES[commands]])
    return {name.removeprefix(f"mortar-mayhem-{commands}-"): runs for name, runs in found.items()}


def table() -> str:
    """The table in Markdown."""
    head = [*(f"{step / 1e6:g}M" for step in STEPS), "last tenth", "steps/s"]
    columns = [f"{count} commands, {name}" for count in GAMES for name in head]
    lines = [f"| core | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    games = [returns(count) for count in GAMES]
    for core in CORES:
        cells = [cell for game in games for cell in _cells(game.get(core, []))]
        lines.append(f"| {core} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(runs: list[pd.DataFrame]) -> list[str]:
    if not runs:
        return [""] * (len(STEPS) + 2)
    curve = [f"{np.mean([before(run, step, _BEFORE) for run in runs]):.2f}" for step in STEPS]
    ends = [final(run) for run in runs]
    speed = np.median(pd.concat(runs)["charts/SPS"])
    return [*curve, f"{np.mean(ends):.2f} ({min(ends):.2f} to {max(ends):.2f})", f"{speed:,.0f}"]


def main() -> None:
    """Writes the table."""
    write_text_atomically(Path(__file__).with_suffix(".md"), table())
    print(table())


if __name__ == "__main__":
    main()
