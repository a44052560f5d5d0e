"""Episodes of the released POPGym in files, `tests/golden/popgym/<task>.npz`, for clones that have no popgym.

    python -m tests.support.popgym_golden

writes them; it needs popgym 1.0.7 and NumPy 2.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.support.paths import ROOT
from tests.support.popgym import PLAYERS, Episodes, record
from trxl_jax.envs.registry import make_single
from trxl_jax.envs.tasks.popgym import GAMES, HOST_PREFIX

FOLDER = ROOT / "tests" / "golden" / "popgym"
_SEED = 1000


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.npz"


def write(name: str) -> None:
    """Records an episode of each player, and writes them with the smallest types that hold their numbers."""
    episodes = record(make_single(HOST_PREFIX + name).unwrapped, len(PLAYERS), _SEED)
    leaves = jax.tree.leaves(episodes)
    np.savez_compressed(path_of(name), *[x if x.dtype == np.float32 else smallest(x) for x in leaves])


def smallest(x: np.ndarray) -> np.ndarray:
    return x if x.dtype == bool else x.astype(np.min_scalar_type(int(x.max())))


def read(name: str, task: Any) -> Episodes:
    """The recorded episodes of a task."""
    with np.load(path_of(name)) as file:
        leaves = [file[key] for key in file.files]
    leaves = [x if x.dtype in (np.float32, bool) else x.astype(np.int32) for x in leaves]
    parts = len(leaves) - len(Episodes._fields) + 1
    drawn = jax.eval_shape(task.init_layout, jax.random.key(0), task.default_params)
    layout = type(drawn)(*leaves[:parts]) if isinstance(drawn, tuple) else leaves[0]
    return Episodes(layout, *leaves[parts:])


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for task in GAMES:
        write(task)
