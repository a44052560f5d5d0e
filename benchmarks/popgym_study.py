"""The tables of POPGym's experiments from their curves, `docs/results/popgym-*.csv`, beside published scores.

    python benchmarks/popgym_study.py

Writes `popgym_study.md` and, of the transformer's options on one task, `popgym_options.md`, which `docs/results.md`
shows. A cell is the mean return over the last tenth of the steps, of
all seeds, with the lowest and the highest seed. Hours are those of all runs of a task, each on one core, at the median
speed of the fastest run of its core, because others shared theirs. Published scores are the best epoch's mean return
(MMER) after 15M steps, mean of three trials (Morad et al. 2023), as transcribed in others' papers.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from experiment_curves import final, runs_by_experiment

from trxl_jax.files import write_text_atomically

CURVES = sorted((Path(__file__).parent.parent / "docs" / "results").glob("popgym-*.csv"))
OPTIONS = CURVES[0].with_name("count-recall-options.csv")
CORES = ("trxl", "trxl-query", "trxl-relative", "gtrxl", "gru", "lstm", "lru", "none")
PUBLISHED = {
    "repeat-previous-easy": (1.000, 1.000),
    "repeat-previous-medium": (-0.315, 0.789),
    "repeat-first-easy": (1.000, 1.000),
    "autoencode-easy": (-0.283, -0.283),
    "count-recall-easy": (0.177, 0.509),
    "noisy-position-only-cartpole-medium": (0.642, 0.659),
    "higher-lower-easy": (0.529, 0.529),
}
"""Scores of the GRU and of the best of 13 models, by task."""


def runs() -> dict[tuple[str, str], list[pd.DataFrame]]:
    """The runs of all seeds, by task and core."""
    found = {}
    for name, of_seeds in runs_by_experiment(CURVES).items():
        task = next(task for task in PUBLISHED if name.startswith(f"popgym-{task}-"))
        found[task, name.removeprefix(f"popgym-{task}-")] = of_seeds
    return found


def hours(found: dict[tuple[str, str], list[pd.DataFrame]]) -> dict[str, float]:
    """Hours that all runs of each task take when nothing runs beside them."""
    spent = dict.fromkeys(PUBLISHED, 0.0)
    for (task, _), of_seeds in found.items():
        fastest = min(float((run["hours"].diff() / run["global_step"].diff()).median()) for run in of_seeds)
        spent[task] += sum(fastest * float(run["global_step"].max()) for run in of_seeds)
    return spent


def table() -> str:
    """The table in Markdown; tasks and cores that were not run have no row and no number."""
    found = runs()
    spent = hours(found)
    lines = [f"| task | {' | '.join(CORES)} | published: GRU | best of 13 | hours |", "|" + "---|" * (len(CORES) + 4)]
    for task, (gru, best) in PUBLISHED.items():
        cells = [_cell([final(run) for run in found.get((task, core), [])]) for core in CORES]
        if any(cells):
            lines.append(f"| {task} | {' | '.join(cells)} | {gru:.3f} | {best:.3f} | {spent[task]:.1f} |")
    return "\n".join(lines) + "\n"


def table_of_options() -> str:
    """The transformer with each option alone on CountRecallEasy, in Markdown, the best first."""
    returns = {"trxl (no option)": [final(run) for run in runs()["count-recall-easy", "trxl"]]}
    returns["query"] = [final(run) for run in runs()["count-recall-easy", "trxl-query"]]
    for name, of_seeds in runs_by_experiment([OPTIONS]).items():
        returns[name.removeprefix("count-recall-options-")] = [final(run) for run in of_seeds]
    lines = ["| option | return |", "|---|---|"]
    best_first = sorted(returns.items(), key=lambda item: -float(np.mean(item[1])))
    return "\n".join([*lines, *(f"| {name} | {_cell(values)} |" for name, values in best_first)]) + "\n"


def _cell(values: list[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.3f} (one seed)" for value in values)
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Writes the tables."""
    for name, text in (("popgym_study", table()), ("popgym_options", table_of_options())):
        write_text_atomically(Path(__file__).with_name(f"{name}.md"), text)
        print(text)


if __name__ == "__main__":
    main()
