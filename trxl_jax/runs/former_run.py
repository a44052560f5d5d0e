"""What a run that starts over removes of the one that left no checkpoint in its directory."""

import re
import shutil
from pathlib import Path

from trxl_jax.errors import ConfigError
from trxl_jax.runs import checkpoint, tracking


def forget_former_run(run_dir: Path) -> None:
    """Removes what would be taken for the new run's: the best agent, videos and the id of W&B. Nothing else.

    Raises:
        ConfigError: beside the best agent is something that no run has written.
        OSError: the directory can't be written.
    """
    _remove_best(run_dir / "best")
    videos = run_dir / "videos"
    for path in () if videos.is_symlink() or not videos.is_dir() else videos.iterdir():
        if re.fullmatch(r"step_\d+\.mp4", path.name) and path.is_file() and not path.is_symlink():
            path.unlink()
    tracking.forget_run(run_dir)


def _remove_best(directory: Path) -> None:
    if checkpoint.latest(directory) is None:
        return
    foreign = [directory] if directory.is_symlink() else [p for p in directory.iterdir() if not checkpoint.is_own(p)]
    if foreign:
        raise ConfigError(
            f"--run_dir {directory.parent}: an earlier run left its best agent, and {min(foreign)} isn't of a run; "
            f"move {directory} away, or name another directory"
        )
    shutil.rmtree(directory)
