"""Standard output and error that are full, closed or know ASCII only, and signals while a command starts."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TextIO

import pytest

from tests.support.command import environment
from trxl_jax.cli import run_command
from trxl_jax.config import Config
from trxl_jax.experiments.__main__ import main as experiments
from trxl_jax.runs.progress import ProgressLine


def open_closed_pipe() -> io.TextIOWrapper:
    """The end to write to of a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


def test_a_full_disk_as_standard_output_fails_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run_command(experiments, ["list"]) == 2
    assert capsys.readouterr().err == "error: can't write to standard output: [Errno 28] No space left on device\n"


def test_a_reader_that_has_seen_enough_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_closed_pipe() as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert run_command(experiments, ["list"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("lost", [partial(open, "/dev/full", "w"), open_closed_pipe])
def test_progress_goes_on_in_silence(lost: Callable[[], TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a program of one's own, which calls `train`."""
    with lost() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        progress = ProgressLine(Config(), 0)
        for step in range(3):
            progress.say("hello")
            progress.show(step, [{"charts/SPS": 1.0}])
        progress.stop()


def test_a_terminal_that_knows_ascii_only(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))

    def command(flags: object) -> int:
        print("naïve \udce9")
        return 0

    assert run_command(command, []) == 0
    assert written.getvalue() == rb"na\xefve \udce9" + b"\n"


def test_closed_streams(tmp_path: Path) -> None:
    """The file that is opened next must not become standard output."""
    code = """
import os
from pathlib import Path
from trxl_jax.standard_streams import lasting_streams
with lasting_streams():
    with open("file", "w") as file:
        os.write(1, b"from a library")
        print("lost", flush=True)
        file.write("kept")
"""
    command = f"exec {sys.executable} -c '{code}' >&- 2>&- <&-"
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(), check=False).returncode == 0
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_starting_ends_the_command_whoever_swallows_exceptions(number: int) -> None:
    code = f"""
import signal
from trxl_jax.signals import exit_at_once
with exit_at_once():
    try:
        signal.raise_signal({int(number)})
    except BaseException:
        pass
"""
    ended = subprocess.run([sys.executable, "-c", code], env=environment(), check=False, capture_output=True, text=True)
    assert ended.returncode == 128 + number
    assert ended.stderr == "error: interrupted\n"
