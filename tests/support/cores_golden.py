"""Reference vectors of memory cores, `tests/golden/cores/` and the directory that TRXL_CORES_GOLDEN_DIR names."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.support.paths import GOLDEN

DIRECTORIES = [GOLDEN / "cores", *map(Path, filter(None, [os.environ.get("TRXL_CORES_GOLDEN_DIR")]))]

OUTPUTS = 1e-5
GRADIENTS = 2e-5


class CoreFile(NamedTuple):
    """A file's sizes and options, and its arrays by the names that follow `in/`, `param/`, `out/` and `grad/`."""

    meta: dict[str, Any]
    inputs: dict[str, np.ndarray]
    params: dict[str, np.ndarray]
    out: dict[str, np.ndarray]
    grad: dict[str, np.ndarray]


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The file's sizes and options, and its arrays by their whole names."""
    data = dict(np.load(path))
    return json.loads(bytes(data.pop("meta")).decode()), data


def read(path: Path) -> CoreFile:
    meta, data = read_arrays(path)

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in data.items() if name.startswith(prefix)}

    return CoreFile(meta, part("in/"), part("param/"), part("out/"), part("grad/"))


def files(kinds: Collection[str]) -> list[Path]:
    """The files whose `variant` is one of `kinds`.

    Raises:
        FileNotFoundError: one of the directories has no files at all.
    """
    found = []
    for directory in DIRECTORIES:
        paths = sorted(directory.glob("*.npz"))
        if not paths:
            raise FileNotFoundError(f"no reference files: {directory}")
        found += paths
    return [path for path in found if read(path).meta["variant"] in kinds]


def tree(params: dict[str, np.ndarray]) -> dict[str, Any]:
    """Arrays with names such as `out/kernel` as nested dictionaries."""
    nested: dict[str, Any] = {}
    for name, array in params.items():
        *parents, last = name.split("/")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = array
    return nested


def assert_close(name: str, ours: Any, theirs: np.ndarray, bound: float) -> None:
    """Largest difference within `bound` of the reference's largest magnitude, or of 1 where it is zero."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{name}: {ours.shape} against {theirs.shape}"
    top = np.abs(theirs).max(initial=0.0)
    error = np.abs(ours - theirs).max(initial=0.0) / (top if top > 1e-6 else 1.0)
    assert error <= bound, f"{name}: off by {error:.2e} of the largest magnitude, {bound:.0e} allowed"
