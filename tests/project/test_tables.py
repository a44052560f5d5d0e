"""Tables in the docs are those of the files that benchmarks write."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"
TABLES = [("performance.md", "presets"), ("cores.md", "cores"), ("cores.md", "core_returns"),
          ("results.md", "popgym_study"), ("results.md", "popgym_options"), ("results.md", "mayhem_study"),
          ("results.md", "minigrid_study"), ("results.md", "minigrid_differences"),
          ("results.md", "minigrid_options"), ("results.md", "study"), ("results.md", "sizes"),
          ("accelerators.md", "scaling")]  # fmt: skip


def block(path: Path, marker: str) -> str:
    """The lines between `<!-- marker -->` and `<!-- end -->`."""
    return path.read_text().partition(f"<!-- {marker} -->\n")[2].partition("<!-- end -->")[0]


@pytest.mark.parametrize(("doc", "name"), TABLES)
def test_a_table_is_its_file(doc: str, name: str) -> None:
    written = (BENCHMARKS / f"{name}.md").read_text()
    assert len(written.splitlines()) >= 3
    assert block(ROOT / "docs" / doc, name).strip() == written.strip()


def test_the_readme_has_the_figures_of_the_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import presets

    measured = json.loads((BENCHMARKS / "presets.json").read_text())
    assert block(ROOT / "README.md", "presets").strip() == presets.summary(measured).strip()


def test_tables_have_rows_of_what_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import core_returns
    import cores
    import presets

    def measured(name: str) -> set[str]:
        return set(json.loads((BENCHMARKS / f"{name}.json").read_text()))

    assert measured("presets") == set(presets.rows())
    assert measured("cores") >= {f"{cores.SIZES[0]}, {core}" for core in cores.CORES}  # the others as far as they are
    assert measured("core_returns") == set(core_returns.CORES)


def test_no_preset_is_faster_than_its_lower_bound_allows() -> None:
    """A floor below the speed was measured while others used the machine."""
    for name, row in json.loads((BENCHMARKS / "presets.json").read_text()).items():
        assert row["floor"] > row["ours"]["steps_per_second"], name
