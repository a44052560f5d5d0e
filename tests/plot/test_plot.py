"""Plots: groups, grids, the interval of the mean, and files that can be read again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support.paths import ROOT
from trxl_jax.cli import run_command
from trxl_jax.config import Config
from trxl_jax.plot import __main__ as plot
from trxl_jax.plot.curves import common_curve, read_runs
from trxl_jax.plot.figure import bootstrap_interval, draw, table

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


def group(path: Path, *curves: tuple[Any, Any], name: str = "group") -> pd.DataFrame:
    """Runs of one group with the given steps and returns."""
    rows = [
        f"{seed},{name},{step!r},{value!r}\n"
        for seed, curve in enumerate(curves)
        for step, value in zip(*(np.asarray(part, float).tolist() for part in curve), strict=True)
    ]
    path.write_text(f"seed,group,global_step,{RETURN}\n{''.join(rows)}")
    return read_runs([path])


def cells(markdown: str) -> list[dict[str, str]]:
    """The rows of a Markdown table."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_the_interval_of_two_and_three_values_by_hand() -> None:
    # Means of two draws of {0, 1}: 0 and 1 with 1/4 each. Of three draws of {0, 0, 3}: 3 with 1/27, which is more than
    # the 2.5% left above the interval. Of {0, 0, 0, 3}: 3 with 1/256, 2.25 with 12/256, so that 2.25 is its end.
    for values, low, high in (([0, 1], 0, 1), ([0, 0, 3], 0, 3), ([0, 0, 0, 3], 0, 2.25), ([2, 2, 2], 2, 2)):
        assert bootstrap_interval(np.array(values, float)) == (low, high)


def test_the_interval_of_many_values_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert bootstrap_interval(values) == (low, high)


def test_runs_are_interpolated_where_all_have_points(tmp_path: Path) -> None:
    curve = common_curve(group(tmp_path / "a.csv", ([10, 20, 40], [1, 2, 4]), ([5, 15, 30], [0, 1, 4])), RETURN)
    assert curve.index.tolist() == [10, 15, 20, 30]
    assert np.allclose(curve.T, [[1, 1.5, 2, 3], [0.5, 1, 2, 4]])


def test_many_points_are_thinned_to_even_ones(tmp_path: Path) -> None:
    steps = np.arange(1, 5001)
    curve = common_curve(group(tmp_path / "a.csv", (steps, steps / 2), (steps[:4000], steps[:4000])), RETURN)
    assert np.allclose(curve.index, np.linspace(1, 4000, 200))
    assert np.allclose(curve.T, [curve.index / 2, curve.index])


def test_the_running_mean_looks_back(tmp_path: Path) -> None:
    curve = common_curve(group(tmp_path / "a.csv", ([1, 2, 3, 4], [0, 2, 4, 9])), RETURN, smooth=2)
    assert curve[0].tolist() == [0, 1, 3, 6.5]


def test_the_final_mean_is_over_the_last_tenth_of_the_common_steps(tmp_path: Path) -> None:
    steps = np.arange(10, 110, 10)
    runs = group(tmp_path / "a.csv", (steps, steps), ([*steps, 200], [*(steps + 2), 999]))
    markdown, _, cut = table(runs, [RETURN]).partition("\n\n")
    assert cells(markdown) == [
        {"group": "group", "metric": RETURN, "seeds": "2", "final mean": "101", "95% interval": "100 to 102",
         "steps": "100"}
    ]  # fmt: skip
    assert cut == "group: cut where its shortest run ends, at 100 of 200 steps."


def test_the_final_mean_is_over_every_row_however_many_there_are(tmp_path: Path) -> None:
    steps, noise = np.arange(1, 5001), np.random.default_rng(0).normal(size=5000)
    [row] = cells(table(group(tmp_path / "a.csv", (steps, noise)), [RETURN]))
    assert float(row["final mean"]) == pytest.approx(noise[4500:].mean(), rel=0.01)


def test_a_metric_without_a_row_in_the_last_tenth_has_its_last_value(tmp_path: Path) -> None:
    runs = group(tmp_path / "a.csv", ([10, 20, 85], [1, 2, 3]), ([10, 100], [4, 5]))
    [row] = cells(table(runs, [RETURN]).partition("\n\n")[0])
    assert (row["final mean"], row["steps"]) == ("3.50", "85")


def test_a_run_may_be_named_like_a_log(tmp_path: Path) -> None:
    assert len(read_runs([write_run(tmp_path / "a.log", [1.0, 2.0])])) == 2


def test_four_seeds_have_an_interquartile_mean(tmp_path: Path) -> None:
    runs = [group(tmp_path / f"{n}.csv", *(([1], [value]) for value in (1, 2, 4, 900)[:n]), name=n) for n in (3, 4)]
    three, four = cells(table(read_runs([tmp_path / "3.csv", tmp_path / "4.csv"]), [RETURN]))
    assert (three["IQM"], three["95% interval of the IQM"]) == ("", "")
    assert (four["IQM"], four["final mean"]) == ("3.00", "227")
    assert "IQM" not in table(runs[0], [RETURN])


