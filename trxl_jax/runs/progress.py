"""The progress line of a run."""

import math
import sys
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from trxl_jax.config import Config
from trxl_jax.envs.base import Environment
from trxl_jax.standard_streams import LastingStream

_SECONDS_BETWEEN_LINES = 10.0


class ProgressLine:
    """Steps, steps per second, return and time left; a live line on a terminal, otherwise a line every 10 seconds."""

    def __init__(self, config: Config, iteration: int) -> None:
        self._total = config.num_iterations * config.batch_size
        self._console = Console(file=LastingStream(sys.stdout))
        self._printed = -math.inf
        self._progress: Progress | None = None
        if self._console.is_terminal:
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

    def show(self, global_step: int, metrics: dict[str, float]) -> None:
        """Shows the state after an update."""
        speed = metrics["charts/SPS"]
        note = f"{speed:,.0f} steps/s"
        if "episode/r_mean" in metrics:
            note += f"  return {metrics['episode/r_mean']:.2f}  length {metrics['episode/l_mean']:.0f}"
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
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Ends the live line."""
        if self._progress is not None:
            self._progress.stop()


def opening_lines(config: Config, run_dir: Path, params: Any, env: Environment) -> list[str]:
    """What a run says before it compiles: task, device, size of the agent, directory and budget.

    Args:
        config: the run's configuration.
        run_dir: its directory.
        params: the agent's variables.
        env: its environments.
    """
    device = jax.devices()[0]
    place = "host" if env.on_host else "device"
    size = sum(leaf.size for leaf in jax.tree.leaves(params["params"]))
    updates, steps = config.num_iterations, config.num_iterations * config.batch_size
    budget = f"{steps:,} steps in {updates:,} update{'s' * (updates > 1)} of {config.batch_size:,}"
    if steps < config.total_timesteps:
        budget += f" (--total_timesteps {config.total_timesteps:,} is rounded down to whole updates)"
    return [
        f"{config.env_id}: {config.num_envs} environments on the {place}",
        f"agent of {size:,} parameters on {device.platform} ({device.device_kind})",
        f"run directory {run_dir}",
        budget,
    ]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:.0f}:{minutes:02.0f}:{seconds:02.0f}"
