"""The tables of MiniGrid-MemoryS9's experiments from their curves: `docs/results/minigrid-*.csv`.

    python benchmarks/minigrid_study.py

Writes `minigrid_study.md`, `minigrid_differences.md` and `minigrid_options.md`, which `docs/results.md` shows. The
first has each core's mean return over the 50,000 steps before some step, all seeds; the others what each difference
between the published settings and ours, and each option of the transformer, does alone.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from experiment_curves import before, final, runs_by_experiment, steps_to

from trxl_jax.files import write_text_atomically
from trxl_jax.plot.figure import bootstrap_interval, interquartile_mean

RESULTS = Path(__file__).parent.parent / "docs" / "results"
CORES = RESULTS / "minigrid-cores.csv"
SPEEDS = RESULTS / "minigrid-speeds.csv"
"""A short run of each core with nothing beside it; the runs of `CORES` shared the machine with others."""
STEPS = (250_000, 500_000, 1_000_000, 1_500_000)
PUBLISHED = (0.65, 0.79, 0.89, 0.92)
"""An LSTM with pictures of the same view and three actions, ten seeds, at the steps above: the figure of
MinigridMemory-S9 in the README of github.com/MarcoMeter/recurrent-ppo-truncated-bptt, by the author of Memory Gym."""

_BEFORE = 50_000
_LEARNED = 0.9


def table_of_cores() -> str:
    """Return by core and steps, in Markdown."""
    head = [*(f"{step / 1e6:g}M" for step in STEPS), "last tenth: interquartile mean", "95% interval",
            f"seeds above {_LEARNED}", "median seed there after", "steps/s", "minutes"]  # fmt: skip
    lines = [f"| core | {' | '.join(head)} |", "|" + "---|" * (len(head) + 1)]
    alone = runs_by_experiment([SPEEDS])
    for experiment, runs in runs_by_experiment([CORES]).items():
        curve = " | ".join(f"{np.mean([before(run, step, _BEFORE) for run in runs]):.2f}" for step in STEPS)
        values = np.array([final(run) for run in runs])
        low, high = bootstrap_interval(values, interquartile_mean)
        learned = f"{(values > _LEARNED).sum()} of {len(values)}"
        name = experiment.removeprefix("memory-s9-")
        middle = f"{interquartile_mean(values):.2f} | {low:.2f} to {high:.2f}"
        reached = np.median([steps_to(run, _LEARNED, _BEFORE) for run in runs])
        speed = np.median(pd.concat(alone[experiment])["charts/SPS"])
        step, minutes = f"{reached / 1e6:.2f}M", f"{reached / speed / 60:.1f}"
        time = f"{step} | {speed:,.0f} | {minutes}" if np.isfinite(reached) else f"| {speed:,.0f} |"
        lines.append(f"| {name} | {curve} | {middle} | {learned} | {time} |")
    published = " | ".join(f"{value:.2f}" for value in PUBLISHED)
    lines.append(f"| an LSTM, published, ten seeds | {published} | | | | | | |")
    return "\n".join(lines) + "\n"


def table_of_settings(path: Path) -> str:
    """What became of each experiment of a file, seed by seed, in Markdown: over the last tenth of the steps."""
    lines = [
        "| settings | return of each seed | above 0.9 first after | episode length | entropy |",
        "|---|---|---|---|---|",
    ]
    for experiment, runs in runs_by_experiment([path]).items():
        returns = ", ".join(f"{final(run):.2f}" for run in runs)
        reached = [steps_to(run, _LEARNED, _BEFORE) for run in runs]
        first = ", ".join(f"{step / 1e6:.2f}M" if np.isfinite(step) else "never" for step in reached)
        length = ", ".join(f"{final(run, 'episode/l_mean'):.0f}" for run in runs)
        entropy = ", ".join(f"{final(run, 'losses/entropy'):.2f}" for run in runs)
        lines.append(f"| {experiment} | {returns} | {first} | {length} | {entropy} |")
    return "\n".join(lines) + "\n"


def tables() -> dict[str, str]:
    """The tables by the names of their files."""
    return {
        "minigrid_study": table_of_cores(),
        "minigrid_differences": table_of_settings(RESULTS / "minigrid-differences.csv"),
        "minigrid_options": table_of_settings(RESULTS / "minigrid-options.csv"),
    }


def main() -> None:
    """Writes the tables."""
    for name, table in tables().items():
        write_text_atomically(Path(__file__).with_name(f"{name}.md"), table)
        print(table)


if __name__ == "__main__":
    main()
