"""The list of mutants is about the present source. Running them takes long: `python -m tests.mutants`."""

import ast
from pathlib import Path

import pytest

from tests.mutants.mutants import MUTANTS
from tests.support.paths import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_applies(mutant: tuple) -> None:
    source = (ROOT / "trxl_jax" / mutant.file).read_text()
    assert source.count(mutant.old) == 1
    ast.parse(source.replace(mutant.old, mutant.new))
    assert all((ROOT / test).is_file() for test in mutant.tests)


def test_names_are_unique_and_the_core_is_covered() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 60
    covered = {str(Path(mutant.file).parent) for mutant in MUTANTS}
    assert {"ppo", "agent", "agent/cores", "agent/cpu", "play", "runs", "envs/host", "envs/device"} <= covered
