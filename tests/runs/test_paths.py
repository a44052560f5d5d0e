"""Where runs are kept: relative directories, odd names, no home directory."""

import os
import pwd
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.probes import Counter
from tests.support.runs import make_run
from trxl_jax import load
from trxl_jax.cli import cache_directory
from trxl_jax.play.video import video_file


class Straying(Counter):
    """Changes the working directory, as libraries do that look for their files."""

    elsewhere: Path

    def reset(self, **kwargs: Any) -> tuple:
        os.chdir(self.elsewhere)
        return super().reset(**kwargs)


@pytest.mark.slow
def test_a_relative_run_directory_of_an_odd_name_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, Straying.elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    Straying.elsewhere.mkdir()
    name = Path("a:b", "[c] *?")
    monkeypatch.chdir(home)
    make_run(name, Straying)
    assert load(home / name).config.run_dir == str(name)
    assert list(Straying.elsewhere.iterdir()) == []


def test_a_colon_in_a_relative_path_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for suffix in ("mp4", "gif"):
        path = Path("http:", f"a%b.{suffix}")
        path.parent.mkdir(exist_ok=True)
        with video_file(path, 10) as video:
            video.show(np.zeros((16, 16, 3), np.uint8))
        assert path.stat().st_size > 0


def test_a_user_without_a_home_directory_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> Any:
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_directory() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    directory = cache_directory()
    assert directory is not None
    assert directory.is_absolute()
