"""What runs print: lines at the start and at the end, and the progress line; of one run, or of several side by side."""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from trxl_jax.config import Config
from trxl_jax.envs.groups import AnyEnvironment, GroupedEnvironment
from trxl_jax.errors import printable
from trxl_jax.runs.run import RunResult
from trxl_jax.standard_streams import LastingStream

_SECONDS_BETWEEN_LINES = 10.0


class ProgressLine:
    """Steps, steps per second, return and time left; a live line on a terminal, otherwise a line every 10 seconds.

    Of several runs it shows the mean of each number, and the range of their returns.
    """

    def __init__(self, config: Config, iteration: int, *, quiet: bool = False) -> None:
        self._total = config.num_iterations * config.batch_size
        self._console = Console(file=LastingStream(sys.stdout), quiet=quiet)
        self._printed = -math.inf
        self._progress: Progress | None = None
        if self._console.is_terminal and not quiet:
            self._progress = Progress(
                TextColumn("{task.completed:>11,.0f} / {task.total:,.0f} steps"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
                console=self._console,
                speed_estimate_period=300,
            )
            self._task = self._progress.add_task(
                "", total=self._total, completed=iteration * config.batch_size, note="compiling"
            )
            self._progress.start()

    def show(self, global_step: int, rows: Sequence[dict[str, float]]) -> None:
        """Shows the state after an update: steps of each run, and the row of each."""
        speed, note = rows[0]["charts/SPS"], _note(rows)
        if self._progress is not None:
            self._progress.update(self._task, completed=global_step, note=note)
            return
        now = time.monotonic()
        if now - self._printed >= _SECONDS_BETWEEN_LINES or global_step >= self._total:
            self._printed = now
            left = (self._total - global_step) / speed
            self._console.print(
                f"{global_step:>11,} / {self._total:,} steps  {note}  {_duration(left)} left",
                highlight=False,
                soft_wrap=True,
            )

    def say(self, text: str) -> None:
        """Prints a line above the progress line."""
        self._console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Ends the live line."""
        if self._progress is not None:
            self._progress.stop()


def opening_lines(config: Config, run_dirs: Sequence[Path], params: Any, env: AnyEnvironment) -> list[str]:
    """What a run says before it compiles: task, device, size of the agent, directory and budget.

    Args:
        config: the run's configuration, or that of the first of several.
        run_dirs: the directory of each.
        params: the agent's variables.
        env: its environments.
    """
    device = jax.devices()[0]
    place = "host" if env.on_host else "device"
    several = len(run_dirs) > 1
    size = sum(leaf.size for leaf in jax.tree.leaves(params["params"]))
    updates, steps = config.num_iterations, config.num_iterations * config.batch_size
    budget = f"{steps:,} steps in {updates:,} update{'s' * (updates > 1)} of {config.batch_size:,}"
    budget += " for each seed" * several
    if steps < config.total_timesteps:
        budget += f" (--total_timesteps {config.total_timesteps:,} is rounded down to whole updates)"
    if isinstance(env, GroupedEnvironment):
        count = len(env.layout.devices)
        place += f", in {env.layout.num_groups} groups on {count} device{'s' * (count > 1)}"
    together = f" for each of {len(run_dirs)} seeds, which train side by side" * several
    return [
        f"{config.env_id}: {config.num_envs} environments on the {place}{together}",
        f"agent of {size:,} parameters on {device.platform} ({device.device_kind})",
        *(f"run directory {run_dir}" for run_dir in run_dirs),
        budget,
    ]


def closing_lines(results: Sequence[RunResult]) -> list[str]:
    """What runs say that have done all their steps: mean returns and directories."""
    steps = f"done: {min(result.global_step for result in results):,} steps"
    if len(results) == 1:
        return [f"{steps}{_score(results[0])}; see {results[0].run_dir}"]
    scores = [result.metrics["episode/r_mean"] for result in results if "episode/r_mean" in result.metrics]
    mean = f", mean return {_mean_and_range(scores)}" if scores else ""
    return [
        f"{steps} of each of {len(results)} seeds{mean}",
        *(f"  seed {result.seed}{_score(result)}; see {result.run_dir}" for result in results),
    ]


def _score(result: RunResult) -> str:
    n = result.num_episodes
    over = "1 episode" if n == 1 else f"the last {n} episodes"
    score = result.metrics.get("episode/r_mean")
    return ", no episode has ended yet" if score is None else f", mean return {score:.2f} over {over}"


def _mean_and_range(values: Sequence[float]) -> str:
    """The mean with two decimals, and of several values their range: `0.52 (0.41 to 0.63)`."""
    mean = f"{math.fsum(values) / len(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2f} to {max(values):.2f})"


def _note(rows: Sequence[dict[str, float]]) -> str:
    """Speed, and return and length where an episode has ended."""
    note = f"{rows[0]['charts/SPS']:,.0f} steps/s"
    if len(rows) > 1:
        note = f"{len(rows)} seeds, {note} each"
    known = [row for row in rows if "episode/r_mean" in row]
    if known:
        length = math.fsum(row["episode/l_mean"] for row in known) / len(known)
        note += f"  return {_mean_and_range([row['episode/r_mean'] for row in known])}  length {length:.0f}"
    return note


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:.0f}:{minutes:02.0f}:{seconds:02.0f}"