def test_one_run_has_no_interval(tmp_path: Path) -> None:
    [row] = cells(table(group(tmp_path / "a.csv", ([1, 2], [1, 2])), [RETURN]))
    assert row["95% interval"] == ""


def test_hours_are_steps_through_speed(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / "a", [None, 1.0, 2.0], sps=50)])
    assert np.allclose(runs["hours"] * 3600, [20, 40, 60])
    assert np.allclose(common_curve(runs, RETURN, "hours").index * 3600, [40, 60])
    assert np.allclose(common_curve(runs, RETURN, "minutes").index * 60, [40, 60])
    assert common_curve(runs, RETURN, "updates").index.tolist() == [2, 3]


def test_groups_are_what_differs_within_a_task(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / str(i), [0.0], **changes)
        for i, changes in enumerate(
            [{"seed": 1}, {"seed": 2, "save_every": 3}, {"trxl_memory_length": 2}, {"env_id": "MysteryPath-v0"}]
        )
    ]
    runs = read_runs(paths)
    assert {label: list(members["run"]) for label, members in runs.groupby("group", observed=True)} == {
        "MysteryPath-v0": ["3"],
        "ProofofMemory-v0, trxl_memory_length 2": ["2"],
        "ProofofMemory-v0, trxl_memory_length 119": ["0", "1"],
    }
    assert list(read_runs(paths, ["save_every", "gamma"])["group"].cat.categories) == [
        "save_every 3, gamma 0.995",
        "save_every 25, gamma 0.995",
    ]


def test_runs_of_experiments_may_be_grouped_by_name(tmp_path: Path) -> None:
    for name, seed, dim in (("small", 1, 64), ("small", 12, 64), ("large", 1, 128), ("other", 1, 128)):
        write_run(tmp_path / f"{name}__{seed}", [0.0], seed=seed, trxl_dim=dim)
    groups = read_runs([tmp_path], ["experiment"]).groupby("group", observed=True)["run"].agg(list)
    assert groups.to_dict() == {"large": ["large__1"], "other": ["other__1"], "small": ["small__1", "small__12"]}
    assert list(read_runs([tmp_path])["group"].cat.categories) == [
        "ProofofMemory-v0, trxl_dim 64",
        "ProofofMemory-v0, trxl_dim 128",
    ]


def test_a_plot_its_table_and_the_way_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs"
    for seed in (1, 2):
        write_run(folder / f"long__{seed}", [None, 0.0, 0.5, 1.0 * seed], seed=seed)
        write_run(folder / f"short__{seed}", [0.25] * (4 + seed), seed=seed, trxl_memory_length=1)
        (folder / f"short__{seed}.log").write_text("not a run")
    write_run(folder / "new", [])
    write_run(folder / "early", [None], seed=3)
    assert command(folder, "--out", tmp_path / "a.png", "--csv", tmp_path / "a.csv") == 0
    out, err = capsys.readouterr()
    assert out == (
        "| group | metric | seeds | final mean | 95% interval | steps |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| ProofofMemory-v0, trxl_memory_length 1 | episode/r_mean | 2 | 0.250 | 0.250 to 0.250 | 5,000 |\n"
        "| ProofofMemory-v0, trxl_memory_length 119 | episode/r_mean | 2 | 1.50 | 1.00 to 2.00 | 4,000 |\n"
        "\n"
        "ProofofMemory-v0, trxl_memory_length 1: cut where its shortest run ends, at 5,000 of 6,000 steps.\n"
    )
    assert f"{folder / 'new'}: no update yet, left out" in err
    assert "early: no episode/r_mean yet, left out" in err

    for runs in ([tmp_path / "a.csv"], [*sorted(folder.iterdir()), folder]):
        assert command(*runs, "--out", tmp_path / "b.png") == 0
        assert capsys.readouterr().out == out
        assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    assert command(tmp_path / "a.csv", "--out", tmp_path / "h.png", "--x", "hours") == 0
    assert command(tmp_path / "a.csv", "--out", tmp_path / "m.png", "--x", "minutes") == 0


def test_a_row_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.1, 1 / 3])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"global_step": 3000, "itera')
    assert read_runs([run])[RETURN].tolist() == [0.1, 1 / 3]


def test_a_csv_keeps_rare_metrics(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "a", list(np.linspace(0, 1, 1000)))
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for row in rows[49::50]:
        row["eval/r_mean"] = row["iteration"] / 3
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--metric", RETURN, "eval/r_mean", "--csv", tmp_path / "a.csv", "--out", tmp_path / "a.svg"]
    assert command(run_dir, *flags) == 0
    evaluations = read_runs([tmp_path / "a.csv"])["eval/r_mean"]
    assert np.allclose(evaluations.dropna(), np.arange(50, 1001, 50) / 3, rtol=1e-5)
    assert len(evaluations) <= 220


def test_names_in_a_csv_are_no_formulas(tmp_path: Path) -> None:
    write_run(tmp_path / "=1+1", [0.0, 1.0])
    write_run(tmp_path / "@sum", [0.0, 1.0], trxl_memory_length=1)
    assert command(tmp_path, "--out", tmp_path / "a.png", "--csv", tmp_path / "a.csv") == 0
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert [line[0] for line in lines] == ["r", *"''''"]
    assert set(read_runs([tmp_path / "a.csv"])["run"]) == {"=1+1", "@sum"}


