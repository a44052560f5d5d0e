"""`metrics.jsonl` as it may be found after a crash, a full disk or an editor."""

import json
import os
from pathlib import Path

import pytest

from trxl_jax.config import Config
from trxl_jax.errors import ConfigError
from trxl_jax.runs.logger import Logger
from trxl_jax.runs.rows import read_rows

ROWS = [{"global_step": 32 * i, "iteration": i, "losses/loss": i / 3} for i in range(1, 6)]
GARBAGE = [b"\x00\xff\xfe", b"", b"{", b"[1, 2]", b"5", b'{"iteration": 3}', b'{"global_step": "x", "iteration": 2}',
           b'{"global_step": {"a": 1}, "iteration": 2}', b'{"global_step": ' + b"9" * 5000 + b', "iteration": 1}',
           b"[" * 10**5, b'{"global_step": 1, "iteration": true}', '{"ä'.encode("latin-1")]  # fmt: skip


def test_damaged_lines_cost_no_other_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(row).encode() for row in ROWS]
    path.write_bytes(b"\n".join([*lines[:2], *GARBAGE, *lines[2:], lines[0][:10]]))
    found = read_rows(path)
    assert found.rows == ROWS
    assert found.num_damaged == len(GARBAGE)
    logger = Logger(tmp_path, Config(), iteration=4)
    logger.close()
    assert path.read_bytes() == b"".join(line + b"\n" for line in lines[:4])
    assert logger.warnings == [f"warning: {len(GARBAGE)} damaged lines of {path} are left out"]


def test_what_is_no_file_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(ConfigError, match=r"metrics\.jsonl: not a regular file"):
        Logger(tmp_path, Config(), iteration=4)


def test_a_link_that_leads_out_of_the_directory_is_replaced(tmp_path: Path) -> None:
    """A stranger's run directory must not make training write to other places."""
    run_dir, outside = tmp_path / "run", tmp_path / "outside"
    run_dir.mkdir()
    for name in ("metrics.jsonl", "metrics.jsonl.part"):
        (run_dir / name).symlink_to(outside)
    Logger(run_dir, Config()).close()
    assert not outside.exists()
    assert not (run_dir / "metrics.jsonl").is_symlink()
