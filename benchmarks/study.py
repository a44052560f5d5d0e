"""One table of what every core learns: POPGym, MiniGrid-MemoryS9 and Mortar Mayhem, beside published scores.

    python benchmarks/study.py

Writes `study.md`, which `docs/results.md` shows first. A cell is a core's return over the last tenth of the steps: the
mean over three seeds, the interquartile mean over more; the best core's is bold.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import mayhem_study
import minigrid_study
import popgym_study
from experiment_curves import final, runs_by_experiment

from trxl_jax.files import write_text_atomically
from trxl_jax.plot.figure import MIN_SEEDS_IQM, interquartile_mean

LONG = minigrid_study.RESULTS / "count-recall-15m.csv"
"""CountRecallEasy with the published number of steps."""


EQUAL = 0.005
"""Difference from the published score, or the next core's if there is none, below which neither is ahead."""


def score(values: list[float]) -> float:
    """One number for all seeds' returns."""
    return float(interquartile_mean(values) if len(values) >= MIN_SEEDS_IQM else np.mean(values))


def row(task: str, steps: str, returns: dict[str, list[float]], published: str, best: float | None) -> str:
    """A line of the table: who is ahead, what is published (its `best`, if there is one), and ours by core."""
    scores = {core: score(values) for core, values in returns.items()}
    ahead = max(scores, key=lambda core: scores[core])
    cells = []
    for core in popgym_study.CORES:
        cell = f"{scores[core]:.2f}" if core in scores else ""
        cells.append(f"**{cell}**" if core == ahead else cell)
    others = [score for core, score in scores.items() if core != ahead]
    lead = scores[ahead] - (max(others) if best is None else best)
    name = "equal" if abs(lead) < EQUAL else ahead if lead > 0 else "published"
    return f"| {task} | {steps} | {name} | {published} | {' | '.join(cells)} |"


def table() -> str:
    """The table in Markdown."""
    lines = [
        f"| task | steps | ahead | published | {' | '.join(popgym_study.CORES)} |",
        "|" + "---|" * (len(popgym_study.CORES) + 4),
    ]
    found = popgym_study.runs()
    for task, (gru, best) in popgym_study.PUBLISHED.items():
        published = f"GRU {gru:.2f}, best {best:.2f}"
        returns = {core: [final(run) for run in runs] for (name, core), runs in found.items() if name == task}
        if returns:
            lines.append(row(task, "3M", returns, published, best))
        if task == "count-recall-easy":
            lines.append(row(task, "15M", _returns(LONG, "count-recall-15m-"), published, best))
    best = minigrid_study.PUBLISHED[-1]
    returns = _returns(minigrid_study.CORES, "memory-s9-")
    lines.append(row("MiniGrid-MemoryS9, symbols", "1.5M", returns, f"LSTM {best:.2f}", best))
    lines.append(
        row("Mortar Mayhem, 3 commands, symbols", "10M", _returns(mayhem_study.CURVES, mayhem_study.PREFIX), "", None)
    )
    return "\n".join(lines) + "\n"


def _returns(path: Path, prefix: str) -> dict[str, list[float]]:
    """Each core's returns over the last tenth of the steps, from one file."""
    runs = runs_by_experiment([path])
    return {name.removeprefix(prefix): [final(run) for run in of_seeds] for name, of_seeds in runs.items()}


def main() -> None:
    """Writes the table."""
    write_text_atomically(Path(__file__).with_suffix(".md"), table())
    print(table())


if __name__ == "__main__":
    main()
