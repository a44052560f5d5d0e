"""Checkpoints: disks without room, names of directories, damage."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from tests.support.paths import ROOT
from trxl_jax.errors import CheckpointError, UserError
from trxl_jax.loading import load
from trxl_jax.runs import checkpoint

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


def test_a_checkpoint_is_on_the_disk_before_an_older_one_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a loss of power leaves one of them."""
    directory = tmp_path / "run" / "checkpoints"
    checkpoint.save(directory, 1, {"x": np.zeros(3)}, {}, keep=1)
    synced, fsync = set(), os.fsync

    def record(descriptor: int) -> None:
        assert (directory / "1" / "checksums.json").exists()
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    checkpoint.save(directory, 2, {"x": np.zeros(3)}, {}, keep=1)
    assert os.listdir(directory) == ["2"]
    assert synced >= {*(directory / "2").rglob("*"), directory / "2", directory, tmp_path / "run", tmp_path}


@pytest.mark.parametrize(("keep", "kept"), [(1, ["11"]), (2, ["10", "11"]), (None, ["10", "11", "9"])])
def test_the_newest_are_kept(keep: int | None, kept: list[str], tmp_path: Path) -> None:
    for name in ("9", "10"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes").mkdir()
    checkpoint.save(tmp_path, 11, {"x": np.zeros(3)}, {}, keep=keep)
    assert sorted(os.listdir(tmp_path)) == [*kept, "notes"]


STATE: Any = ({"params": {"params": {"a": jnp.arange(3.0)}}}, jnp.zeros(2))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.save(tmp_path_factory.mktemp("saved"), 7, STATE, {"iteration": 7}, keep=1)


@pytest.mark.parametrize("name", ["[a]", "a*b?", "back\\slash", "a b%41#?&", "gs:", "zwölf", "'\"$~{a,b}", "x[!y"])
def test_directories_may_have_any_name(name: str, tmp_path: Path) -> None:
    directory, neighbour = tmp_path / name / "checkpoints", tmp_path / "aXb1" / "checkpoints"
    checkpoint.save(neighbour, 1, ({"params": {"params": {"a": jnp.ones(3)}}}, jnp.ones(2)), {}, keep=3)
    for iteration in (1, 2):
        path = checkpoint.save(directory, iteration, STATE, {"iteration": iteration}, keep=1)
        checkpoint.check(path)
    assert checkpoint.latest(directory) == directory / "2"
    assert sorted(os.listdir(directory)) == ["2"]
    restored, run = checkpoint.restore(directory / "2", STATE)
    np.testing.assert_array_equal(restored[0]["params"]["params"]["a"], np.arange(3.0))
    assert run == {"iteration": 2}
    np.testing.assert_array_equal(checkpoint.restore_params(directory / "2")["params"]["a"], np.arange(3.0))


def test_a_flipped_bit_in_any_file_without_checksums_of_its_own_is_found(saved: Path, tmp_path: Path) -> None:
    files = [file.relative_to(saved) for file in saved.rglob("*") if file.is_file() and file.parent.name != "d"]
    assert {"metadata", "_METADATA", "_CHECKPOINT_METADATA", "checksums.json"} <= {file.name for file in files}
    copy = tmp_path / "7"
    shutil.copytree(saved, copy)
    for file in files:
        data = (saved / file).read_bytes()
        for position in {0, len(data) // 2, len(data) - 2}:
            (copy / file).write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
            for read in (checkpoint.params_shapes, lambda path: checkpoint.restore(path, STATE)):
                with pytest.raises(CheckpointError, match=r"can't read checkpoint .* (damaged|missing)"):
                    read(copy)
        (copy / file).write_bytes(data)
    (copy / "run" / "metadata").unlink()
    with pytest.raises(CheckpointError, match="run/metadata is missing"):
        checkpoint.restore(copy, STATE)


@pytest.mark.parametrize("text", ["[]", "5", '{"run/metadata": [1]}', "[" * 10**5, '"\\ud800"', "\0", '{"x": "y"}'])
def test_checksums_that_are_none_are_refused(text: str, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "7")
    (tmp_path / "7" / "checksums.json").write_text(text)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.restore(tmp_path / "7", STATE)


def test_what_is_no_file_is_refused_instead_of_waited_for(saved: Path, tmp_path: Path) -> None:
    for number, make in enumerate((os.mkfifo, lambda path: os.symlink("/", path), lambda path: os.symlink("x", path))):
        copy = tmp_path / str(number)
        shutil.copytree(saved, copy)
        (copy / "checksums.json").unlink()
        (copy / "run" / "metadata").unlink()
        make(copy / "run" / "metadata")
        with pytest.raises(CheckpointError, match="run/metadata is not a file"):
            checkpoint.restore(copy, STATE)


def test_other_things_next_to_checkpoints_are_left_out(saved: Path) -> None:
    for name in ("²", "007", "٣", "-1", "8 ", "9" * 400):
        (saved.parent / name).mkdir() if len(name) < 255 else None
    (saved.parent / "8").symlink_to("nowhere")
    os.mkfifo(saved.parent / "9")
    assert checkpoint.latest(saved.parent) == saved


def test_an_array_that_asks_for_terabytes_is_refused(device_run: Path, tmp_path: Path) -> None:
    """Whoever damages it on purpose can leave the checksums out."""
    run_dir = tmp_path / "run"
    for shape in ([10**12], [2]):
        shutil.copytree(device_run, run_dir)
        path = checkpoint.latest(run_dir / "checkpoints")
        assert path is not None
        (path / "checksums.json").unlink()
        array = {"shape": shape, "chunks": [10**12], "dtype": "<f4", "compressor": None, "fill_value": None,
                 "order": "C", "filters": None}  # fmt: skip
        kvstore = {"driver": "ocdbt", "base": f"file://{path}/state/", "path": "0.params.params.actor_0.bias/"}
        tensorstore.open(
            {"driver": "zarr", "kvstore": kvstore, "metadata": array}, create=True, delete_existing=True
        ).result()
        with pytest.raises(UserError, match="other sizes" if shape != [2] else "pieces of another size"):
            load(run_dir)
        shutil.rmtree(run_dir)


@pytest.mark.parametrize(
    "run", ["5", "{}", '{"iteration": 2, "episodes": [], "env": {}}', '{"iteration": 1, "episodes": [5], "env": {}}',
            '{"iteration": 1, "episodes": [{"r": "x"}], "env": {}}', '{"iteration": 1, "episodes": [], "env": 5}'],
)  # fmt: skip
def test_counters_that_are_none_are_refused(run: str, proof_run: Path, tmp_path: Path) -> None:
    from trxl_jax.config import load_config
    from trxl_jax.runs.trainer import train

    run_dir = tmp_path / "run"
    shutil.copytree(proof_run, run_dir)
    (run_dir / "checkpoints" / "1" / "checksums.json").unlink()
    (run_dir / "checkpoints" / "1" / "run" / "metadata").write_text(run)
    with pytest.raises(CheckpointError, match="counters are damaged"):
        train(load_config(run_dir / "config.json").replace(total_timesteps=64), resume=str(run_dir))
