"""Files of runs and models with random damage: read as they were, or refused in one line."""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np

from tests.support.command import DEVICE, TINY
from tests.support.paths import GOLDEN
from trxl_jax import load
from trxl_jax.commands.train import parse
from trxl_jax.errors import UserError
from trxl_jax.runs.trainer import train

SECONDS = 60
LONGEST_LINE = 600
MODEL = GOLDEN / "ProofofMemory-v0_seed1.nn"
_runs: dict[Path, Path] = {}


def damage_run(rng: random.Random, directory: Path) -> str:
    """Damages one file of a finished run, then loads and resumes it; returns what was done.

    Raises:
        AssertionError: neither the same numbers nor one line.
    """
    whole = _runs.get(directory) or _train(directory / "undamaged")
    _runs[directory] = whole
    damaged = directory / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(whole, damaged)
    files = [path for path in sorted(damaged.rglob("*")) if path.is_file() and "events" not in path.name]
    path = rng.choice(files)
    what = _damage(path, rng)
    story = f"{what} {path.relative_to(damaged)}"
    outcomes = []
    for name, call in (("load", lambda: load(damaged).params), ("resume", lambda: _resume(damaged))):
        params = attempt(call, f"{story}, {name}")
        if params is not None:
            same = jax.tree.map(np.array_equal, params, load(whole).params)
            assert all(jax.tree.leaves(same)), f"{story}: {name} read other numbers"
        outcomes.append(f"{name} {'refused' if params is None else 'read the same'}")
    return f"{story}: {', '.join(outcomes)}"


def damage_model(rng: random.Random, directory: Path) -> str:
    """Damages a file of the PyTorch original and reads it; returns what was done."""
    path = directory / MODEL.name
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    shutil.copyfile(MODEL, path)
    what = _damage(path, rng)
    params = attempt(lambda: load(path).params, what)
    return f"{what}: {'refused' if params is None else 'read'}"


def _train(run_dir: Path) -> Path:
    shutil.rmtree(run_dir, ignore_errors=True)
    flags = [*DEVICE, *TINY, "--total_timesteps", "64", "--run_dir", str(run_dir)]
    train(parse(flags).config)
    return run_dir


def _resume(run_dir: Path) -> Any:
    arguments = parse(["--resume", str(run_dir)])
    train(arguments.config, resume=run_dir)
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    return load(run_dir).params


def attempt(call: Callable[[], Any], story: str) -> Any:
    """The result of a call; None if it was refused in one short line."""
    try:
        with _time_limit(story):
            return call()
    except UserError as error:
        line = str(error)
        assert "\n" not in line, f"{story}: {line}"
        assert len(line) <= LONGEST_LINE, f"{story}: a line of {len(line)} characters: {line[:200]}"
        return None
    except AssertionError:
        raise
    except BaseException as error:
        raise AssertionError(f"{story}: {type(error).__name__}: {error}") from error


@contextmanager
def _time_limit(story: str) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{story}: no end after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _damage(path: Path, rng: random.Random) -> str:
    """Damages a file; returns in words how."""
    data = bytearray(path.read_bytes())
    what = rng.choice(["flipped bits in", "cut", "overwrote a part of", "emptied", "removed", "a pipe for",
                       "a directory for", "not UTF-8 in"])  # fmt: skip
    match what:
        case "flipped bits in":
            for _ in range(rng.randint(1, 3) if data else 0):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "cut":
            del data[rng.randrange(len(data) + 1) :]
        case "overwrote a part of":
            start = rng.randrange(len(data) + 1)
            data[start : start + 20] = rng.randbytes(20)
        case "emptied":
            data.clear()
        case "not UTF-8 in":
            data[len(data) // 2 : len(data) // 2] = b"\xff\xfe\n"
        case _:
            path.unlink()
            if what == "a pipe for":
                os.mkfifo(path)
            elif what == "a directory for":
                path.mkdir()
            return what
    path.write_bytes(data)
    return what
