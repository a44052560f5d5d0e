"""Plots: groups, grids, the interval of the mean, and files that can be read again."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command import told
from tests.support.paths import ROOT
from trxl_jax.cli import run_command
from trxl_jax.config import Config
from trxl_jax.plot import __main__ as plot
from trxl_jax.plot.curves import Run, common_curve, final, group_runs, mean_interval, read_runs

RETURN = "episode/r_mean"


def command(*flags: Any) -> int:
    return run_command(plot.main, [str(flag) for flag in flags])


def write_run(
    directory: Path, returns: list[float | None], sps: float = 100.0, step: int = 1000, **changes: Any
) -> Path:
    """A run's directory as train.py writes it, with a row every `step` steps."""
    directory.mkdir(parents=True)
    changes = {"env_id": "ProofofMemory-v0", **changes}
    (directory / "config.json").write_text(Config(**changes, run_dir=str(directory)).to_json())
    rows = [
        {"global_step": step * i, "iteration": i, "charts/SPS": sps} | ({} if value is None else {RETURN: value})
        for i, value in enumerate(returns, 1)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def a_run(name: str, steps: Any, returns: Any) -> Run:
    return Run(name, "1", None, "", {"global_step": np.array(steps, float), RETURN: np.array(returns, float)})


def test_the_interval_of_two_and_three_values_by_hand() -> None:
    # Means of two draws of {0, 1}: 0 and 1 with 1/4 each. Of three draws of {0, 0, 3}: 3 with 1/27, which is more than
    # the 2.5% left above the interval. Of {0, 0, 0, 3}: 3 with 1/256, 2.25 with 12/256, so that 2.25 is its end.
    for values, low, high in (([0, 1], 0, 1), ([0, 0, 3], 0, 3), ([0, 0, 0, 3], 0, 2.25), ([2, 2, 2], 2, 2)):
        assert np.allclose(mean_interval(np.array(values, float)[:, None]), [[low], [high]])


def test_the_interval_of_many_values_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, (400, 1))
    low, high = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert mean_interval(values) == (low, high)


def test_the_interval_of_one_run_is_unknown() -> None:
    low, high = mean_interval(np.ones((1, 3)))
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_runs_are_interpolated_where_all_have_points() -> None:
    curve = common_curve([a_run("a", [10, 20, 40], [1, 2, 4]), a_run("b", [5, 15, 30], [0, 1, 4])], RETURN)
    assert curve.x.tolist() == [10, 15, 20, 30]
    assert np.allclose(curve.values, [[1, 1.5, 2, 3], [0.5, 1, 2, 4]])


def test_many_points_are_thinned_to_even_ones() -> None:
    steps = np.arange(1, 5001)
    curve = common_curve([a_run("a", steps, steps / 2), a_run("b", steps[:4000], steps[:4000])], RETURN)
    assert len(curve.x) == 200
    assert (curve.x[0], curve.x[-1]) == (1, 4000)
    assert np.allclose(curve.values, [curve.x / 2, curve.x])


def test_the_running_mean_looks_back() -> None:
    curve = common_curve([a_run("a", [1, 2, 3, 4], [0, 2, 4, 9])], RETURN, smooth=2)
    assert curve.values.tolist() == [[0, 1, 3, 6.5]]


def test_the_final_mean_is_over_the_last_tenth_of_the_common_steps() -> None:
    steps = np.arange(10, 110, 10)
    runs = [a_run("a", steps, steps), a_run("b", [*steps, 200], [*(steps + 2), 999])]
    end = final(runs, RETURN)
    assert (end.seeds, end.mean, end.low, end.high) == (2, 101, 100, 102)
    assert (end.step, end.longest) == (100, 200)


def test_hours_are_steps_through_speed(tmp_path: Path) -> None:
    [run] = read_runs(write_run(tmp_path / "a", [None, 1.0, 2.0], sps=50))
    assert np.allclose(run.columns["hours"] * 3600, [20, 40, 60])
    assert np.allclose(common_curve([run], RETURN, "hours").x * 3600, [40, 60])
    assert common_curve([run], RETURN, "updates").x.tolist() == [2, 3]


def test_groups_are_told_by_what_differs_within_a_task(tmp_path: Path) -> None:
    runs = []
    for i, changes in enumerate(
        [{"seed": 1}, {"seed": 2, "save_every": 3}, {"seed": 1, "trxl_memory_length": 2}, {"env_id": "MysteryPath-v0"}]
    ):
        runs += read_runs(write_run(tmp_path / str(i), [0.0], **changes))
    groups = group_runs(runs)
    assert {label: [run.name for run in members] for label, members in groups.items()} == {
        "ProofofMemory-v0, trxl_memory_length 119": ["0", "1"],
        "ProofofMemory-v0, trxl_memory_length 2": ["2"],
        "MysteryPath-v0": ["3"],
    }
    assert list(group_runs(runs, ["save_every", "gamma"])) == [
        "save_every 25, gamma 0.995",
        "save_every 3, gamma 0.995",
    ]


