"""Learning curves: read from runs or CSV files, grouped, and interpolated to common steps."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from trxl_jax.config import RESUMABLE_FIELDS, Config, load_config
from trxl_jax.errors import ConfigError, printable
from trxl_jax.runs.rows import read_rows

AXES = {
    "steps": ("global_step", 1),
    "updates": ("iteration", 1),
    "hours": ("hours", 1),
    "minutes": ("hours", 60),
}
"""The column that holds each x axis, and how many units of the axis one of the column is."""

_X_COLUMNS = dict.fromkeys(column for column, _ in AXES.values())  # in order

_GRID_POINTS = 200
_REMEDY = "name runs' directories or CSV files"
_EXPERIMENT = "experiment"
_NOT_GROUPED = RESUMABLE_FIELDS | {"seed", "run_dir", _EXPERIMENT}
# Names that curves of the original have in CSV files.
_SYNONYMS = {"return_mean": "episode/r_mean", "length_mean": "episode/l_mean"}
_TEXT = ["run", "seed", "group"]
# Spreadsheets compute cells that begin so; an apostrophe before them marks text.
_FORMULA = r"([=+\-@\t\r])"


def read_runs(paths: Iterable[Path], group_by: Sequence[str] = ()) -> pd.DataFrame:
    """Reads runs' directories, folders of such directories, and CSV files; a run without an update gets a notice.

    Args:
        paths: a CSV file has the columns seed, global_step and metrics, and perhaps run, group, iteration and hours.
        group_by: names of settings that label a run from a directory, or `experiment`, its name without the seed, as
            `python -m trxl_jax.experiments` names runs. Empty: the task and the settings that differ
            between runs of the same task, without the seed and those that alter no number.

    Returns:
        A row an update; level 0 of the index is the run's number. Columns: `run`, its name; `seed`, text; `group`, a
        label, in order; and as f64 `global_step`, rising in a run; `iteration` and `hours` of wall clock, if known;
        metrics. NaN where a row lacks one.

    Raises:
        ConfigError: a path is none of these or damaged, no run has an update, or a name is not that of a setting.
    """
    for name in group_by:
        if name not in Config.__dataclass_fields__ and name != _EXPERIMENT:
            raise ConfigError(f"--group_by {name}: it is neither a flag of train.py nor {_EXPERIMENT}")
    found = [run for path in _without_folders(paths) for run in _read(path)]
    if not found:
        raise ConfigError("there is nothing to plot: none of the runs has done an update")
    settings = [own for own, _ in found if own]
    for own, rows in found:
        if own:
            rows["group"] = _label(own, settings, group_by)
    runs = pd.concat([rows for _, rows in found], keys=range(len(found)), names=["number", "row"])
    # Numbers in labels are sorted as numbers.
    labels = sorted(runs["group"].unique(), key=lambda label: re.sub(r"\d+", lambda digits: digits[0].zfill(20), label))
    return runs.assign(group=pd.Categorical(runs["group"], labels))


def _without_folders(paths: Iterable[Path]) -> list[Path]:
    """Each run's directory and each file once."""
    found: dict[Path, Path] = {}
    for path in paths:
        runs = [] if (path / "config.json").is_file() else sorted(file.parent for file in path.glob("*/config.json"))
        found |= {run.resolve(): run for run in runs or [path]}
    # Logs of `experiments` are in the folder of its runs, where runs/* finds them.
    return [path for path in found.values() if path.is_dir() or path.suffix != ".log"]


