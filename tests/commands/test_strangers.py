"""A run directory from a stranger runs no code of his, and its text does nothing to a terminal."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import run
from trxl_jax import Config, evaluate, load, train
from trxl_jax.cli import run_command
from trxl_jax.commands import enjoy
from trxl_jax.config import load_config
from trxl_jax.errors import ConfigError, UserError, printable


@pytest.fixture
def stranger(proof_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose environment is in a module that leaves a trace when it is imported."""
    run_dir = tmp_path / "run"
    shutil.copytree(proof_run, run_dir)
    config = load_config(run_dir / "config.json").replace(env_id="hostile_module:Hostile-v0", total_timesteps=64)
    (run_dir / "config.json").write_text(config.to_json())
    (tmp_path / "hostile_module.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hostile_module", raising=False)
    return run_dir


def resume(run_dir: Path, allowed: bool) -> None:
    config = load_config(run_dir / "config.json")
    train(config, resume=run_dir, **({"allow_import": True} if allowed else {}))


def resume_command(run_dir: Path, allowed: bool) -> None:
    assert run("--resume", run_dir, *(["--allow_import"] if allowed else [])) == 2


def enjoy_command(run_dir: Path, allowed: bool) -> None:
    assert run_command(enjoy.main, ["--name", str(run_dir), *(["--allow_import"] if allowed else [])]) == 2


def play(run_dir: Path, allowed: bool) -> None:
    evaluate(load(run_dir), 1, **({"allow_import": True} if allowed else {}))


@pytest.mark.parametrize("read", [resume, resume_command, enjoy_command, play])
def test_a_module_that_a_run_names_is_imported_only_if_that_is_allowed(
    read: Callable[[Path, bool], None], stranger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace"
    if "command" in read.__name__:
        read(stranger, False)
        line = capsys.readouterr().err
    else:
        with pytest.raises(ConfigError) as refusal:
            read(stranger, False)
        line = f"error: {refusal.value}\n"
    assert line.startswith("error: this run's environment is 'hostile_module:Hostile-v0'")
    assert "--allow_import" in line
    assert line.count("\n") == 1
    assert not trace.exists()
    if "command" in read.__name__:
        read(stranger, True)
    else:
        with pytest.raises(UserError):  # the module registers no such environment
            read(stranger, True)
    assert trace.exists()


@pytest.mark.parametrize("kwargs", [{"env_id": "hostile_module:Hostile-v0"}, {"a": [{"b": "hostile_module:Hostile"}]}])
def test_a_module_in_the_arguments_of_a_constructor_counts_too(kwargs: dict[str, Any], stranger: Path) -> None:
    config = load_config(stranger / "config.json").replace(env_id="ProofofMemory-v0", env_kwargs=kwargs)
    (stranger / "config.json").write_text(config.to_json())
    with pytest.raises(ConfigError, match=r"env_kwargs name another task.*allow_import"):
        resume(stranger, False)
    assert not config.replace(env_kwargs={"a": {"b": 1}}).names_module


def test_a_module_of_a_core_counts_too(stranger: Path, tmp_path: Path) -> None:
    config = load_config(stranger / "config.json").replace(env_id="ProofofMemory-v0", core="hostile_module:make")
    (stranger / "config.json").write_text(config.to_json())
    refusal = r"core is 'hostile_module:make'.*allow_import"
    with pytest.raises(ConfigError, match=refusal):
        load(stranger)
    with pytest.raises(ConfigError, match=refusal):
        resume(stranger, False)
    assert not (tmp_path / "trace").exists()
    with pytest.raises(ConfigError, match="hostile_module"):  # it has no such function
        load(stranger, allow_import=True)
    assert (tmp_path / "trace").exists()


def test_whoever_types_a_module_allows_it(stranger: Path, tmp_path: Path) -> None:
    assert run("--env_id", "hostile_module:Hostile-v0", "--run_dir", tmp_path / "new") == 2
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["config.json", "spec.json", "config.json directory"])
def test_escape_codes_from_files_do_not_reach_the_terminal(
    name: str, proof_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "\x1b]0;owned\x07\x9b31m\u202e"
    run_dir = tmp_path / (code if name.endswith("directory") else "run")
    shutil.copytree(proof_run, run_dir)
    path = run_dir / name.removesuffix(" directory")
    hostile: dict[str, Any] = {"env_id": code, code: code, "obs": {"kind": code}, "x": "\ud800"}
    path.write_text(json.dumps(json.loads(path.read_text()) | hostile))
    capsys.readouterr()
    assert run_command(enjoy.main, ["--name", str(run_dir)]) == 2
    line = capsys.readouterr().err
    assert line.rstrip("\n").isprintable(), line
    assert line.count("\n") == 1
    assert len(line) < 500


def test_lines_stay_lines() -> None:
    assert printable("a\nb\x1b[1m\ud800\u202eü日本 \u2028") == "a\\nb\\x1b[1m\\ud800\\u202eü日本 \\u2028"
    assert len(printable("x" * 10**6)) < 2100
    assert printable(Config().env_id) == Config().env_id
