"""The numbers in `docs/results.md` are those of the CSV files next to it."""

import json
import re
import sys
import tomllib

import numpy as np
import pytest

from tests.support.paths import ROOT
from trxl_jax.plot.curves import read_runs
from trxl_jax.plot.figure import bootstrap_interval

TEXT = (ROOT / "docs" / "results.md").read_text()


def final_means(path: str) -> dict[str, list[float]]:
    """The mean return over the last tenth of the steps of each run, by the run's name without the seed."""
    found: dict[str, list[float]] = {}
    for name, run in read_runs([ROOT / path]).groupby("run", sort=False):
        last = run["global_step"] > 0.9 * run["global_step"].max()
        found.setdefault(str(name).rpartition("__")[0], []).append(float(run["episode/r_mean"][last].mean()))
    return found


def rows(section: str) -> list[list[str]]:
    """The cells of the table in a section, without its head."""
    text = TEXT.partition(f"## {section}")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]]


def two_digits(value: float) -> str:
    return re.sub(r"^-(?=0\.00$)", "", f"{value:.2f}")


def test_proof_of_memory() -> None:
    runs = final_means("docs/results/proof_of_memory.csv")
    runs |= final_means("benchmarks/proof_of_memory_original.csv")
    names = ["proof-of-memory", "proof-of-memory-device", "proof-of-memory-short-memory", "proof-of-memory-no-memory",
             "proof_of_memory_original"]  # fmt: skip
    for name, (_, _, _, seeds, mean, interval, solved) in zip(names, rows("Proof of Memory")[1:], strict=True):
        values = np.array(runs[name])
        low, high = bootstrap_interval(values)
        assert (seeds, mean) == (str(len(values)), two_digits(values.mean())), name
        assert interval == f"{two_digits(low)} to {two_digits(high)}", name
        assert solved == str((values >= 1.1).sum()), name


def test_memory_chain() -> None:
    runs = final_means("docs/results/memory_chain.csv")
    (_, *lengths), *table = rows("How far a window reaches")
    shown = {
        f"memory-chain-{layers.replace(' ', '-')}-{m}": cell
        for layers, *cells in table
        for m, cell in zip(lengths, cells, strict=True)
        if cell
    }
    assert shown == {name: ", ".join(map(two_digits, values)) for name, values in runs.items()}


def test_single_runs() -> None:
    runs = final_means("docs/results/mortar_mayhem_one_command.csv")
    shown = [mean for _, _, mean in rows("Mortar Mayhem with one command")[1:]]
    assert shown == [f"{value:.3f}" for (value,) in runs.values()]
    names = ("", "_original", "_tuned")
    for name, before in zip(names, ("(", "(", ": "), strict=True):
        [[value]] = final_means(f"docs/results/minigrid_memory_s9{name}.csv").values()
        assert f"{before}{two_digits(value)} over the last tenth" in " ".join(TEXT.split())
    [device] = final_means("docs/results/minigrid_memory_s9_device.csv").values()
    assert f"; on the device {' and '.join(map(two_digits, device))})" in TEXT


def test_minigrid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import minigrid_study

    for name, table in minigrid_study.tables().items():
        assert (ROOT / "benchmarks" / f"{name}.md").read_text() == table, name
    [pictures] = final_means("docs/results/minigrid-pictures.csv").values()
    first, *others = sorted(pictures, reverse=True)
    shown = f"({two_digits(first)} over its last tenth; {' and '.join(map(two_digits, sorted(others)))}, "
    assert shown in " ".join(TEXT.split())


def test_popgym(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import popgym_study
    import study

    assert (ROOT / "benchmarks" / "popgym_study.md").read_text() == popgym_study.table()
    assert (ROOT / "benchmarks" / "popgym_options.md").read_text() == popgym_study.table_of_options()
    assert (ROOT / "benchmarks" / "study.md").read_text() == study.table()
    [gru, transformer] = final_means("docs/results/count-recall-15m.csv").values()
    for values in (transformer, gru):
        low, high = map(two_digits, (min(values), max(values)))
        assert f"ends at {two_digits(np.mean(values))} ({low} to {high}" in " ".join(TEXT.split())
    chosen = {
        name.removeprefix("tuning-"): value for name, (value,) in final_means("docs/results/popgym_tuning.csv").items()
    }
    text = " ".join(TEXT.split())
    for core in ("lru", "lstm", "gru", "trxl-query", "gtrxl", "trxl", "none"):
        best = max(value for name, value in chosen.items() if name.rpartition("-lr")[0] == core)
        assert f"{core} {best:.3f}" in text


def test_mortar_mayhem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import mayhem_study

    assert (ROOT / "benchmarks" / "mayhem_study.md").read_text() == mayhem_study.table()
    # Each core's rate in the experiments is the best of those that were tried.
    tried: dict[str, dict[str, float]] = {}
    for name, (value,) in final_means("docs/results/mortar-mayhem-tuning.csv").items():
        core, _, rate = name.removeprefix("tuning-").rpartition("-lr")
        tried.setdefault(core, {})[rate] = value
    tables = tomllib.loads((ROOT / "benchmarks" / "experiments" / "memory_gym.toml").read_text())
    for game in ("mortar-mayhem-3", "mortar-mayhem-10"):
        [flags] = tables[game]["vary"]
        assert set(flags) == set(tried)
        for core, rates in tried.items():
            best = max(rates, key=lambda rate: rates[rate])
            assert flags[core].endswith(f"--init_lr {best} --final_lr {best}"), (game, core)


def test_times_of_published_rows_are_steps_through_measured_speed() -> None:
    measured = json.loads((ROOT / "benchmarks" / "presets.json").read_text())
    table = rows("Not run")[1:]
    assert len(table) == 8
    for name, _, steps, *times, _, _ in table:
        for row, time in zip((name.strip("`"), f"{name.strip('`')}-device"), times, strict=True):
            hours = float(steps.removesuffix("M")) * 1e6 / measured[row]["ours"]["steps_per_second"] / 3600
            assert time == (f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"), row


def test_the_published_row() -> None:
    runs = read_runs([ROOT / "docs/results/mystery-path-grid.csv"])
    steps = f"{runs['global_step'].max() / 1e6:.1f}M"
    last = runs[runs["global_step"] > 0.9 * runs["global_step"].max()]
    mean, falls = two_digits(last["episode/r_mean"].mean()), f"{last['episode/num_fails_mean'].mean():.0f}"
    text = " ".join(TEXT.split())
    assert f"has done **{steps} steps** so far" in text
    assert f"**{mean} over the last tenth of these steps**" in text
    assert f"With {falls} falls an episode" in text
    assert f"| {steps} of 100M | not finished: {mean}, one seed |" in text
    assert f"has {mean} after {steps} steps, published" in " ".join((ROOT / "README.md").read_text().split())
