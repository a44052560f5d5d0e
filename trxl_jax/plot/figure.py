"""Plots learning curves of runs, and tells what they came to: `python -m trxl_jax.plot RUN... [--flags]`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trxl_jax.plot.curves import Final, Run, common_curve, mean_interval

SUFFIXES = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, which colour-blind people tell apart; without the yellow, too pale for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":", "-.")
_LABELS = {
    "steps": "environment steps",
    "hours": "hours",
    "updates": "updates",
    "episode/r_mean": "mean return",
    "episode/l_mean": "mean episode length",
    "eval/r_mean": "mean return on held-out episodes",
}
_COLUMNS = 2


def draw(groups: Mapping[str, Sequence[Run]], metrics: Sequence[str], *, axis: str = "steps", smooth: int = 1) -> Any:
    """A panel for each metric with each group's mean and, shaded, its 95% interval.

    Args:
        groups: runs by label.
        metrics: names.
        axis: steps, hours or updates.
        smooth: updates over which a running mean is taken.

    Returns:
        A Matplotlib figure.

    Raises:
        ConfigError: a run lacks a metric or the axis.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    columns = min(len(metrics), _COLUMNS)
    rows = math.ceil(len(metrics) / columns)
    size = (max(4.5 * columns, 6.0), 3.2 * rows + 0.5 + 0.2 * len(groups))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(metrics) :]:
        panel.remove()
    for panel, metric in zip(panels, metrics):
        for i, (label, runs) in enumerate(groups.items()):
            x, values = common_curve(runs, metric, axis, smooth)
            style = {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _STYLES[i // len(_COLOURS) % len(_STYLES)]}
            plural = "" if len(runs) == 1 else "s"
            panel.plot(x, values.mean(axis=0), label=f"{label} ({len(runs)} seed{plural})", linewidth=1.5, **style)
            low, high = mean_interval(values)
            panel.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
        panel.set_ylabel(_LABELS.get(metric, metric))
        panel.set_xlabel(_LABELS[axis])
        if axis != "hours":
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_xlim(left=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="0.9", linewidth=0.6)
        panel.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize="small")
    return figure


def save(figure: Any, path: Path) -> None:
    """Writes a figure as its suffix says, without dates, so that the same curves make the same file."""
    import matplotlib as mpl

    dates = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[path.suffix.lower()]
    with mpl.rc_context({"svg.hashsalt": "trxl_jax"}):
        figure.savefig(path, dpi=150, metadata=dates)


def table(finals: Mapping[tuple[str, str], Final]) -> str:
    """A Markdown table of what (group, metric) came to, and a line for each group that is cut."""
    rows = ["| group | metric | seeds | final mean | 95% interval | steps |", "|---|---|---|---|---|---|"]
    cut = {}
    for (label, metric), end in finals.items():
        interval = "" if math.isnan(end.low) else f"{_digits(end.low)} to {_digits(end.high)}"
        name = label.replace("|", "\\|")
        rows.append(f"| {name} | {metric} | {end.seeds} | {_digits(end.mean)} | {interval} | {end.step:,} |")
        if end.longest > end.step:
            cut[label] = f"{label}: cut where its shortest run ends, at {end.step:,} of {end.longest:,} steps."
    return "\n".join([*rows, *(["", *cut.values()] if cut else [])])


def _digits(value: float) -> str:
    """Three of them, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
