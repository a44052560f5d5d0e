"""Learning curves: read from runs or CSV files, grouped, put on a common grid, averaged over seeds."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trxl_jax.config import RESUMABLE_FIELDS, Config, load_config
from trxl_jax.errors import ConfigError

AXES = {"steps": "global_step", "hours": "hours", "updates": "iteration"}
"""What a curve can be drawn over, and the name it has in `Run.columns`."""

_GRID_POINTS = 200
_RESAMPLES = 2000
_LAST = 0.1
_REMEDY = "name runs' directories or CSV files"
_NOT_GROUPED = RESUMABLE_FIELDS | {"seed", "run_dir"}
# Names that curves of the original have in CSV files.
_SYNONYMS = {"return_mean": "episode/r_mean", "length_mean": "episode/l_mean"}


class Run(NamedTuple):
    """A run's metrics, one element an update.

    Fields:
        name: of its directory or its file.
        seed: as text.
        config: None of a run that comes from a CSV file.
        group: of a run that comes from a CSV file; empty otherwise.
        columns: f64[U] by name: `global_step`, rising; `iteration`; `hours` of wall clock; metrics. NaN where a row
            lacks one.
    """

    name: str
    seed: str
    config: Config | None
    group: str
    columns: Mapping[str, np.ndarray]


class Curve(NamedTuple):
    """A metric of a group of runs.

    Fields:
        x: f64[P], from where all runs have the metric to where the first one ends.
        values: f64[S, P], each run's.
    """

    x: np.ndarray
    values: np.ndarray


class Final(NamedTuple):
    """A metric at the end of a group's runs.

    Fields:
        seeds: number of runs S.
        mean: over runs, of each one's mean over the last tenth of the steps that all have.
        low: lower end of the mean's interval; NaN of a single run.
        high: upper end.
        step: where the shortest run ends.
        longest: where the longest one does.
    """

    seeds: int
    mean: float
    low: float
    high: float
    step: int
    longest: int


def read_runs(path: Path) -> list[Run]:
    """The run of a directory, or those of a CSV file; none of a run that has no row yet.

    Raises:
        ConfigError: it is neither, or damaged.
    """
    try:
        return _read_directory(path) if path.is_dir() else _read_csv(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {_REMEDY}") from None
    except (UnicodeDecodeError, csv.Error):
        raise ConfigError(f"{path}: it is not text; {_REMEDY}") from None


def _read_directory(path: Path) -> list[Run]:
    if not (path / "config.json").is_file():
        raise ConfigError(f"{path}: no config.json in it; {_REMEDY}")
    config = load_config(path / "config.json")
    rows, file = [], path / "metrics.jsonl"
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # the last line, while it is being written
            break
    if not rows:
        return []
    columns = _columns(rows)
    if "charts/SPS" in columns:
        steps = np.diff(columns["global_step"], prepend=0)
        columns["hours"] = np.cumsum(steps / columns["charts/SPS"]) / 3600
    return [Run(path.resolve().name, str(config.seed), config, "", columns)]


def _read_csv(path: Path) -> list[Run]:
    """Runs of a file with the columns seed, global_step, metrics, and perhaps run, group, iteration, hours."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if not {"seed", "global_step"} <= set(reader.fieldnames or ()):
            raise ConfigError(f"{path}: it lacks the columns seed and global_step; {_REMEDY}")
        parts: dict[tuple[str, str, str], list[dict[str, float]]] = defaultdict(list)
        for row in reader:
            seed, group = row.pop("seed"), row.pop("group", None) or path.stem
            run = row.pop("run", None) or f"{group}__{seed}"
            parts[group, run, seed].append(_numbers(row, f"{path}, line {reader.line_num}"))
    runs = []
    for (group, name, seed), rows in parts.items():
        if any(later["global_step"] <= row["global_step"] for row, later in pairwise(rows)):
            raise ConfigError(f"{path}: global_step of run {name} doesn't rise")
        runs.append(Run(name, seed, None, group, _columns(rows)))
    return runs


def _numbers(row: Mapping[str, Any], where: str) -> dict[str, float]:
    try:
        numbers = {_SYNONYMS.get(name, name): float(text) for name, text in row.items() if text}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None
    if "global_step" not in numbers:
        raise ConfigError(f"{where}: no global_step")
    return numbers


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, math.nan) for row in rows], float) for name in names}


def write_csv(path: Path, groups: Mapping[str, Sequence[Run]], metrics: Sequence[str]) -> None:
    """Writes at most 200 rows a run and metric, evenly spread over those that have it; `read_runs` reads them again."""
    names = ["global_step", *(AXES[axis] for axis in ("updates", "hours")), *metrics]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "seed", "group", *names])
        for group, runs in groups.items():
            for run in runs:
                empty = np.full(len(run.columns["global_step"]), math.nan)
                table = np.stack([run.columns.get(name, empty) for name in names], axis=1)
                kept = np.unique(np.concatenate([_thinned(table[:, names.index(metric)]) for metric in metrics]))
                for row in table[kept]:
                    writer.writerow([run.name, run.seed, group, *map(_written, row)])


