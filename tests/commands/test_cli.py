"""Messages name commands in the form in which the process was started."""

import sys

import pytest

from trxl_jax.cli import command_line
from trxl_jax.commands.train import parse
from trxl_jax.errors import UserError


@pytest.mark.parametrize(
    ("argv0", "is_module", "train", "plot"),
    [
        ("/env/bin/trxl-import", False, "trxl-train", "trxl-plot"),
        ("trxl-import.exe", False, "trxl-train", "trxl-plot"),
        ("enjoy.py", False, "python train.py", "python -m trxl_jax.plot"),
        ("../a clone/train.py", False, "python '../a clone/train.py'", "python -m trxl_jax.plot"),
        ("/env/trxl_jax/commands/train.py", True, "python -m trxl_jax.commands.train", "python -m trxl_jax.plot"),
        ("notebook", False, "python -m trxl_jax.commands.train", "python -m trxl_jax.plot"),
    ],
)
def test_forms(argv0: str, is_module: bool, train: str, plot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [argv0])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", "a spec" if is_module else None)
    assert command_line("train") == train
    assert command_line("plot") == plot


@pytest.mark.parametrize("flags", [["--num_envs", "x" * 9000], ["y" * 9000, "z" * 9000], ["--num_envs", "1 2 " * 3000]])
def test_long_values_make_no_long_messages(flags: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        parse(flags)
    assert len(str(raised.value)) < 600
    assert flags[0][:10] in str(raised.value)
