"""Curves of experiments' seeds, as the studies' tables read them from CSV files."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from trxl_jax.plot.curves import read_runs


def runs_by_experiment(paths: Iterable[Path]) -> dict[str, list[pd.DataFrame]]:
    """The runs of each experiment, which are named EXPERIMENT__SEED, in the order of the files."""
    found: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for name, run in read_runs(paths).groupby("run", sort=False):
        found[str(name).rpartition("__")[0]].append(run)
    return found


def before(run: pd.DataFrame, step: float, window: int, metric: str = "episode/r_mean") -> float:
    """The mean of a metric over a window of steps before a step."""
    rows = (run["global_step"] > step - window) & (run["global_step"] <= step)
    return float(run[metric][rows].mean())


def steps_to(run: pd.DataFrame, level: float, window: int) -> float:
    """The first step at which the mean return over a window of steps before it is above a level, or infinity."""
    steps = run["global_step"][run["global_step"] >= window]
    return next((step for step in steps if before(run, step, window) > level), np.inf)


def final(run: pd.DataFrame, metric: str = "episode/r_mean") -> float:
    """The mean of a metric over the last tenth of the steps."""
    return float(run[metric][run["global_step"] > 0.9 * run["global_step"].max()].mean())
