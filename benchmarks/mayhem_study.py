"""The table of Mortar Mayhem's experiments from their curves: `docs/results/mortar-mayhem-3.csv`.

    python benchmarks/mayhem_study.py

Writes `mayhem_study.md`, which `docs/results.md` shows: each core's mean return over the 250,000 steps before some step
and over the last tenth of the steps, with the lowest and the highest seed; how soon it executes most commands; and its
median speed on one core.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from experiment_curves import before, final, runs_by_experiment, steps_to
from popgym_study import CORES

from trxl_jax.files import write_text_atomically

CURVES = Path(__file__).parent.parent / "docs" / "results" / "mortar-mayhem-3.csv"
PREFIX = "mortar-mayhem-3-"
STEPS = (1_000_000, 3_000_000)
_BEFORE = 250_000
_LEARNED = 0.25
"""Of three commands at 0.1 each."""


def runs() -> dict[str, list[pd.DataFrame]]:
    """The runs of all seeds, by core."""
    found = {name.removeprefix(PREFIX): of_seeds for name, of_seeds in runs_by_experiment([CURVES]).items()}
    return {core: found[core] for core in CORES}


def table() -> str:
    """The table in Markdown."""
    head = [*(f"{step / 1e6:g}M" for step in STEPS), "last tenth", f"median seed above {_LEARNED} after", "steps/s",
            "minutes"]  # fmt: skip
    lines = [f"| core | {' | '.join(head)} |", "|" + "---|" * (len(head) + 1)]
    for core, of_seeds in runs().items():
        curve = " | ".join(f"{np.mean([before(run, step, _BEFORE) for run in of_seeds]):.2f}" for step in STEPS)
        ends = [final(run) for run in of_seeds]
        reached = np.median([steps_to(run, _LEARNED, _BEFORE) for run in of_seeds])
        speed = np.median(pd.concat(of_seeds)["charts/SPS"])
        step = f"{reached / 1e6:.2f}M | {speed:,.0f} | {reached / speed / 60:.1f}"
        time = step if np.isfinite(reached) else f"never | {speed:,.0f} |"
        lines.append(f"| {core} | {curve} | {np.mean(ends):.3f} ({min(ends):.3f} to {max(ends):.3f}) | {time} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the table."""
    write_text_atomically(Path(__file__).with_suffix(".md"), table())
    print(table())


if __name__ == "__main__":
    main()
