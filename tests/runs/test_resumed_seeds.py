"""Which runs `--resume A B` takes side by side: those whose settings are the same, by themselves or by the flags."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.command import DEVICE, command, error_line, run
from trxl_jax.config import Config
from trxl_jax.errors import ConfigError

BASE = command.parse([*DEVICE, "--total_timesteps", "100000"]).config


def started(folder: Path, **changes: Any) -> Path:
    """A run's directory with its configuration alone."""
    folder.mkdir()
    (folder / "config.json").write_text(BASE.replace(run_dir=str(folder), **changes).to_json())
    return folder


def resumed(*flags: Any) -> list[Config]:
    return list(command.parse(["--resume", *map(str, flags)]).configs)


def test_runs_that_differ_in_other_than_seeds_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = started(tmp_path / "a", seed=1), started(tmp_path / "b", seed=2, total_timesteps=200000, keep=50)
    before = (b / "config.json").read_bytes()
    assert run("--resume", a, b) == 2
    line = error_line(capsys)
    assert f"{a} has --keep 3 and --total_timesteps 100000, and {b} has --keep 50 and --total_timesteps 200000" in line
    assert line.endswith("resume them one by one, or give --keep and --total_timesteps for all of them\n")
    assert (b / "config.json").read_bytes() == before


def test_a_setting_that_no_flag_can_change_is_refused_without_that_remedy(tmp_path: Path) -> None:
    a, b = started(tmp_path / "a", seed=1), started(tmp_path / "b", seed=2, gamma=0.5, keep=50)
    with pytest.raises(ConfigError, match=r"--gamma 0.5.*; resume them one by one$"):
        resumed(a, b, "--keep", 5)


@pytest.mark.parametrize("steps", [100000, 200000, 300000])  # also the value that one of them has
def test_a_flag_settles_a_difference(steps: int, tmp_path: Path) -> None:
    a, b = started(tmp_path / "a", seed=1), started(tmp_path / "b", seed=2, total_timesteps=200000)
    configs = resumed(a, b, "--total_timesteps", steps)
    assert [config.total_timesteps for config in configs] == [steps] * 2
    assert [(config.seed, config.run_dir) for config in configs] == [(1, str(a)), (2, str(b))]
    with pytest.raises(ConfigError, match="differ only in their seeds"):
        resumed(a, b, "--keep", 5)
