"""Experiments: what is started, resumed and skipped, and what becomes of signals and failures."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import DEVICE, HOST, ROOT, environment, error_line, rows, wait_for_rows
from tests.support.time_limits import time_limit
from trxl_jax import PRESETS
from trxl_jax.cli import run_command
from trxl_jax.config import Config
from trxl_jax.errors import UserError
from trxl_jax.experiments import __main__ as experiments
from trxl_jax.experiments.catalogue import PUBLISHED, make_run, read_experiments
from trxl_jax.experiments.jobs import Job, core_sets, default_jobs, run_all
from trxl_jax.runs import checkpoint

MEMORY_GYM = [name for name, config in PRESETS.items() if "Memory" not in config.env_id]


def command(*flags: Any) -> int:
    return run_command(experiments.main, [str(flag) for flag in flags])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two experiments, of which the second fails."""
    path = tmp_path / "experiments.toml"
    path.write_text(
        f'[tiny]\ndescription = "quick"\ntrain = "{shlex.join(DEVICE)} --total_timesteps 64"\npublished = "1 ± 0"\n'
        f'[broken]\ndescription = "its task is missing"\ntrain = "{shlex.join(DEVICE)} --env_id NoSuchTask-v0"\n'
    )
    return path


def printed(capsys: pytest.CaptureFixture[str], *flags: Any) -> list[list[str]]:
    """Arguments of train.py in the commands that `--print` prints."""
    assert command("run", *flags) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line[:3] == [sys.executable, "-m", "trxl_jax.commands.train"] for line in lines)
    return [line[3:] for line in lines]


def fake_run(directory: Path, updates: int | None, **changes: Any) -> Path:
    """A run's directory as far as `experiments` looks at it."""
    sizes = dict(zip([flag.removeprefix("--") for flag in DEVICE[2::2]], map(int, DEVICE[3::2])))
    config = Config(**{"env_id": DEVICE[1], "total_timesteps": 64, "trxl_num_positions": 16, **sizes, **changes})
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(config.replace(run_dir=str(directory)).to_json())
    if updates is not None:
        (directory / "checkpoints" / str(updates)).mkdir(parents=True)
    return directory


