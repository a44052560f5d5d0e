"""Writes metrics to `metrics.jsonl`, TensorBoard and W&B."""

import contextlib
import json
import math
import time
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from trxl_jax.config import Config
from trxl_jax.runs.rows import RowFile
from trxl_jax.runs.tracking import WandbRun


class Logger:
    """Writes one row an update to every sink, and to that row what its evaluation adds.

    Args:
        run_dir: the run's directory, which exists.
        config: the run's configuration.
        iteration: updates already done; rows of later ones, written by an interrupted session, are dropped.

    Fields:
        warnings: what its user should know, a line each.

    Raises:
        ConfigError: `--track` can't be used, or `metrics.jsonl` is no file.
        OSError: the directory can't be written.
    """

    def __init__(self, run_dir: Path, config: Config, iteration: int = 0) -> None:
        self._wandb = WandbRun(run_dir, config) if config.track else None
        path = run_dir / "metrics.jsonl"
        self._rows = RowFile(path, iteration)
        self._events = EventsWriter(str(run_dir / "events"), filename_suffix=f".{iteration}")
        # Makes TensorBoard discard what an interrupted session wrote from this step on.
        resumed_at = iteration * config.batch_size + 1
        self._write_event(Event(step=resumed_at, session_log=SessionLog(status=SessionLog.START)), flush=False)
        self._write_event(Event(summary=summary.text("hyperparameters", _as_table(config))))
        damaged = self._rows.num_damaged
        self.warnings = [f"warning: {damaged} damaged lines of {path} are left out"] if damaged else []

    def write(self, global_step: int, iteration: int, metrics: dict[str, float]) -> None:
        """Writes a row. A metric without a finite value is left out: NaN is not JSON.

        Raises:
            OSError: a file can't be written, for example because the disk is full.
        """
        metrics = _finite(metrics)
        self._rows.append({"global_step": global_step, "iteration": iteration, **metrics})
        self._write_scalars(global_step, metrics)

    @property
    def newest_row(self) -> dict[str, float]:
        """The row of the newest update; empty if there is none."""
        return self._rows.newest

    @property
    def has_evaluation(self) -> bool:
        """Whether the newest row holds an evaluation."""
        return any(name.startswith("eval/") for name in self.newest_row)

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
            self._wandb.log_video(global_step, path)

    def sync(self) -> None:
        """Waits until the disk has the rows.

        Raises:
            OSError: it failed or is full.
        """
        self._rows.sync()

    def close(self) -> None:
        """Flushes and closes every sink; errors of a full disk have been reported by `write`."""
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
