"""Sends a run to Weights & Biases."""

import json
import re
import secrets
from pathlib import Path
from typing import Any

from trxl_jax.config import Config
from trxl_jax.errors import ConfigError, disk_errors, is_text
from trxl_jax.files import read_text, write_text_atomically

_LONGEST_NAME = 128  # characters
_ID_FILE = "wandb_id.txt"
_ID = r"[^:;,#?/']{1,128}"  # W&B refuses the other characters


class WandbRun:
    """A run of W&B that belongs to a run directory; a resumed run goes on in the same one.

    Args:
        run_dir: the run's directory, which exists.
        config: the run's configuration.

    Raises:
        ConfigError: the extra `wandb` is missing, there is no login, or W&B refuses a name.
        UserError: the directory can't be written.
    """

    def __init__(self, run_dir: Path, config: Config) -> None:
        try:
            import wandb
        except ImportError:
            raise ConfigError("--track needs Weights & Biases: pip install wandb") from None
        with disk_errors(run_dir, "--run_dir"):
            run_id = _id_of(run_dir)
        try:
            self._run: Any = wandb.init(
                project=config.wandb_project_name,
                entity=config.wandb_entity,
                config=json.loads(config.to_json()),
                name=run_dir.name[:_LONGEST_NAME],
                group=group_of(run_dir.name, config.seed)[:_LONGEST_NAME],
                id=run_id,
                dir=str(run_dir),
                resume="allow",
                allow_val_change=True,
            )
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"--track: {reason} (without a login: `wandb login`, or WANDB_MODE=offline)") from None
        self._run.define_metric("*", step_metric="global_step")

    def log(self, row: dict[str, Any]) -> None:
        """Sends a row, unless W&B has it: a process that was killed may have sent rows that a resumed run repeats."""
        if row["global_step"] >= self._run.starting_step:
            self._run.log(row, step=row["global_step"])

    def log_video(self, global_step: int, path: Path) -> None:
        """Sends a video, which becomes part of the row of its step."""
        import wandb

        self.log({"global_step": global_step, "videos": wandb.Video(str(path), format="mp4")})

    def finish(self) -> None:
        """Waits until everything is sent."""
        self._run.finish()


def group_of(run: str, seed: int) -> str:
    """The common part of the names of runs that differ only in seed and start time."""
    return re.sub(rf"__{seed}(__\d+)?$", "", run)


def _id_of(run_dir: Path) -> str:
    """The id of a run directory's W&B run, kept in the directory: other directories may have the same last name.

    Raises:
        OSError: it can't be written.
    """
    path = run_dir / _ID_FILE
    try:
        kept = read_text(path).strip()
    except FileNotFoundError:
        # Version 0.1.0 took the last name.
        kept = run_dir.name if (run_dir / "wandb").is_dir() else ""
    if re.fullmatch(_ID, kept) and is_text(kept):
        return kept
    return _new_id(run_dir)


def _new_id(run_dir: Path) -> str:
    new = secrets.token_hex(8)
    write_text_atomically(run_dir / _ID_FILE, new + "\n")
    return new


def forget_run(run_dir: Path) -> None:
    """Gives a run directory that was tracked a new id, so that W&B doesn't take the next run for the one before.

    Raises:
        OSError: it can't be written.
    """
    if (run_dir / _ID_FILE).exists() or (run_dir / "wandb").is_dir():
        _new_id(run_dir)
