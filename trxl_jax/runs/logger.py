"""Writes metrics to `metrics.jsonl`, TensorBoard and W&B, and prints a progress line."""

import contextlib
import json
import math
import re
import time
from pathlib import Path
from typing import Any

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from trxl_jax.config import Config
from trxl_jax.errors import ConfigError
from trxl_jax.runs.metric_rows import MetricRows
from trxl_jax.runs.progress import ProgressLine


class Logger:
    """Writes one row an update to every sink, and to that row what its evaluation adds.

    Args:
        run_dir: the run's directory, which exists.
        config: the run's configuration.
        iteration: updates already done; rows of later ones, written by an interrupted session, are dropped.

    Raises:
        ConfigError: `--track` without the extra `wandb`.
        OSError: the directory can't be written.
    """

    def __init__(self, run_dir: Path, config: Config, iteration: int = 0) -> None:
        self._wandb = _start_wandb(run_dir, config) if config.track else None
        self._rows = MetricRows(run_dir / "metrics.jsonl", iteration)
        self._events = EventsWriter(str(run_dir / "events"), filename_suffix=f".{iteration}")
        # Makes TensorBoard discard what an interrupted session wrote from this step on.
        resumed_at = iteration * config.batch_size + 1
        self._write_event(Event(step=resumed_at, session_log=SessionLog(status=SessionLog.START)), flush=False)
        self._write_event(Event(summary=summary.text("hyperparameters", _as_table(config))))
        self._progress = ProgressLine(config, iteration)

    def write(self, global_step: int, iteration: int, metrics: dict[str, float]) -> None:
        """Writes a row. A metric without a finite value is left out: NaN is not JSON.

        Raises:
            OSError: a file can't be written, for example because the disk is full.
        """
        metrics = _finite(metrics)
        self._rows.append({"global_step": global_step, "iteration": iteration, **metrics})
        self._write_scalars(global_step, metrics)
        self._progress.show(global_step, metrics)

    @property
    def has_evaluation(self) -> bool:
        """Whether the newest row holds an evaluation."""
        return any(name.startswith("eval/") for name in self._rows.newest)

    def add_to_row(self, global_step: int, metrics: dict[str, float]) -> None:
        """Adds metrics of the same step to the newest row.

        Raises:
            OSError: a file can't be written.
        """
        self._rows.extend(_finite(metrics))
        self._write_scalars(global_step, _finite(metrics))

    def write_video(self, global_step: int, path: Path) -> None:
        """Sends a video that is in the run's directory to W&B, if the run is tracked there."""
        if self._wandb is not None:
            import wandb

            self._wandb.log({"global_step": global_step, "videos": wandb.Video(str(path), format="mp4")})

    def say(self, text: str) -> None:
        """Prints a line above the progress line."""
        self._progress.say(text)

    def close(self) -> None:
        """Flushes and closes every sink; errors of a full disk have been reported by `write`."""
        self._progress.stop()
        if self._wandb is not None:
            self._wandb.finish()
        for sink in (self._rows, self._events):
            with contextlib.suppress(OSError):
                sink.close()

    def _write_scalars(self, global_step: int, metrics: dict[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write_event(Event(step=global_step, summary=Summary(value=values)))
        if self._wandb is not None:
            self._wandb.log({"global_step": global_step, **metrics})

    def _write_event(self, event: Event, *, flush: bool = True) -> None:
        # The synchronous writer: the usual one's thread swallows the error of a full disk.
        event.wall_time = time.time()
        self._events.write_event(event)
        if flush:
            self._events.flush()


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in sorted(metrics.items()) if math.isfinite(value)}


def _as_table(config: Config) -> str:
    rows = [f"|{name}|{value}|" for name, value in json.loads(config.to_json()).items()]
    return "\n".join(["|param|value|", "|-|-|", *rows])


def group_of(run: str, seed: int) -> str:
    """The common part of the names of runs that differ only in seed and start time."""
    return re.sub(rf"__{seed}(__\d+)?$", "", run)


def _start_wandb(run_dir: Path, config: Config) -> Any:
    try:
        import wandb
    except ImportError:
        raise ConfigError("--track needs Weights & Biases: pip install wandb") from None
    run = wandb.init(
        project=config.wandb_project_name,
        entity=config.wandb_entity,
        config=json.loads(config.to_json()),
        name=run_dir.name,
        group=group_of(run_dir.name, config.seed),
        id=run_dir.name,
        dir=str(run_dir),
        resume="allow",
    )
    run.define_metric("*", step_metric="global_step")
    return run
