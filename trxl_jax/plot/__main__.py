"""Plots learning curves of runs, and prints their final values: `python -m trxl_jax.plot RUN... [--flags]`."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from trxl_jax.cli import command_line, parse_flags, run_command
from trxl_jax.errors import ConfigError, disk_errors
from trxl_jax.plot.curves import Run, final, group_runs, read_runs, write_csv
from trxl_jax.plot.figure import SUFFIXES, draw, save, table


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of this command."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """directories of runs, or CSV files with the columns seed, global_step and metrics"""
    x: Literal["steps", "hours", "updates"] = "steps"
    """what the curves are drawn over; hours are of wall clock, training alone"""
    metric: tuple[str, ...] = ("episode/r_mean",)
    """metrics, one panel each"""
    group_by: tuple[str, ...] = ()
    """training flags whose values make the groups; none: the task, and what differs but for the seed"""
    out: Path = Path("curves.png")
    """the plot: .png, .svg or .pdf"""
    smooth: int = 1
    """updates over which a running mean is taken; the table is made without"""
    csv: Path | None = None
    """also write the curves, thinned to 200 points a run, in a form that this command reads"""


DESCRIPTION = """Plots learning curves, the mean over seeds and its 95% interval, and prints a Markdown table.

{prog} RUN... --out curves.png"""


def parse(flags: Sequence[str]) -> Arguments:
    """What flags ask for.

    Raises:
        UserError: an unknown flag, or a value that can't be.
    """
    prog = command_line("plot")
    given = parse_flags(Arguments, Arguments(), flags, prog=prog, description=DESCRIPTION.format(prog=prog))
    if not given.runs:
        raise ConfigError("name at least one run's directory or CSV file")
    if not given.metric:
        raise ConfigError("--metric: give at least one")
    if given.smooth < 1:
        raise ConfigError(f"--smooth {given.smooth}: must be at least 1")
    if given.out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out {given.out}: its name must end in {', '.join(SUFFIXES)}")
    return given


def main(flags: Sequence[str]) -> int:
    """Plots and tells; returns 0."""
    given = parse(flags)
    _require_matplotlib()
    runs: list[Run] = []
    for path in dict.fromkeys(given.runs):
        if path.suffix == ".log":  # those of `experiments` lie beside its runs, where runs/* finds them
            continue
        found = read_runs(path)
        if not found:
            print(f"{path}: no update yet, left out", file=sys.stderr)
        runs += found
    if not runs:
        raise ConfigError("there is nothing to plot: none of the runs has done an update")
    groups = group_runs(runs, given.group_by or None)
    finals = {(label, metric): final(members, metric) for label, members in groups.items() for metric in given.metric}
    figure = draw(groups, given.metric, axis=given.x, smooth=given.smooth)
    with disk_errors(given.out, "--out"):
        given.out.parent.mkdir(parents=True, exist_ok=True)
        save(figure, given.out)
    if given.csv is not None:
        with disk_errors(given.csv, "--csv"):
            given.csv.parent.mkdir(parents=True, exist_ok=True)
            write_csv(given.csv, groups, given.metric)
    print(table(finals))
    for path in filter(None, (given.out, given.csv)):
        print(f"wrote {path}", file=sys.stderr)
    return 0


def _require_matplotlib() -> None:
    try:
        import matplotlib.figure  # noqa: F401
        import scipy.stats  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"plots need {error.name or 'Matplotlib'}: pip install matplotlib scipy") from None


def cli() -> int:
    """The command, with the flags that were typed."""
    return run_command(main, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(cli())