def _thinned(values: np.ndarray) -> np.ndarray:
    """Indices of at most 200 elements that aren't NaN, the first and the last among them."""
    known = np.flatnonzero(~np.isnan(values))
    places = np.linspace(0, len(known) - 1, min(_GRID_POINTS, len(known)))
    return known[places.round().astype(int)]


def _written(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if value.is_integer() else f"{value:.6g}"


def group_runs(runs: Iterable[Run], group_by: Sequence[str] | None = None) -> dict[str, list[Run]]:
    """Runs by label, in the order of their appearance.

    Args:
        runs: of any tasks. Those from CSV files have their group's name as label.
        group_by: names of settings. None: the task, and what differs between runs of the same task and alters a
            number, but for the seed.

    Raises:
        ConfigError: a name is not that of a setting.
    """
    runs = list(runs)
    for name in group_by or ():
        if name not in Config.__dataclass_fields__:
            raise ConfigError(f"--group_by {name}: it is not a training flag")
    settings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        if run.config is not None:
            settings[run.config.env_id].append(vars(run.config))
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.config is None:
            label = run.group
        elif group_by:
            label = ", ".join(_told(name, getattr(run.config, name)) for name in group_by)
        else:
            of_task = settings[run.config.env_id]
            differing = [name for name in of_task[0] if name not in _NOT_GROUPED and _differs(name, of_task)]
            label = ", ".join([run.config.env_id, *(_told(name, getattr(run.config, name)) for name in differing)])
        groups[label].append(run)
    return dict(groups)


def _differs(name: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    return any(each[name] != settings[0][name] for each in settings)


def _told(name: str, value: Any) -> str:
    return str(value) if name == "env_id" else f"{name} {json.dumps(value) if isinstance(value, dict) else value}"


def common_curve(runs: Sequence[Run], metric: str, axis: str = "steps", smooth: int = 1) -> Curve:
    """A metric of several runs on one grid, nowhere extrapolated.

    The grid is made of the runs' own points if these are few, else of evenly spread ones; between a run's points the
    metric is interpolated linearly.

    Args:
        runs: at least one; each has the metric somewhere.
        metric: its name.
        axis: a key of `AXES`.
        smooth: rows over which a running mean is taken first; the first rows have fewer before them.

    Raises:
        ConfigError: a run lacks the metric or the axis, or there is no point that all runs have.
    """
    points = [_points(run, metric, axis) for run in runs]
    start, end = max(x[0] for x, _ in points), min(x[-1] for x, _ in points)
    if start > end:
        raise ConfigError(f"--metric {metric}: {runs[0].name} and its group have no {axis} in common; leave out a run")
    own = np.unique(np.concatenate([x for x, _ in points]))
    own = own[(own >= start) & (own <= end)]
    x = own if len(own) <= _GRID_POINTS else np.linspace(start, end, _GRID_POINTS)
    return Curve(x, np.stack([np.interp(x, own_x, _running_mean(y, smooth)) for own_x, y in points]))


def _points(run: Run, metric: str, axis: str) -> tuple[np.ndarray, np.ndarray]:
    if axis not in AXES or not _has(run, AXES[axis]):
        raise ConfigError(f"--x {axis}: {run.name} doesn't say; use --x steps")
    if not _has(run, metric):
        has = ", ".join(sorted(name for name in run.columns if name not in AXES.values()))
        raise ConfigError(f"--metric {metric}: {run.name} doesn't have it; it has {has}")
    x, y = run.columns[AXES[axis]], run.columns[metric]
    known = ~(np.isnan(x) | np.isnan(y))
    return x[known], y[known]


def _has(run: Run, name: str) -> bool:
    return name in run.columns and not np.isnan(run.columns[name]).all()


def _running_mean(y: np.ndarray, size: int) -> np.ndarray:
    sums = np.concatenate([[0.0], np.cumsum(y)])
    ends = np.arange(1, len(y) + 1)
    starts = np.maximum(ends - size, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95% interval of the mean over axis 0, by a percentile bootstrap over runs; the same each time.

    Args:
        values: f64[S, P].

    Returns:
        Lower and upper ends, f64[P]; NaN for a single run, which says nothing of the spread.
    """
    if len(values) < 2:
        unknown = np.full(values.shape[1], math.nan)
        return unknown, unknown
    from scipy.stats import bootstrap

    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=100,
        axis=0,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return interval.low, interval.high


def final(runs: Sequence[Run], metric: str) -> Final:
    """A metric at the end of several runs, as far as the shortest one goes.

    Raises:
        ConfigError: as `common_curve`.
    """
    x, values = common_curve(runs, metric)
    last = values[:, x > (1 - _LAST) * x[-1]].mean(axis=1, keepdims=True)
    low, high = mean_interval(last)
    longest = max(int(run.columns["global_step"][-1]) for run in runs)
    return Final(len(runs), float(last.mean()), float(low[0]), float(high[0]), int(x[-1]), longest)