def test_labels_are_shown_as_they_are(tmp_path: Path) -> None:
    for i, label in enumerate(["_task, $\\frac$", "_task, __", "_task"]):
        group(tmp_path / f"{i}.csv", ([1, 2], [1, 2]), name=f'"{label}"')
    runs = read_runs(sorted(tmp_path.iterdir()))
    grid = draw(runs, [RETURN])
    grid.savefig(tmp_path / "a.png")
    assert grid.figure.get_suptitle() == "_task"
    assert [text.get_text() for text in grid.legend.get_texts()] == ["(1 seed)", "$\\frac$ (1 seed)", "__ (1 seed)"]
    grid = draw(read_runs([tmp_path / "0.csv", ROOT / "benchmarks" / "proof_of_memory_original.csv"]), [RETURN])
    labels = [text.get_text() for text in grid.legend.get_texts()]
    assert labels == ["_task, $\\frac$ (1 seed)", "proof_of_memory_original (10 seeds)"]


def test_curves_of_the_original_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "benchmarks" / "proof_of_memory_original.csv"
    for suffix in ("svg", "pdf"):
        assert command(path, "--metric", RETURN, "episode/l_mean", "--out", tmp_path / f"a.{suffix}") == 0
    assert (
        "| proof_of_memory_original | episode/r_mean | 10 | 1.20 | 1.19 to 1.20 | 24,576 |" in capsys.readouterr().out
    )
    assert (tmp_path / "a.pdf").stat().st_size > 1000


@pytest.mark.slow
def test_a_real_run_is_plotted(device_run: Path, tmp_path: Path) -> None:
    metrics = ["losses/entropy", "losses/loss", "charts/SPS"]
    assert command(device_run, "--metric", *metrics, "--x", "hours", "--out", tmp_path / "new" / "a.png") == 0
    assert (tmp_path / "new" / "a.png").stat().st_size > 1000


def test_what_can_not_be_plotted_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", [0.0, 1.0])
    new = write_run(tmp_path / "new", [])
    early = write_run(tmp_path / "early", [None, None])
    files = {
        "empty": "",
        "text": "a,b\n1,2\n",
        "word": "seed,global_step\n1,x\n",
        "back": "seed,global_step\n1,2\n1,1\n",
        "long": "seed,global_step\n1,2,3\n",
        "longer": "seed,global_step\n1,2\n1,2,3\n",
        "none": "seed,global_step\n1,\n",
        "inf": "seed,global_step\n1,inf\n",
        "short": "seed,global_step,return_mean\n1,2\n",
        "original": "seed,global_step,return_mean\n1,5,2.0\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    rows = {"stepless": '{"iteration": 1}', "list": "[1, 2]", "number": "5", "nested": '{"global_step": {"a": 1}}',
            "damaged": '{"global_step": 1, "x"', "words": '{"global_step": "x"}'}  # fmt: skip
    for name, row in rows.items():
        (write_run(tmp_path / name, []) / "metrics.jsonl").write_text(row + "\n")
    late = write_run(tmp_path / "late", [None, None, 1.0], seed=2)
    (tmp_path / "bare").mkdir()
    for flags, words in (
        ([], ["run"]),
        ([tmp_path / "nowhere"], ["nowhere", "No such file"]),
        ([tmp_path / "bare"], ["config.json"]),
        ([new], ["update"]),
        ([early], [f"--metric {RETURN}", "charts/SPS"]),
        ([run, late], ["in common"]),
        ([run, "--metric", "episode/r"], ["--metric episode/r", RETURN]),
        ([run, "--metric", "seed"], ["--metric seed", RETURN]),
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
            for name in ("empty", "text", "word", "back", "binary", "long", "longer", "none", "inf")
        ),
        *(([tmp_path / name], [name]) for name in rows),
        ([tmp_path / "stepless"], ["global_step"]),
        ([tmp_path / "none.csv"], ["global_step"]),
        ([tmp_path / "short.csv"], [f"--metric {RETURN}"]),
    ):
        capsys.readouterr()
        assert command(*flags) == 2, flags
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: ")
        for word in words:
            assert word in line


def run_python(code: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_without_a_plotting_library_a_line_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['seaborn'] = None; from trxl_jax.plot.__main__ import cli; sys.exit(cli())"
    process = run_python(code, write_run(tmp_path / "run", [0.0]), "--out", tmp_path / "a.png")
    assert process.returncode == 2
    assert process.stderr.startswith("error: plots need seaborn: pip install matplotlib")
    assert process.stderr.count("\n") == 1


def test_flags_need_no_plotting_library() -> None:
    process = run_python("import sys; from trxl_jax.plot.__main__ import parse; parse(['run']); print(*sys.modules)")
    assert "trxl_jax.plot.__main__" in process.stdout.split()
    assert not {"pandas", "seaborn", "scipy", "matplotlib"} & set(process.stdout.split())
