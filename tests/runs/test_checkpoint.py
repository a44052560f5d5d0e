"""Checkpoints on a disk without room for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SAVE = """
import os, sys, time
from pathlib import Path
import numpy as np
from trxl_jax.errors import CheckpointError
from trxl_jax.runs import checkpoint

directory = Path(sys.argv[1])
checkpoint.save(directory, 1, {"x": np.zeros(10)}, {}, keep=1)
for _ in range(2):
    try:
        checkpoint.save(directory, 2, {"x": np.random.default_rng(0).random(10**6)}, {}, keep=1)
    except CheckpointError as error:
        print(error)
    vars(os).pop("posix_fallocate", None)  # as on macOS
print(checkpoint.latest(directory), os.listdir(directory))
"""


def test_a_disk_without_room_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m none "$0" && exec "$@"']
    inside = [*mount, str(tmp_path)]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    process = subprocess.run(
        [*inside, sys.executable, "-c", SAVE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    *errors, kept = process.stdout.splitlines()
    assert errors == [
        f"can't save checkpoint {tmp_path / '2'}: No space left on device; free some disk space; "
        f"the newest complete one is {tmp_path / '1'}"
    ] * 2, process.stderr  # fmt: skip
    assert kept == f"{tmp_path / '1'} ['1']"
    assert not process.stderr