@pytest.mark.slow
def test_a_signal_saves_and_the_next_call_resumes_whatever_else_fails(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--file", file, "--dir", tmp_path / "runs"]
    tiny, broken = (tmp_path / "runs" / f"{name}__1" for name in ("tiny", "broken"))
    flags = ["run", "tiny", "--seeds", 1, 2, "--jobs", 1, *common, "--", "--total_timesteps", 10**7]
    process = subprocess.Popen(
        [sys.executable, "-m", "trxl_jax.experiments", *map(str, flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    wait_for_rows(tiny, 2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=time_limit(60))
    assert process.returncode == 128 + signal.SIGTERM
    assert err == ""
    assert f"tiny__1: started, see {tiny}.log" in out
    assert "tiny__1: stopped at" in out
    assert "tiny__2" not in out
    reached = len(rows(tiny))
    assert checkpoint.latest(tiny / "checkpoints") == tiny / "checkpoints" / str(reached)

    more = ["--", "--total_timesteps", 32 * (reached + 1)]
    assert command("run", "broken", "tiny", "--seeds", 1, "--jobs", 2, *common, *more) == 2
    out, err = capsys.readouterr()
    assert err == f"error: 1 of 2 runs failed; see {broken}.log\n"
    assert "broken__1: failed, exit status 2: error: --env_id: unknown environment 'NoSuchTask-v0'" in out
    assert "tiny__1: started" in out
    assert "tiny__1: done" in out
    assert [row["iteration"] for row in rows(tiny)] == list(range(1, reached + 2))
    assert f"done: {32 * (reached + 1):,} steps" in Path(f"{tiny}.log").read_text()

    assert command("run", "tiny", "--seeds", 1, *common, *more) == 0
    assert capsys.readouterr().out == "tiny__1: finished already\n"


def test_print_starts_resumes_and_skips(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    fake_run(runs / "tiny__1", 2, seed=1)
    fake_run(runs / "tiny__2", 1, seed=2)
    fake_run(runs / "tiny__3", None, seed=3)
    flags = ["tiny", "--file", file, "--dir", runs, "--print"]
    start = [*DEVICE, "--total_timesteps", "64"]
    assert printed(capsys, *flags, "--seeds", 1, 2, 3, 4) == [
        [*start, "--seed", seed, "--run_dir", str(runs / f"tiny__{seed}"), "--resume", "auto"] for seed in "234"
    ]
    assert printed(capsys, *flags, "--seeds", 1, "--", "--total_timesteps", 96, "--capture_video") == [
        [*start, "--total_timesteps", "96", "--capture_video", "--seed", "1", "--run_dir", str(runs / "tiny__1"),
         "--resume", "auto"]
    ]  # fmt: skip
    assert not list(runs.glob("*.log"))


def test_together_groups_the_seeds_of_device_tasks_that_follow_each_other(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with file.open("a") as experiments_file:
        experiments_file.write(f'[on-the-host]\ndescription = "d"\ntrain = "{shlex.join(HOST)}"\n')
    runs = tmp_path / "runs"
    fake_run(runs / "tiny__6", 2, seed=6)
    flags = ["--file", file, "--dir", runs, "--print", "--together", "--seeds", 9, 3, 1, 2, 5, 6, 7, 8]
    groups = [["1", "--num_seeds", "3"], ["5"], ["7", "--num_seeds", "3"]]
    alone = [f"tiny__{group[0]}" if len(group) == 1 else "tiny" for group in groups]
    start = [*DEVICE, "--total_timesteps", "64", "--seed"]
    assert printed(capsys, "tiny", *flags) == [
        [*start, *group, "--run_dir", str(runs / name), "--resume", "auto"]
        for group, name in zip(groups, alone, strict=True)
    ]
    found = printed(capsys, "on-the-host", "tiny", *flags[:-8], "--seeds", 1, 2)
    assert [line[line.index("--seed") + 1 :][:3:2] for line in found] == [
        ["1", str(runs / "on-the-host__1")], ["2", str(runs / "on-the-host__2")], ["1", "2"]
    ]  # fmt: skip


@pytest.mark.slow
def test_together_trains_a_group_and_skips_it_when_it_is_finished(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["run", "tiny", "--file", file, "--dir", tmp_path, "--seeds", 1, 2, "--together"]
    assert command(*flags) == 0
    out = capsys.readouterr().out
    assert f"tiny__1-2: started, see {tmp_path / 'tiny__1-2.log'}" in out
    assert "tiny__1-2: done" in out
    assert [len(rows(tmp_path / f"tiny__{seed}")) for seed in (1, 2)] == [2, 2]
    assert command(*flags) == 0
    assert capsys.readouterr().out == "tiny__1: finished already\ntiny__2: finished already\n"


def test_a_run_of_another_configuration_is_not_resumed(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run(tmp_path / "tiny__1", 1, gamma=0.5)
    assert command("run", "tiny", "--file", file, "--dir", tmp_path, "--seeds", 1) == 2
    line = error_line(capsys)
    assert "--gamma 0.995" in line
    assert "--dir" in line


def test_a_window_that_the_task_cut_is_the_same_configuration(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run(tmp_path / "tiny__1", 1, trxl_memory_length=16)
    flags = ["tiny", "--file", file, "--dir", tmp_path, "--seeds", 1, "--print", "--", "--trxl_memory_length", 500]
    ((*_, run_dir, _, resume),) = printed(capsys, *flags)
    assert (run_dir, resume) == (str(tmp_path / "tiny__1"), "auto")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["list", "run NAME"]),
        (["run"], ["give at least one"]),
        (["run", "no-such"], ["no-such", "mortar-mayhem-grid"]),
        (["run", "mystery-path", "--jobs", "0"], ["--jobs 0", "at least 1"]),
        (["run", "mystery-path", "--cores_per_run", "0"], ["--cores_per_run 0", "at least 1"]),
        (["run", "mystery-path", "--cores_per_run", "9999"], ["--cores_per_run 9999", "--jobs"]),
        (["run", "mystery-path", "--seeds", "x"], ["--seeds", "x"]),
        (["run", "mystery-path", "--seeds"], ["--seeds"]),
        (["run", "mystery-path", "--", "--seed", "9"], ["--seed 9", "--seeds"]),
        (["run", "mystery-path", "--", "--run_dir", "x"], ["--run_dir x", "--dir"]),
        (["run", "mystery-path", "--", "--num_envs", "0"], ["--num_envs 0"]),
        (["run", "mystery-path", "--", "--no_such_flag"], ["--no_such_flag"]),
        (["run", "mystery-path", "--", "--backend", "moon"], ["backend", "moon"]),
        (["list", "--file", "nowhere.toml"], ["--file nowhere.toml"]),
    ],
    ids=lambda value: " ".join(value[:4]) or "nothing",
)
def test_bad_flags_get_one_line(flags: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*flags) == 2
    line = error_line(capsys)
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    "text",
    [
        "[",
        'a = "b"',
        '[a]\ndescription = "d"',
        '[a]\ndescription = "d"\ntrain = 3',
        '[a]\ndescription = "d"\ntrain = "it\'s"',
        '[a]\ndescription = "d"\ntrain = ""\ntrian = ""',
        '["a/b"]\ndescription = "d"\ntrain = ""',
        '[a]\ndescription = "d"\ntrain = ""\nvary = {}',
        '[a]\ndescription = "d"\ntrain = ""\nvary = []',
        '[a]\ndescription = "d"\ntrain = ""\nvary = [{}]',
        '[a]\ndescription = "d"\ntrain = ""\nvary = [{ x = 1 }]',
        '[a]\ndescription = "d"\nvary = [{ x = "" }]',
        '[a]\ndescription = "d"\ntrain = ""\nvary = [{ b = "" }]\n[a-b]\ndescription = "d"\ntrain = ""',
    ],
)
def test_a_file_of_something_else_gets_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file.toml"
    path.write_text(text)
    assert command("list", "--file", path) == 2
    assert f"--file {path}" in error_line(capsys)


def test_a_table_that_varies_is_one_experiment_for_each_combination(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text(
        '[a]\ndescription = "tasks"\ntrain = "--gamma 0.9"\n'
        'vary = [{ x = "--env_id X", y = "--env_id Y" }, { gru = "--core gru", trxl = "" }]\n'
    )
    found = read_experiments(path)
    assert list(found) == ["a-x-gru", "a-x-trxl", "a-y-gru", "a-y-trxl"]
    assert found["a-x-gru"].train == ("--gamma", "0.9", "--env_id", "X", "--core", "gru")
    assert found["a-y-trxl"].train == ("--gamma", "0.9", "--env_id", "Y")
    assert found["a-y-trxl"].description == "tasks: y, trxl"


def test_patterns_name_all_experiments_that_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file.toml"
    path.write_text(
        f'[a]\ndescription = "d"\ntrain = "{shlex.join(DEVICE)}"\nvary = [{{ x = "", y = "" }}, {{ z = "", u = "" }}]\n'
    )
    flags = ["--file", path, "--dir", tmp_path, "--print", "--seeds", 1]
    started = [Path(line[line.index("--run_dir") + 1]).name for line in printed(capsys, "a-x-z", "a-?-z", *flags)]
    assert started == ["a-x-z__1", "a-y-z__1"]


def test_the_published_experiments_are_configurations(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    published = read_experiments(PUBLISHED)
    assert set(PRESETS) <= set(published)
    for experiment in published.values():
        make_run(experiment, 1, tmp_path)
    assert make_run(published["mystery-path"], 1, tmp_path).config.replace(run_dir=None) == PRESETS["mystery-path"]
    assert {name for name in published if published[name].published} == set(MEMORY_GYM)
    assert command("list") == 0
    assert capsys.readouterr().out.count("\n") == len(published)


def test_an_experiment_may_name_its_backend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file.toml"
    path.write_text(
        '[path]\ndescription = "d"\ntrain = "mystery-path-grid --backend device"\n'
        '[view]\ndescription = "d"\ntrain = "minigrid-memory-s9-tuned --backend device"\n'
    )
    found = read_experiments(path)
    ours = PRESETS["mystery-path-grid"].replace(env_id="jax/MysteryPath-Grid-v0")
    assert make_run(found["path"], 1, tmp_path).config.replace(run_dir=None) == ours
    view = make_run(found["view"], 1, tmp_path).config
    assert (view.env_id, view.env_kwargs) == ("jax/MiniGrid-MemoryS9-v0", {})
    assert view.env_options["symbolic"] is True
    assert make_run(found["path"], 1, tmp_path, ["--backend", "host"]).config.env_id == "MysteryPath-Grid-v0"
    [flags] = printed(capsys, "path", "--file", path, "--dir", tmp_path, "--seeds", 1, "--print")
    assert flags[:3] == ["mystery-path-grid", "--backend", "device"]


def test_each_row_of_memory_gym_has_a_script(tmp_path: Path) -> None:
    scripts = ROOT / "benchmarks" / "experiments"
    assert {path.stem for path in scripts.glob("*.sh")} == set(MEMORY_GYM)
    for name in MEMORY_GYM:
        assert f"experiments run {name} --seeds 1 2 3" in (scripts / f"{name}.sh").read_text()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", scripts / "mortar-mayhem.sh", "--print", "--seeds", "7", "--dir", tmp_path],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment(PATH=path),
    )
    assert ran.stdout.endswith(
        f"trxl_jax.commands.train mortar-mayhem --seed 7 --run_dir {tmp_path / 'mortar-mayhem__7'} --resume auto\n"
    )


def python(tmp_path: Path, name: str, code: str) -> Job:
    commands = iter([[sys.executable, "-c", code]])  # a job that ran once is finished
    return Job(name, tmp_path / name, 1, lambda: next(commands, None))


def test_status_0_of_an_unfinished_run_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As when an environment calls `os._exit(0)`."""
    with pytest.raises(UserError, match=r"1 of 1 runs failed"):
        run_all([Job("a", tmp_path / "a", 1, lambda: [sys.executable, "-c", "import os; os._exit(0)"])], 1)
    assert "a: failed, exit status 0" in capsys.readouterr().out


def test_no_more_runs_at_once_than_asked_for(tmp_path: Path) -> None:
    code = "import time; a = time.time(); time.sleep(0.5); print(a, time.time())"
    jobs = [python(tmp_path, str(i), code) for i in range(4)]
    assert run_all(jobs, 2) == 0
    spans = [tuple(map(float, job.log.read_text().split())) for job in jobs]
    at_once = [sum(a <= start < b for a, b in spans) for start, _ in spans]
    assert max(at_once) == 2


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two cores")
def test_runs_may_have_cores_of_their_own(tmp_path: Path) -> None:
    code = "import os, time; time.sleep(0.5); print(*os.sched_getaffinity(0))"
    jobs = [python(tmp_path, str(i), code) for i in range(4)]
    assert run_all(jobs, 2, core_sets(2, 1)) == 0
    cores = [job.log.read_text().strip() for job in jobs]
    assert cores[0] != cores[1]
    assert set(cores[2:]) == set(cores[:2]) == {str(core) for core in sorted(os.sched_getaffinity(0))[:2]}


def test_by_default_as_many_runs_at_once_as_the_allowed_cores_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 128)  # of the machine; this process may use fewer
    assert default_jobs() == max(len(os.sched_getaffinity(0)) // 2, 1)


def test_cores_are_asked_for_as_many_runs_as_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = str(len(os.sched_getaffinity(0)))
    flags = ["--dir", str(tmp_path), "--seeds", "1", "--jobs", "3", "--cores_per_run", every]
    assert command("run", "mystery-path", *flags, "--", "--env_id", "no-such") != 0
    assert "--cores_per_run" not in error_line(capsys)


def test_a_run_that_another_process_trains_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also after the parent of that process is gone."""
    child = "import os, time; open('pid', 'w').write(f'{os.getpid()}\\n'); time.sleep(60)"
    code = f"""
import sys
from pathlib import Path
from trxl_jax.experiments.jobs import Job, run_all
run_all([Job("a", Path("a"), 1, lambda: [sys.executable, "-c", {child!r}])], 1)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, cwd=tmp_path, env=environment())
    deadline = time.monotonic() + time_limit(60)
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    try:
        with pytest.raises(UserError, match=r"1 of 2 runs failed"):
            run_all([python(tmp_path, "a", "print('mine')"), python(tmp_path, "b", "")], 1)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert "another process is training this run" in capsys.readouterr().out
    assert (tmp_path / "a.log").read_text() == ""


def test_the_newest_row_is_what_progress_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = json.dumps({"global_step": 2048, "iteration": 1, "charts/SPS": 1234.5, "episode/r_mean": 0.5})
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.jsonl").write_text(row + "\n" + row[:20])
    assert run_all([python(tmp_path, "a", "")], 1) == 0
    assert "2,048 / 1 steps, 1,234 steps/s, return 0.50" in capsys.readouterr().out


def test_a_second_ctrl_c_kills_runs_that_do_not_save(tmp_path: Path) -> None:
    child = "import os, signal, time; signal.signal(2, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(600)"
    code = f"""
import sys
from pathlib import Path
from trxl_jax.experiments.jobs import Job, run_all
from trxl_jax.signals import exit_at_once
with exit_at_once():
    run_all([Job("a", Path("a"), 1, lambda: [sys.executable, "-c", {child!r}])], 1)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + time_limit(60)
    while not ((tmp_path / "a.log").exists() and (tmp_path / "a.log").read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    pid = int((tmp_path / "a.log").read_text())
    parent.send_signal(signal.SIGINT)
    assert parent.stdout is not None
    while "waiting" not in parent.stdout.readline():
        pass
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=time_limit(60))
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
