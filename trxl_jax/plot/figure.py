"""Figure and table of groups of runs."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import EngFormatter
from scipy.stats import trim_mean

from trxl_jax.plot.curves import common_curve

_NAMES = {
    "steps": "environment steps",
    "episode/r_mean": "mean return",
    "episode/l_mean": "mean episode length",
    "eval/r_mean": "mean return on held-out episodes",
}
# Okabe and Ito's colours, distinct to colour-blind people, without the yellow, too pale for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Dashes of the first seven groups, of the next seven, and so on.
_DASHES = ("", (4, 1.5), (1, 1), (5, 1, 1, 1))
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # `$` in the name of a run is a `$`
    "svg.hashsalt": "trxl_jax",  # the same curves make the same file
    "savefig.dpi": 150,
}
_RESAMPLES = 2000
_LAST = 0.1
MIN_SEEDS_IQM = 4
"""Seeds from which on it is shown: of fewer, a quarter at each end is none."""

interquartile_mean = partial(trim_mean, proportiontocut=0.25)
"""The mean without the lowest and the highest quarter (Agarwal et al. 2021)."""


def draw(runs: pd.DataFrame, metrics: Sequence[str], *, axis: str = "steps", smooth: int = 1) -> sns.FacetGrid:
    """A panel for each metric, with each group's mean and its 95% interval, shaded.

    Args:
        runs: as `read_runs` returns them.
        metrics: names.
        axis: steps, hours, minutes or updates.
        smooth: updates over which a running mean is taken.

    Raises:
        ConfigError: a run lacks the axis, or runs of a group have no point in common.
    """
    title, entries = _legend(runs.dropna(subset=metrics, how="all"))
    curves = {
        (metric, entries[label]): common_curve(group, metric, axis, smooth)
        for metric, label, group in _groups(runs, metrics)
    }
    order, colours = list(entries.values()), len(_COLOURS)
    height = 3.7 + 0.2 * len(order) / math.ceil(len(metrics) / 2)
    with mpl.rc_context(_STYLE):
        grid = sns.relplot(
            pd.concat(curves, names=["metric", "group", "x"]).melt(ignore_index=False).reset_index(),
            kind="line",
            x="x",
            y="value",
            errorbar=bootstrap_interval,
            err_kws={"linewidth": 0},
            hue="group",
            hue_order=order,
            palette=[_COLOURS[i % colours] for i in range(len(order))],
            style="group",
            style_order=order,
            dashes=[_DASHES[i // colours % len(_DASHES)] for i in range(len(order))],
            col="metric",
            col_wrap=min(len(metrics), 2),
            height=height,
            aspect=(6.0 if len(metrics) == 1 else 4.5) / height,
            facet_kws={"sharey": False, "legend_out": False},
        )
        grid.figure.set_layout_engine("constrained")
        grid.figure.suptitle(title)
        grid.set(xlim=(0, None), xlabel=_NAMES.get(axis, axis), axisbelow=True).set_titles("")
        for metric, panel in grid.axes_dict.items():
            panel.set_ylabel(_NAMES.get(metric, metric))
            panel.grid(color="0.9", linewidth=0.6)
            if axis not in ("hours", "minutes"):
                panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        sns.move_legend(grid, "outside lower center", title=None, frameon=False, fontsize="small")
    return grid


def _groups(runs: pd.DataFrame, metrics: Sequence[str]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Each metric with each label and the rows that have it."""
    for metric in metrics:
        for label, group in runs.dropna(subset=[metric]).groupby("group", observed=True):
            yield metric, label, group


def _legend(runs: pd.DataFrame) -> tuple[str, dict[str, str]]:
    """A title, and the legend's entries by label; a task that all labels have goes into the title."""
    seeds = runs[["group"]].reset_index(level=0).groupby("group", observed=True)["number"].nunique()
    tasks = {label.partition(", ")[0] for label in seeds.index}
    title = tasks.pop() if len(tasks) == 1 else ""
    shown = {label: label.removeprefix(title).removeprefix(", ") for label in seeds.index}
    return title, {label: f"{shown[label]} ({n} seed{'s' * (n > 1)})".strip() for label, n in seeds.items()}


def bootstrap_interval(values: Any, statistic: Callable[..., Any] = np.mean) -> tuple[float, float]:
    """The 95% interval of a statistic over runs, by a percentile bootstrap; the same each time.

    Args:
        values: f64[S], at least two.
        statistic: takes an array and `axis`.
    """
    samples = np.random.default_rng(0).choice(np.asarray(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(statistic(samples, axis=1), [2.5, 97.5])
    return float(low), float(high)


def save(grid: sns.FacetGrid, path: Path) -> None:
    """Writes and closes a figure. The suffix gives the format; without dates, the same curves make the same file."""
    dates = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[path.suffix.lower()]
    with mpl.rc_context(_STYLE):
        grid.savefig(path, metadata=dates)
    plt.close(grid.figure)


def table(runs: pd.DataFrame, metrics: Sequence[str]) -> str:
    """A Markdown table of final values, and a line for each group whose longer runs are cut.

    The final value of a run is its mean over the last tenth of the steps that all runs of its group have. Groups of
    four or more runs also get the interquartile mean over runs (Agarwal et al. 2021, arXiv:2108.13264).

    Raises:
        ConfigError: as `draw`.
    """
    rows, cut = [], {}
    for metric, label, group in _groups(runs, metrics):
        curve = common_curve(group, metric)
        step, longest = int(curve.index[-1]), int(group["global_step"].max())
        if longest > step:
            cut[label] = f"{label}: cut where its shortest run ends, at {step:,} of {longest:,} steps."
        last = np.array([_final(run, metric, step) for _, run in group.groupby(level=0)])
        row = {"group": label.replace("|", "\\|"), "metric": metric, "seeds": str(len(last))}
        row |= {"final mean": _digits(last.mean()), "95% interval": _interval(last), "steps": f"{step:,}"}
        if len(last) >= MIN_SEEDS_IQM:
            row |= {
                "IQM": _digits(interquartile_mean(last)),
                "95% interval of the IQM": _interval(last, interquartile_mean),
            }
        rows.append(row)
    cells = pd.DataFrame(rows).fillna("")
    lines = [f"| {' | '.join(line)} |" for line in [cells.columns, ["---"] * len(cells.columns), *cells.to_numpy()]]
    return "\n".join([*lines, *(["", *cut.values()] if cut else [])])


def _final(run: pd.DataFrame, metric: str, step: int) -> float:
    """A run's mean over the last tenth of its first `step` steps, or its last value there if that tenth has none."""
    values = run[metric][run["global_step"] <= step]
    last = values[run["global_step"] > (1 - _LAST) * step]
    return float((last if len(last) else values[-1:]).mean())


def _interval(values: np.ndarray, statistic: Callable[..., Any] = np.mean) -> str:
    return " to ".join(map(_digits, bootstrap_interval(values, statistic))) if len(values) > 1 else ""


def _digits(value: float) -> str:
    """Three of them, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
