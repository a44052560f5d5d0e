"""Plots learning curves of runs and prints their final values: `python -m trxl_jax.plot RUN... [--flags]`."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from trxl_jax.cli import command_line, parse_flags, run_command
from trxl_jax.errors import ConfigError, disk_errors

_SUFFIXES = (".png", ".svg", ".pdf")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of this command."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """directories of runs, folders of such directories, or CSV files with the columns seed, global_step and metrics"""
    x: Literal["steps", "hours", "minutes", "updates"] = "steps"
    """x axis of the curves; hours and minutes are of wall clock, training alone"""
    metric: tuple[str, ...] = ("episode/r_mean",)
    """metrics, one panel each"""
    group_by: tuple[str, ...] = ()
    """flags of train.py whose values make the groups, or `experiment`: runs whose names differ in the seed only; none:
    the task and all flags that differ, except the seed"""
    out: Path = Path("curves.png")
    """the plot: .png, .svg or .pdf"""
    smooth: int = 1
    """updates over which a running mean is taken; the table is made without"""
    csv: Path | None = None
    """also write the curves, thinned to 200 points a run, as a CSV file that this command reads"""


DESCRIPTION = """Plots learning curves, the mean over seeds and its 95% interval, and prints a Markdown table.

{prog} RUN... --out curves.png"""


def parse(flags: Sequence[str]) -> Arguments:
    """Reads and checks the flags.

    Raises:
        UserError: an unknown flag or a value that is not allowed.
    """
    prog = command_line("plot")
    given = parse_flags(Arguments, Arguments(), flags, prog=prog, description=DESCRIPTION.format(prog=prog))
    if not given.runs:
        raise ConfigError("name at least one run's directory or CSV file")
    if not given.metric:
        raise ConfigError("--metric: give at least one")
    if given.smooth < 1:
        raise ConfigError(f"--smooth {given.smooth}: must be at least 1")
    if given.out.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"--out {given.out}: its name must end in {', '.join(_SUFFIXES)}")
    return given


def main(flags: Sequence[str]) -> int:
    """Writes the plot, prints the table and returns 0."""
    given = parse(flags)
    try:  # inside, because pandas and seaborn take seconds to import, which --help doesn't need
        import matplotlib as mpl

        from trxl_jax.plot import curves, figure
    except ModuleNotFoundError as error:
        raise ConfigError(f"plots need {error.name}: pip install matplotlib pandas scipy seaborn") from None
    mpl.use("Agg")  # opens no window, also where there is a screen
    runs = curves.read_runs(given.runs, given.group_by)
    curves.check_metrics(runs, given.metric)
    drawn = figure.draw(runs, given.metric, axis=given.x, smooth=given.smooth)
    with disk_errors(given.out, "--out"):
        given.out.parent.mkdir(parents=True, exist_ok=True)
        figure.save(drawn, given.out)
    if given.csv is not None:
        with disk_errors(given.csv, "--csv"):
            given.csv.parent.mkdir(parents=True, exist_ok=True)
            curves.write_csv(given.csv, runs, given.metric)
    print(figure.table(runs, given.metric))
    for path in filter(None, (given.out, given.csv)):
        print(f"wrote {path}", file=sys.stderr)
    return 0


def cli() -> int:
    """Runs the command with the process's own flags."""
    return run_command(main, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(cli())
