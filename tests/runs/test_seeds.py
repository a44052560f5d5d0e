"""Seeds that train side by side: each is the run that it would be alone.

On CPUs each has a thread, and the same digits. Vmapped, as on accelerators, are runs with `VMAPPED`, on CPUs too.
"""

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.command import DEVICE, HOST, ROOT, TINY, error_line, rows, run, start, wait_for_rows
from tests.support.device_probes import Wandering
from tests.support.time_limits import time_limit
from trxl_jax import Config, init_states, make_agent, make_env
from trxl_jax.cli import run_command
from trxl_jax.commands import enjoy
from trxl_jax.config import load_config
from trxl_jax.errors import CheckpointError, ConfigError, Divergence
from trxl_jax.ppo.train_step import compile_train_step, compile_vmapped_step
from trxl_jax.runs import checkpoint
from trxl_jax.runs.progress import ProgressLine
from trxl_jax.runs.run import Run
from trxl_jax.runs.trainer import train_seeds
from trxl_jax.runs.update_checks import check_update

SEEDS = (4, 5, 6)
FLAGS = [*DEVICE, "--total_timesteps", "256", "--save_every", "3"]
TOGETHER = [*FLAGS, "--seed", "4", "--num_seeds", "3"]
VMAPPED = ["--compute_dtype", "bfloat16"]  # on CPUs too it is computed as on accelerators


def directories(base: Path) -> list[Path]:
    return [base.with_name(f"{base.name}__{seed}") for seed in SEEDS]


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds that trained side by side for eight updates; the parent of their directories."""
    folder = tmp_path_factory.mktemp("group")
    assert run(*TOGETHER, "--run_dir", folder / "run") == 0
    return folder


@pytest.fixture(scope="module")
def solo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of these seeds alone."""
    run_dir = tmp_path_factory.mktemp("solo") / "run"
    assert run(*FLAGS, "--seed", 5, "--run_dir", run_dir) == 0
    return run_dir


@pytest.fixture
def copied(group: Path, tmp_path: Path) -> list[Path]:
    """The directories of the three seeds, to be changed."""
    shutil.copytree(group, tmp_path / "copied")
    return directories(tmp_path / "copied" / "run")


def files(run_dir: Path) -> set[str]:
    """Files of a run, without numbers of files that Orbax and TensorBoard choose."""
    paths = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.parent.name != "d"}
    return {re.sub(r"tfevents\.\d+", "tfevents", path) for path in paths}


def state_of(run_dir: Path) -> Any:
    """Train state and rollout state in the newest checkpoint, as NumPy arrays."""
    config = load_config(run_dir / "config.json")
    env = make_env(config)
    shapes = jax.eval_shape(lambda: init_states(config, env, make_agent(config, env.spec), jax.random.key(0)))
    like = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    newest = checkpoint.latest(run_dir / "checkpoints")
    assert newest is not None
    states, _ = checkpoint.restore(newest, like)
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), states)


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def test_each_seed_has_the_files_of_a_run_alone(group: Path, solo: Path) -> None:
    assert sorted(group.iterdir()) == directories(group / "run")
    for seed, run_dir in zip(SEEDS, directories(group / "run"), strict=True):
        config = load_config(run_dir / "config.json")
        assert (config.seed, config.run_dir) == (seed, str(group / f"run__{seed}"))
        assert config.replace(seed=5, run_dir=str(solo)) == load_config(solo / "config.json")
        assert files(run_dir) == files(solo)
        assert (run_dir / "spec.json").read_bytes() == (solo / "spec.json").read_bytes()
        assert [set(row) for row in rows(run_dir)] == [set(row) for row in rows(solo)]
        assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["3", "6", "8"]


def test_each_seed_has_the_digits_that_it_has_alone(group: Path, solo: Path) -> None:
    assert rows(group / "run__5") == rows(solo)
    jax.tree.map(np.testing.assert_array_equal, state_of(group / "run__5"), state_of(solo))
    assert rows(group / "run__4") != rows(group / "run__5")
    assert rows(group / "run__6")[-1]["losses/loss"] != pytest.approx(rows(solo)[-1]["losses/loss"], rel=1e-3)