def test_a_plot_its_table_and_the_way_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"long__{seed}", [None, 0.0, 0.5, 1.0 * seed], seed=seed)
        write_run(tmp_path / f"short__{seed}", [0.25] * (4 + seed), seed=seed, trxl_memory_length=1)
        (tmp_path / f"short__{seed}.log").write_text("not a run")
    write_run(tmp_path / "new", [])
    runs = sorted(path for path in tmp_path.iterdir())
    assert command(*runs, "--out", tmp_path / "a.png", "--csv", tmp_path / "a.csv") == 0
    out, err = capsys.readouterr()
    assert out == (
        "| group | metric | seeds | final mean | 95% interval | steps |\n"
        "|---|---|---|---|---|---|\n"
        "| ProofofMemory-v0, trxl_memory_length 119 | episode/r_mean | 2 | 1.50 | 1.00 to 2.00 | 4,000 |\n"
        "| ProofofMemory-v0, trxl_memory_length 1 | episode/r_mean | 2 | 0.250 | 0.250 to 0.250 | 5,000 |\n"
        "\n"
        "ProofofMemory-v0, trxl_memory_length 1: cut where its shortest run ends, at 5,000 of 6,000 steps.\n"
    )
    assert f"{tmp_path / 'new'}: no update yet" in err

    assert command(tmp_path / "a.csv", "--out", tmp_path / "b.png") == 0
    assert capsys.readouterr().out == out
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    assert command(tmp_path / "a.csv", "--out", tmp_path / "h.png", "--x", "hours") == 0


def test_a_csv_keeps_rare_metrics(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "a", list(np.linspace(0, 1, 1000)))
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for row in rows[49::50]:
        row["eval/r_mean"] = row["iteration"] / 3
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--metric", RETURN, "eval/r_mean", "--csv", tmp_path / "a.csv", "--out", tmp_path / "a.svg"]
    assert command(run_dir, *flags) == 0
    [run] = read_runs(tmp_path / "a.csv")
    evaluations = run.columns["eval/r_mean"]
    assert np.allclose(evaluations[~np.isnan(evaluations)], np.arange(50, 1001, 50) / 3, rtol=1e-5)
    assert len(evaluations) <= 220


def test_curves_of_the_original_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "benchmarks" / "proof_of_memory_original.csv"
    for suffix in ("svg", "pdf"):
        assert command(path, "--metric", RETURN, "episode/l_mean", "--out", tmp_path / f"a.{suffix}") == 0
    assert "| proof_of_memory_original | episode/r_mean | 10 | 1.2" in capsys.readouterr().out
    assert (tmp_path / "a.pdf").stat().st_size > 1000


def test_a_real_run_is_plotted(device_run: Path, tmp_path: Path) -> None:
    metrics = ["losses/entropy", "losses/loss", "charts/SPS"]
    assert command(device_run, "--metric", *metrics, "--x", "hours", "--out", tmp_path / "new" / "a.png") == 0
    assert (tmp_path / "new" / "a.png").stat().st_size > 1000


def test_what_can_not_be_plotted_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", [0.0, 1.0])
    new = write_run(tmp_path / "new", [])
    files = {
        "empty": "",
        "text": "a,b\n1,2\n",
        "word": "seed,global_step\n1,x\n",
        "back": "seed,global_step\n1,2\n1,1\n",
        "long": "seed,global_step\n1,2,3\n",
        "short": "seed,global_step,return_mean\n1,2\n",
        "original": "seed,global_step,return_mean\n1,5,2.0\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    late = write_run(tmp_path / "late", [None, None, 1.0], seed=2)
    for flags, words in (
        ([], ["run"]),
        ([tmp_path / "nowhere"], ["nowhere", "No such file"]),
        ([tmp_path], ["config.json"]),
        ([new], ["update"]),
        ([run, late], ["in common"]),
        ([run, "--metric", "episode/r"], ["--metric episode/r", RETURN]),
        ([run, "--metric"], ["--metric"]),
        ([run, "--group_by", "gama"], ["--group_by gama"]),
        ([run, "--smooth", 0], ["--smooth 0"]),
        ([run, "--x", "days"], ["--x", "days"]),
        ([run, "--out", "a.jpeg"], ["--out a.jpeg", ".png"]),
        ([run, "--out", run / "config.json" / "a.png"], ["--out"]),
        ([run, "--out", tmp_path / "a.png", "--csv", run], ["--csv"]),
        ([tmp_path / "original.csv", "--x", "hours"], ["--x hours", "--x steps"]),
        *(
            ([tmp_path / f"{name}.csv"], [f"{name}.csv"])
            for name in ("empty", "text", "word", "back", "binary", "long")
        ),
        ([tmp_path / "short.csv"], ["--metric", "short"]),
    ):
        capsys.readouterr()
        assert command(*flags) == 2, flags
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: ")
        for word in words:
            assert word in line


def test_without_matplotlib_a_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert command(write_run(tmp_path / "run", [0.0])) == 2
    assert "pip install matplotlib" in told(capsys)
