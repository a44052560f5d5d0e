"""Reference files of memory cores: `tests/golden/cores/` and the directory that TRXL_CORES_GOLDEN_DIR names."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.paths import GOLDEN

DIRECTORIES = [GOLDEN / "cores", *map(Path, filter(None, [os.environ.get("TRXL_CORES_GOLDEN_DIR")]))]


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The file's description, and its arrays by name: `in/`, `param/`, `out/` and `grad/`."""
    data = dict(np.load(path))
    return json.loads(data.pop("meta").tobytes()), data


def files(kinds: set[str]) -> list[Path]:
    """The files of these variants."""
    missing = [str(directory) for directory in DIRECTORIES if not directory.is_dir()]
    if missing:
        raise FileNotFoundError(f"no reference files: {missing}")
    found = [path for directory in DIRECTORIES for path in sorted(directory.glob("*.npz"))]
    return [path for path in found if read(path)[0]["variant"] in kinds]