def _read(path: Path) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """Settings and rows of each run; a CSV file has no settings, a directory no groups."""
    try:
        return _read_directory(path) if path.is_dir() else _read_csv(path)
    except ConfigError:
        raise
    except (OSError, TypeError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ConfigError(f"{path}: {reason}; {_REMEDY}") from None


def _read_directory(path: Path) -> list[tuple[dict[str, str], pd.DataFrame]]:
    if not (path / "config.json").is_file():
        raise ConfigError(f"{path}: no config.json in it; {_REMEDY}")
    config, file = load_config(path / "config.json"), path / "metrics.jsonl"
    found = read_rows(file)
    if found.num_damaged and not found.rows:
        raise ConfigError(f"{file}: no line of it is a row of metrics with global_step and iteration")
    if found.num_damaged:
        print(printable(f"{file}: {found.num_damaged} damaged lines, left out"), file=sys.stderr)
    if not found.rows:
        print(printable(f"{path}: no update yet, left out"), file=sys.stderr)
        return []
    rows = _numbers(pd.DataFrame(found.rows), str(file))
    if "charts/SPS" in rows:
        steps = rows["global_step"].diff().fillna(rows["global_step"])
        rows["hours"] = (steps / rows["charts/SPS"]).cumsum() / 3600
    name = path.resolve().name
    settings = _settings(config) | {_EXPERIMENT: name.removesuffix(f"__{config.seed}")}
    return [(settings, rows.assign(run=name, seed=str(config.seed)))]


def _read_csv(path: Path) -> list[tuple[dict[str, str], pd.DataFrame]]:
    cells = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    if not {"seed", "global_step"} <= set(cells):
        raise ConfigError(f"{path}: it lacks the columns seed and global_step; {_REMEDY}")
    if not isinstance(cells.index, pd.RangeIndex):
        raise ConfigError(f"{path}: its rows have more cells than its header")
    text = (
        cells.reindex(columns=_TEXT).astype("string").replace(f"^'{_FORMULA}", r"\1", regex=True).fillna({"seed": ""})
    )
    text["group"] = text["group"].fillna(path.stem)
    text["run"] = text["run"].fillna(text["group"] + "__" + text["seed"])
    rows = cells.drop(columns=_TEXT, errors="ignore")
    rows = rows.rename(columns={old: new for old, new in _SYNONYMS.items() if new not in rows})
    runs = text.groupby(_TEXT, sort=False)
    return [({}, _numbers(rows.loc[run.index], f"{path}, run {key[0]}").join(run)) for key, run in runs]


def _numbers(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows as f64, infinite values as NaN, with a global_step that rises."""
    rows = rows.astype(float).replace([np.inf, -np.inf], np.nan)
    if "global_step" not in rows or rows["global_step"].isna().any():
        raise ConfigError(f"{where}: a row has no global_step; remove it")
    if (rows["global_step"].diff() <= 0).any():
        raise ConfigError(f"{where}: global_step doesn't rise")
    return rows


def _settings(config: Config) -> dict[str, str]:
    """A run's settings by name, as labels show them."""
    texts = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in vars(config).items()}
    return {name: str(text) if name == "env_id" else f"{name} {text}" for name, text in texts.items()}


def _label(own: Mapping[str, str], settings: Sequence[Mapping[str, str]], group_by: Sequence[str]) -> str:
    of_task = [each for each in settings if each["env_id"] == own["env_id"]]
    differing = [name for name in own if name not in _NOT_GROUPED and len({each[name] for each in of_task}) > 1]
    return ", ".join(own[name] for name in group_by or ("env_id", *differing))


def check_metrics(runs: pd.DataFrame, metrics: Sequence[str]) -> None:
    """Prints a notice for each run that lacks one of the metrics.

    Raises:
        ConfigError: no run has it.
    """
    numbers = set(runs) - set(_TEXT)
    for metric in metrics:
        if metric not in numbers or runs[metric].isna().all():
            known = ", ".join(sorted(numbers - _X_COLUMNS.keys())) or "none"
            raise ConfigError(f"--metric {metric}: no run has it yet; metrics are {known}")
        for _, run in runs.groupby(level=0):
            if run[metric].isna().all():
                print(printable(f"{run['run'].iloc[0]}: no {metric} yet, left out"), file=sys.stderr)


def common_curve(runs: pd.DataFrame, metric: str, axis: str = "steps", smooth: int = 1) -> pd.DataFrame:
    """A metric of several runs on one grid, nowhere extrapolated.

    The grid has the runs' own points if they are at most 200, else 200 evenly spaced ones; between a run's points the
    metric is interpolated linearly.

    Args:
        runs: as `read_runs` returns them, of one group; those without the metric are left out.
        metric: its name.
        axis: a key of `AXES`.
        smooth: rows over which a running mean is taken first; the first rows have fewer before them.

    Returns:
        f64[P, S]: a column a run; the index holds the points, from where all runs have the metric to where the first
        run ends.

    Raises:
        ConfigError: a run lacks the axis, or there is no point that all runs have.
    """
    columns = []
    column, units = AXES[axis]
    for _, run in runs.dropna(subset=[metric]).groupby(level=0):
        if column not in run or run[column].isna().all():
            raise ConfigError(f"--x {axis}: {run['run'].iloc[0]} has no column {column}; use --x steps")
        points = pd.DataFrame({"x": run[column] * units, "y": run[metric]}).dropna().drop_duplicates("x").set_index("x")
        columns.append(points["y"].rolling(smooth, min_periods=1).mean() if smooth > 1 else points["y"])
    curve = _interpolate(pd.concat(columns, axis=1, keys=range(len(columns))))
    if curve.empty:
        name = runs["run"].iloc[0]
        raise ConfigError(f"--metric {metric}: {name} and its group have no {axis} in common; leave out a run")
    if len(curve) <= _GRID_POINTS:
        return curve
    grid = pd.Index(np.linspace(curve.index[0], curve.index[-1], _GRID_POINTS), name="x")
    return _interpolate(curve.reindex(curve.index.union(grid))).loc[grid]


def _interpolate(curve: pd.DataFrame) -> pd.DataFrame:
    return curve.sort_index().interpolate("index", limit_area="inside").dropna()


def write_csv(path: Path, runs: pd.DataFrame, metrics: Sequence[str]) -> None:
    """Writes at most 200 rows a run and metric, evenly spread over those that have it; `read_runs` reads them again."""
    names = list(dict.fromkeys([*_X_COLUMNS, *metrics]))
    kept = [_thinned(run[metric].dropna()) for _, run in runs.groupby(level=0) for metric in metrics]
    table = runs.loc[pd.concat(kept).index.unique().sort_values()].reindex(columns=[*_TEXT, *names])
    table = table.sort_values("group", kind="stable").astype(dict.fromkeys(_TEXT, "string"))
    table[_TEXT] = table[_TEXT].replace(f"^{_FORMULA}", r"'\1", regex=True)
    table.to_csv(path, index=False, float_format=_written, lineterminator="\n")


def _thinned(values: pd.Series) -> pd.Series:
    """At most 200 of the values, the first and the last among them."""
    return values.iloc[np.linspace(0, len(values) - 1, min(_GRID_POINTS, len(values))).round().astype(int)]


def _written(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else f"{value:.6g}"
