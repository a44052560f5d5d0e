"""The regression test of operations and temporary memory accepts equal counts and rejects higher ones."""

import json
from pathlib import Path

import jax
import pytest

from benchmarks import counts
from trxl_jax.presets import PRESETS

pytestmark = pytest.mark.compiled_as_for_users

TINY = PRESETS["proof-of-memory"].replace(
    env_id="gymnax/ProofofMemory-v0", num_envs=2, num_steps=16, num_minibatches=2, trxl_num_layers=1
)


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="counts are for CPUs")
def test_accepted_counts_pass_and_higher_counts_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(counts, "FILE", tmp_path / "counts.json")
    monkeypatch.setattr(counts, "CONFIGURATIONS", {"tiny": TINY})
    assert counts.main(["--update"]) == 0
    assert counts.main([]) == 0
    accepted = json.loads(counts.FILE.read_text())
    assert all(count > 0 for count in accepted.values())
    capsys.readouterr()

    monkeypatch.setattr(counts, "CONFIGURATIONS", {"tiny": TINY.replace(trxl_num_layers=2)})
    assert counts.main([]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("error: tiny, update, operations: grew from ") for line in lines)
    assert all("python benchmarks/counts.py --update" in line for line in lines)
    assert json.loads(counts.FILE.read_text()) == accepted


def test_ten_percent_more_is_tolerated() -> None:
    assert counts.grown({"a": 1000}, {"a": 1100}) == []
    assert counts.grown({"a": 1000}, {"a": 10}) == []
    assert counts.grown({"a": 1000}, {"a": 1101}) == ["a: grew from 1,000 to 1,101 (10% more is tolerated)"]
    assert counts.grown({}, {"a": 1}) == ["a: 1, but counts.json has no bound for it"]
