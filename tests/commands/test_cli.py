"""Messages name commands in the form in which the process was started."""

import sys

import pytest

from trxl_jax.cli import command_line
from trxl_jax.commands.train import parse
from trxl_jax.envs.registry import make_env
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


LONG = "x" * 9000


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--num_envs", LONG], "--num_envs"),
        (["--debug", LONG], "preset"),
        ([LONG, "--num_envs", "1", LONG], "xxx"),
        (["--env_id", LONG], "--env_id"),
        (["--env_id", f"gymnax/{LONG}"], "--env_id"),
        (["--env_id", f"jax/{LONG}"], "--env_id"),
        (["--env_id", "jax/MysteryPath-v0", "--env_options", f'{{"{LONG}": 1}}'], "--env_options"),
    ],
)
def test_long_values_make_no_long_messages(flags: list[str], named: str) -> None:
    with pytest.raises(UserError) as raised:
        make_env(parse(flags).config)
    assert len(str(raised.value)) < 600
    assert named in str(raised.value)
