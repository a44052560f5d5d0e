"""A run that is killed again and again must end with the numbers of one that never was."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.support.command import DEVICE, HOST, assert_all_ended, rows, start
from trxl_jax.runs import checkpoint
from trxl_jax.signals import STOPPING

TASKS = {
    "device": DEVICE,
    "host": HOST,
    "workers": [*HOST, "--async_envs"],
    "seeds": [*DEVICE, "--num_seeds", "2"],
}
UPDATES = 40
FLAGS = ["--total_timesteps", str(32 * UPDATES), "--save_every", "3", "--eval_every", "5", "--eval_episodes", "2"]
MAX_KILLS = 10  # of one run
PATIENCE = 300.0  # seconds


class Whole(NamedTuple):
    """A run that nothing interrupted.

    Fields:
        run_dir: its directory.
        seconds: how long it took, with all programs in the cache.
    """

    run_dir: Path
    seconds: float


class Kills:
    """Rounds of kills.

    Fields:
        count: processes killed so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._whole: dict[str, Whole] = {}

    def play_round(self, rng: random.Random, directory: Path) -> str:
        """Trains one run through up to `MAX_KILLS` kills; returns what was done.

        Raises:
            AssertionError: a number differs, a row is lost, a process stays, or an ending isn't as promised.
        """
        task = rng.choice(list(TASKS))
        if task not in self._whole:
            self._whole[task] = _train_whole(task, directory)
        whole = self._whole[task]
        run_dir = directory / f"{task}_killed"
        _remove(task, run_dir)
        story: list[str] = []
        for _ in range(rng.randint(1, MAX_KILLS)):
            number = rng.choice([signal.SIGKILL, *STOPPING])
            group, seconds = rng.random() < 0.5, rng.uniform(0, whole.seconds)
            process = _start(task, run_dir)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                (os.killpg if group else os.kill)(process.pid, number)
                self.count += 1
                story.append(f"{signal.Signals(number).name}{' to all' if group else ''} after {seconds:.1f} s")
            _check_end(process, number, _directories(task, run_dir), story)
        process = _start(task, run_dir)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, f"{story}: {err}"
        assert err == "", f"{story}: {err}"
        for ours, theirs in zip(_directories(task, run_dir), _directories(task, whole.run_dir), strict=True):
            assert rows(ours) == rows(theirs), f"{story}: rows differ in {ours}"
            _assert_same_parameters(ours, theirs, story)
        return f"{task}: {', '.join(story)}"


def _directories(task: str, run_dir: Path) -> list[Path]:
    """Those of its runs: seeds side by side have one each."""
    return [run_dir.with_name(f"{run_dir.name}__{seed}") for seed in (1, 2)] if task == "seeds" else [run_dir]


def _remove(task: str, run_dir: Path) -> None:
    for directory in _directories(task, run_dir):
        shutil.rmtree(directory, ignore_errors=True)


def _train_whole(task: str, directory: Path) -> Whole:
    run_dir = directory / f"{task}_whole"
    for _ in range(2):  # the second one finds its programs in the cache
        _remove(task, run_dir)
        started = time.monotonic()
        process = _start(task, run_dir)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    return Whole(run_dir, time.monotonic() - started)


def _start(task: str, run_dir: Path) -> "subprocess.Popen[str]":
    return start(*TASKS[task], *FLAGS, "--run_dir", run_dir, "--resume", "auto", start_new_session=True)


def _check_end(process: "subprocess.Popen[str]", number: int, run_dirs: list[Path], story: list[str]) -> None:
    """Checks status, message and files of a process to which a signal was sent, unless it had ended by itself."""
    _, err = process.communicate(timeout=PATIENCE)
    assert_all_ended(process.pid)
    # The default action of a signal counts only before our handlers stand, when Python itself is still starting.
    assert process.returncode in (0, 128 + number, -number), f"{story}: status {process.returncode}: {err}"
    assert number == signal.SIGKILL or err in ("", "error: interrupted\n") or process.returncode == -number, (
        f"{story}: {err}"
    )
    for run_dir in run_dirs:
        newest = checkpoint.latest(run_dir / "checkpoints")
        if process.returncode in (0, 128 + number) and err == "" and newest is not None:
            logged = [row["iteration"] for row in rows(run_dir)]
            assert (logged or [0])[-1] == int(newest.name), f"{story}: an update was not saved"


def _assert_same_parameters(run_dir: Path, whole: Path, story: list[str]) -> None:
    ours, theirs = (checkpoint.restore_params(path / "checkpoints" / str(UPDATES)) for path in (run_dir, whole))
    import jax

    same = jax.tree.map(np.array_equal, ours, theirs)
    assert all(jax.tree.leaves(same)), f"{story}: parameters differ in {run_dir}"