def test_auto_resumes_what_is_there_and_repeats_every_digit(
    copied: list[Path], group: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One seed is finished, one was killed some updates ago, one was never started."""
    shutil.rmtree(copied[1])
    for iteration in (6, 8):
        shutil.rmtree(copied[2] / "checkpoints" / str(iteration))
    base = copied[0].with_name("run")
    assert run(*TOGETHER, "--run_dir", base, "--resume", "auto") == 0
    printed = capsys.readouterr().out
    assert [f"resumed from {run_dir}" in printed for run_dir in copied] == [True, False, True]
    assert "warning" not in printed
    for ours, theirs in zip(copied, directories(group / "run"), strict=True):
        assert rows(ours) == rows(theirs)
        jax.tree.map(np.testing.assert_array_equal, state_of(ours), state_of(theirs))


@pytest.mark.slow
def test_directories_in_any_order_repeat_every_digit(
    copied: list[Path], group: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_dir in copied:
        shutil.rmtree(run_dir / "checkpoints" / "8")
    with (copied[0] / "metrics.jsonl").open("a") as file:
        file.write("{\n")
    assert run("--resume", *reversed(copied)) == 0
    printed = capsys.readouterr().out
    assert [f"resumed from {run_dir}" in printed for run_dir in copied] == [True] * 3
    assert f"warning: 1 damaged lines of {copied[0]}" in printed
    assert printed.count("warning") == 1
    for ours, theirs in zip(copied, directories(group / "run"), strict=True):
        assert rows(ours) == rows(theirs)


def test_a_group_that_is_finished_has_nothing_to_do(copied: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*TOGETHER, "--run_dir", copied[0].with_name("run")]
    assert run(*flags, "--resume", "auto") == 0
    assert "compil" not in capsys.readouterr().out
    assert run(*flags) == 2
    assert f"--run_dir {copied[0]}: holds a run already" in error_line(capsys)


@pytest.mark.slow
def test_one_seed_goes_on_alone_and_runs_that_were_alone_go_on_side_by_side(
    copied: list[Path], solo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, other, again = (tmp_path / name for name in ("whole", "other", "again"))
    shutil.copytree(solo, whole)
    shutil.copytree(solo, again)
    assert run(*FLAGS, "--seed", 9, "--run_dir", other) == 0
    assert run("--resume", whole, "--total_timesteps", 384) == 0
    assert run("--resume", copied[1], "--total_timesteps", 384) == 0
    assert run("--resume", again, other, "--total_timesteps", 384) == 0
    assert "warning" not in capsys.readouterr().out
    assert len(rows(whole)) == 12
    assert rows(copied[1]) == rows(again) == rows(whole)
    assert run_command(enjoy.main, [str(copied[1]), "--episodes", "1"]) == 0


@pytest.mark.slow
def test_vmapped_seeds_are_close_to_those_alone_and_resume_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*TOGETHER, *VMAPPED, "--run_dir", tmp_path / "run") == 0
    alone, both = tmp_path / "alone", directories(tmp_path / "run")
    assert run(*FLAGS, *VMAPPED, "--seed", 5, "--run_dir", alone) == 0
    for row, other in zip(rows(both[1])[:4], rows(alone)[:4], strict=True):
        assert row == pytest.approx(other, rel=1e-3, abs=1e-3)
    (tmp_path / "parted").mkdir()
    parted = directories(tmp_path / "parted" / "run")
    for run_dir, copy in zip(both, parted, strict=True):
        shutil.copytree(run_dir, copy)
        shutil.rmtree(copy / "checkpoints" / "8")
    shutil.rmtree(parted[2] / "checkpoints" / "6")
    capsys.readouterr()
    assert run("--resume", *parted) == 0
    assert "warning" not in capsys.readouterr().out
    for ours, theirs in zip(parted, both, strict=True):
        assert rows(ours) == rows(theirs)
    for flags, text in (
        ([both[1]], "was trained side by side with 2 other seeds and now is alone"),
        ([alone, both[0]], "was trained alone and now is side by side with 1 other seed,"),
    ):
        assert run("--resume", *flags, "--total_timesteps", 288) == 0
        assert text in capsys.readouterr().out


def test_what_is_printed(group: Path, copied: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--resume", *copied) == 0
    *opening, done, first, _, _ = capsys.readouterr().out.splitlines()
    assert opening[0].endswith("2 environments on the device for each of 3 seeds, which train side by side")
    assert [line for line in opening if line.startswith("run directory")] == [
        f"run directory {path}" for path in copied
    ]
    means = [np.mean([episode["r"] for episode in episodes_of(path)]) for path in copied]
    mean, least, most = np.mean(means), min(means), max(means)
    assert done == f"done: 256 steps of each of 3 seeds, mean return {mean:.2f} ({least:.2f} to {most:.2f})"
    number = len(episodes_of(copied[0]))
    assert first == f"  seed 4, mean return {means[0]:.2f} over the last {number} episodes; see {copied[0]}"
    progress = ProgressLine(Config(), 0)
    row = {"charts/SPS": 1234.5, "episode/r_mean": 0.25, "episode/l_mean": 10.0}
    progress.show(16384, [row, row | {"episode/r_mean": 0.75, "episode/l_mean": 20.0}, {"charts/SPS": 1234.5}])
    assert "3 seeds, 1,234 steps/s each  return 0.50 (0.25 to 0.75)  length 15 " in capsys.readouterr().out


def episodes_of(run_dir: Path) -> list[dict[str, float]]:
    newest = checkpoint.latest(run_dir / "checkpoints")
    assert newest is not None
    return list(checkpoint.restore_run(newest)["episodes"])


@pytest.mark.slow
def test_a_signal_saves_all_seeds(tmp_path: Path) -> None:
    run_dirs = [tmp_path / f"run__{seed}" for seed in (1, 2)]
    flags = [*DEVICE, "--num_seeds", 2, "--total_timesteps", 10**7, "--save_every", 0]
    process = start(*flags, "--run_dir", tmp_path / "run")
    wait_for_rows(run_dirs[1], 2)
    process.send_signal(signal.SIGTERM)
    try:
        out, err = process.communicate(timeout=time_limit(60))
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert err == ""
    assert f"continue with: python {ROOT / 'train.py'} --resume {run_dirs[0]} {run_dirs[1]}\n" in out
    logged = [rows(run_dir)[-1]["iteration"] for run_dir in run_dirs]
    assert logged[0] == logged[1]
    for run_dir in run_dirs:
        assert checkpoint.latest(run_dir / "checkpoints") == run_dir / "checkpoints" / str(logged[0])


@pytest.mark.slow
def test_a_seed_that_diverges_ends_and_the_others_go_on(
    group: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(metrics: Any, params: Any, iteration: int, config: Config) -> None:
        if config.seed == 5 and iteration == 5:
            raise Divergence("its loss is nan in update 5")
        check_update(metrics, params, iteration, config)

    monkeypatch.setattr("trxl_jax.runs.run.check_update", check)
    assert run(*TOGETHER, "--run_dir", tmp_path / "run") == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    fifth = tmp_path / "run__5"
    for text in ("seed 5: its loss is nan in update 5", str(fifth / "post_mortem" / "5.npz"),
                 f"the state before it is in {fifth / 'checkpoints' / '4'}"):  # fmt: skip
        assert text in captured.err
    assert "the other seeds go on" in captured.out
    assert checkpoint.latest(fifth / "checkpoints") == fifth / "checkpoints" / "4"
    assert rows(fifth) == rows(group / "run__5")[:4]
    for seed in (4, 6):
        assert rows(tmp_path / f"run__{seed}") == rows(group / f"run__{seed}")
        assert checkpoint.latest(tmp_path / f"run__{seed}" / "checkpoints").name == "8"  # type: ignore[union-attr]


def test_a_seed_that_cannot_be_saved_leaves_the_others_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Run.save

    def fail_for_the_first(self: Run) -> None:
        if self.config.seed == 4 and self.iteration == 3:
            raise CheckpointError("its disk is full")
        save(self)

    monkeypatch.setattr(Run, "save", fail_for_the_first)
    configs = [load_flags(seed=seed, run_dir=str(tmp_path / str(seed))) for seed in SEEDS]
    with pytest.raises(CheckpointError, match="its disk is full"):
        train_seeds(configs)
    saved = [checkpoint.latest(tmp_path / str(seed) / "checkpoints") for seed in SEEDS]
    assert saved == [None, *(tmp_path / str(seed) / "checkpoints" / "3" for seed in SEEDS[1:])]


def load_flags(**changes: Any) -> Config:
    """The configuration of `FLAGS`."""
    from trxl_jax.commands import train

    return train.parse(FLAGS).config.replace(**changes)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([*HOST, "--num_seeds", "2"], ["--num_seeds 2", "on the host", "--backend device", "gymnax/ProofofMemory-v0"]),
        (["--env_id", "CartPole-v1", *TINY, "--num_seeds", "3"], ["--num_seeds 3", "CartPole-v1", "one by one"]),
        ([*DEVICE, "--num_seeds", "2", "--debug"], ["--debug", "one by one"]),
        ([*DEVICE, "--num_seeds", "2", "--track"], ["--track", "one by one"]),
        ([*DEVICE, "--num_seeds", "0"], ["--num_seeds 0", "between 1 and 256"]),
        ([*DEVICE, "--num_seeds", "1e9"], ["--num_seeds 1000000000", "between 1 and 256"]),
        ([*DEVICE, "--num_seeds", "2", "--seed", "4294967295"], ["--seed 4294967296", "2^32"]),
        ([*DEVICE, "--num_seeds", "2", "--resume", "auto"], ["--resume auto needs --run_dir"]),
        (["--resume", "auto", "proof-of-memory"], ["--resume auto proof-of-memory", "before"]),
        (["--resume"], ["--resume", "directory"]),
    ],
    ids=lambda value: " ".join(value[-3:]) if value and value[0].startswith("-") else "",
)
def test_bad_flags_get_one_line(flags: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*flags) == 2
    line = error_line(capsys)
    for word in words:
        assert word in line


def test_directories_that_do_not_belong_together_get_one_line(
    copied: list[Path], solo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [(path / "metrics.jsonl").read_text() for path in copied]
    changed = json.loads((copied[2] / "config.json").read_text()) | {"gamma": 0.5}
    (copied[2] / "config.json").write_text(json.dumps(changed))
    for flags, words in (
        ([*copied[:2], "--num_seeds", 3], ["--num_seeds 3", "names 2 runs"]),
        ([copied[0], "--num_seeds", 3], ["--num_seeds 3", "names 1 run;"]),
        ([copied[0], copied[0]], ["--seed 4", "2 runs"]),
        ([copied[1], solo], ["--seed 5", "2 runs"]),
        ([*copied, "--total_timesteps", 512], ["--gamma 0.995", str(copied[2]), "0.5"]),
        ([copied[0], "nowhere"], ["nowhere", "training run"]),
        ([*copied[:2], "--debug"], ["--debug"]),
    ):
        assert run("--resume", *flags) == 2
        line = error_line(capsys)
        assert [word for word in words if word not in line] == [], line
    assert [(path / "metrics.jsonl").read_text() for path in copied] == before


def test_in_python_configurations_must_fit_together(tmp_path: Path) -> None:
    config = load_flags(seed=1, run_dir=str(tmp_path / "run"))
    other = config.replace(seed=2, run_dir=str(tmp_path / "other"))
    for configs, resume, words in (
        ([config, config.replace(seed=2)], None, "--run_dir .*: 2 runs"),
        ([config, other.replace(gamma=0.5)], None, "--gamma 0.5: .* another one has 0.995"),
        ([config, other], [tmp_path], "names 1 directories for 2 runs"),
        ([config, other], tmp_path, "names 1 directories for 2 runs"),
    ):
        with pytest.raises(ConfigError, match=words):
            train_seeds(configs, resume=resume)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_evaluations_videos_and_best_agents_are_each_seeds_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*FLAGS, "--eval_every", "4", "--eval_episodes", "3", "--keep_best"]
    assert run(*flags, "--seed", 4, "--num_seeds", 2, "--run_dir", tmp_path / "run") == 0
    assert run(*flags, "--seed", 5, "--run_dir", tmp_path / "solo") == 0
    assert rows(tmp_path / "run__5") == rows(tmp_path / "solo")
    evaluated = [row["eval/r_mean"] for row in rows(tmp_path / "run__4") if "eval/r_mean" in row]
    assert len(evaluated) == 2
    assert [len(list((tmp_path / f"run__{seed}" / "best").iterdir())) for seed in (4, 5)] == [1, 1]
    assert run_command(enjoy.main, [str(tmp_path / "run__4"), "--best", "--episodes", "1"]) == 0
    filmed = ["--env_id", "jax/MysteryPath-Grid-v0", *TINY, "--total_timesteps", "64", "--capture_video"]
    filmed += ["--video_every", "2", "--num_seeds", "2", "--run_dir", str(tmp_path / "filmed")]
    assert run(*filmed) == 0
    assert [(tmp_path / f"filmed__{seed}" / "videos" / "step_64.mp4").is_file() for seed in (1, 2)] == [True, True]


@pytest.mark.slow
def test_an_environment_object_is_shared(tmp_path: Path) -> None:
    config = Config(num_envs=2, num_steps=16, num_minibatches=2, update_epochs=1, total_timesteps=64, trxl_dim=8,
                    trxl_num_heads=1, trxl_num_layers=1, trxl_memory_length=4)  # fmt: skip
    configs = [config.replace(seed=seed, run_dir=str(tmp_path / str(seed))) for seed in (7, 3)]
    results = train_seeds(configs, env=Wandering(2))
    assert [(result.seed, result.run_dir, result.global_step) for result in results] == [
        (3, tmp_path / "3", 64), (7, tmp_path / "7", 64)
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "changes"),
    [
        ("gymnax/ProofofMemory-v0", {"target_kl": 1e-6}),
        ("popgym/RepeatFirstEasy-v0", {"core": "gru", "segment_length": 8}),
        ("popgym/RepeatFirstEasy-v0", {"refresh_memory": True, "update_epochs": 2}),
        ("jax/MysteryPath-Grid-v0", {}),
        ("jax/MiniGrid-MemoryS7-v0", {"bootstrap_truncated": True}),
    ],
    ids=["proof of memory", "gru", "trxl", "pictures", "minigrid"],
)
def test_vmapped_first_updates_are_those_of_each_seed_alone(env_id: str, changes: dict[str, Any]) -> None:
    sizes = {"num_envs": 4, "num_steps": 32, "num_minibatches": 2, "update_epochs": 1, "total_timesteps": 384,
             "trxl_dim": 16, "trxl_num_heads": 2, "trxl_num_layers": 1, "trxl_memory_length": 8}  # fmt: skip
    config = Config(env_id=env_id, **sizes | changes)
    env = make_env(config)
    config = config.fitted_to(env.spec.max_episode_steps)
    agent = make_agent(config, env.spec)
    init_keys, keys = zip(*(jax.random.split(jax.random.key(seed)) for seed in SEEDS), strict=True)
    alone = together = [init_states(config, env, agent, key) for key in init_keys]
    train_step = compile_train_step(config, env, agent, alone[0], keys[0])
    seeds_step = compile_vmapped_step(config, env, agent, together, list(keys))
    for _ in range(3):
        ours = seeds_step(together, list(keys))
        theirs = [train_step(*states, key) for states, key in zip(alone, keys, strict=True)]
        for a, b in zip(ours, theirs, strict=True):
            jax.tree.map(np.testing.assert_array_equal, a[2].episode, b[2].episode)
            env_keys = [jax.random.key_data(state[1].env_state.key) for state in (a, b)]
            np.testing.assert_array_equal(*env_keys)
            metrics = [{name: float(value) for name, value in result[2].metrics.items()} for result in (a, b)]
            assert metrics[0] == pytest.approx(metrics[1], rel=1e-4, abs=1e-5)
            # Where a gradient is nearly 0, AdamW divides rounding by rounding; a step is 2.75e-4.
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=5e-5), a[0].params, b[0].params)
        together, alone = [result[:2] for result in ours], [result[:2] for result in theirs]
