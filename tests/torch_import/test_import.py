"""Checkpoints of the original become agents that say the same, and runs that can be fine-tuned."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import torch_archive
from tests.support.golden import DIRECTORIES, FLOAT32, Golden, assert_close
from tests.support.paths import GOLDEN
from tests.support.time_limits import time_limit
from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.cli import run_command
from trxl_jax.commands import train as command
from trxl_jax.config import Config, load_config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.observations import numbers
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import CheckpointError
from trxl_jax.ppo.rollout import collect_rollout, init_rollout_state
from trxl_jax.ppo.train_step import init_states
from trxl_jax.presets import PRESETS
from trxl_jax.runs import checkpoint
from trxl_jax.runs.trainer import train
from trxl_jax.torch_import import __main__ as torch_import
from trxl_jax.torch_import import weights
from trxl_jax.torch_import.archive import read_torch_file
from trxl_jax.torch_import.arguments import config_from_args
from trxl_jax.torch_import.checkpoint import load_torch_checkpoint

POLICY = GOLDEN / "ProofofMemory-v0_seed1.nn"
LEARNED = GOLDEN / "vector_discrete_learned.nn"
REFERENCES = [path for directory in DIRECTORIES for path in sorted(directory.glob("*.npz"))]


def golden_args(golden: Golden) -> dict[str, Any]:
    """Settings of the original for the agent of a reference file."""
    names = [name for name in read_torch_file(POLICY)["args"] if name in golden.meta]
    return read_torch_file(POLICY)["args"] | {name: golden.meta[name] for name in names} | {"env_id": "golden"}


def changed(path: Path, weights: dict[str, Any] | None = None, source: Path = POLICY, **args: Any) -> Path:
    """A checkpoint with other parameters or settings; None leaves one out."""
    content = read_torch_file(source)
    parts = [content["model_weights"] | (weights or {}), content["args"] | args]
    model_weights, all_args = ({k: v for k, v in part.items() if v is not None} for part in parts)
    return torch_archive.save(path / "changed.nn", model_weights, all_args | {"target_kl": None})


def refusal(path: Path, **kwargs: Any) -> str:
    with pytest.raises(CheckpointError) as raised:
        load_torch_checkpoint(path, **kwargs)
    line = str(raised.value)
    assert str(path) in line
    assert "\n" not in line
    return line


def import_run(*flags: Any) -> int:
    return run_command(torch_import.main, [str(flag) for flag in flags])


@pytest.mark.parametrize(
    "reference",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * ("pixels" in path.stem)) for path in REFERENCES],
)
def test_imported_agents_say_what_the_original_says(reference: Path, tmp_path: Path) -> None:
    golden = Golden(reference)
    path = reference.with_suffix(".nn")
    if not path.exists():  # pictures make large files; the numbers are the same
        weights = {k.removeprefix("params/"): v for k, v in golden.data.items() if k.startswith("params/")}
        path = torch_archive.save(tmp_path / "golden.nn", weights, golden_args(golden))
    loaded = load_torch_checkpoint(path, max_episode_steps=golden.spec.max_episode_steps)
    assert loaded.spec == golden.spec
    golden.config, golden.params = loaded.config, loaded.params
    golden.agent = make_agent(loaded.config, loaded.spec)
    assert jax.tree.structure(loaded.params) == jax.tree.structure(golden.agent.init_params(jax.random.key(0)))
    for index, replayed in enumerate(golden.replay()):
        data, output = replayed["data"], replayed["output"]
        ours = {"logits": output.policy.logits, "value": output.value, "memory_out": replayed["hidden"],
                "next_value": replayed["last_value"]}  # fmt: skip
        for name, value in ours.items():
            assert_close(f"rollout{index}/{name}", value, data[name], FLOAT32)


@pytest.mark.slow
def test_a_policy_of_the_original_plays() -> None:
    loaded = load_torch_checkpoint(POLICY)
    assert loaded.notes == ()
    assert loaded.spec == EnvSpec(numbers(3), DiscreteActions((2,)), 16)
    expected = PRESETS["proof-of-memory"].replace(total_timesteps=40_000, memory_dtype="float32", trxl_num_positions=16)
    assert loaded.config == expected
    config = loaded.config.replace(env_id="gymnax/ProofofMemory-v0", num_envs=200)
    env = make_env(config)
    agent = make_agent(config, env.spec)

    @jax.jit
    def play(key: jax.Array) -> Any:
        env_key, action_key = jax.random.split(key)
        state = init_rollout_state(env, agent, env_key)
        return collect_rollout(agent, loaded.params, env, state, action_key, 16)[1].episode

    episode = jax.tree.map(np.asarray, play(jax.random.key(0)))
    # Every environment's first episode, which ends within 16 steps: the first to end in a while would be short ones.
    assert episode.done.any(axis=0).all()
    returns = episode.episode_return[episode.done.argmax(axis=0), np.arange(200)]
    assert returns.mean() >= 1.1


def test_the_longest_episode_is_asked_of_the_environment_or_given(tmp_path: Path) -> None:
    absolute = GOLDEN / "vector_multidiscrete_absolute.nn"
    assert "max_episode_steps" in refusal(absolute)  # its environment, `golden`, is none
    assert load_torch_checkpoint(absolute, max_episode_steps=50).config.trxl_num_positions == 50
    spec = load_torch_checkpoint(absolute, max_episode_steps=30).spec
    assert load_torch_checkpoint(absolute, spec=spec).spec == spec
    assert load_torch_checkpoint(absolute, spec=spec, max_episode_steps=50).spec.max_episode_steps == 50
    assert load_torch_checkpoint(LEARNED).spec.max_episode_steps == 20  # as many as there are learned positions
    short = load_torch_checkpoint(absolute, max_episode_steps=4)
    assert short.config.trxl_memory_length == 4
    assert "cut to 4" in short.notes[-1]
    reference = GOLDEN / "pixels_multidiscrete_absolute_reconstruction.npz"
    golden = Golden(reference)
    weights = {k.removeprefix("params/"): v for k, v in golden.data.items() if k.startswith("params/")}
    args = golden_args(golden) | {"env_id": "Endless-SearingSpotlights-v0"}
    endless = load_torch_checkpoint(torch_archive.save(tmp_path / "endless.nn", weights, args))
    assert endless.spec == golden.spec._replace(max_episode_steps=1024)


def test_args_that_are_missing_unknown_or_taken_differently(tmp_path: Path) -> None:
    args = {"final_lr": None, "gamma": None, "frobnicate": 3, "run_dir": "/etc", "track": True, "wandb_entity": "them",
            "env_options": "{}", "num_steps": 12, "num_minibatches": 8, "anneal_steps": 0,
            "trxl_positional_encoding": "relative"}  # fmt: skip
    loaded = load_torch_checkpoint(changed(tmp_path, **args))
    notes = "\n".join(loaded.notes)
    for part in ("final_lr, gamma; using the defaults", "'env_options', 'frobnicate', 'run_dir'",
                 "num_minibatches 8 doesn't", "using 4", "anneal_steps is 0",
                 "'relative' is treated as none"):  # fmt: skip
        assert part in notes
    assert "track" not in notes
    config = loaded.config
    assert (config.run_dir, config.track, config.wandb_entity, config.env_options) == (None, False, None, {})
    assert (config.num_minibatches, config.trxl_positional_encoding) == (4, "none")
    assert config.final_lr == config.init_lr == Config.final_lr
    assert config.final_ent_coef == config.init_ent_coef == 1e-6


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"seed": "one"}, ["seed", "'one'"]),
        ({"num_envs": 2.5}, ["num_envs", "2.5"]),
        ({"num_envs": [1, 2]}, ["num_envs", "list"]),
        ({"gamma": 2.0}, ["--gamma 2.0"]),
        ({"init_lr": float("nan")}, ["--init_lr nan"]),
        ({"trxl_num_layers": 10**9}, ["trxl_num_layers 1000000000", "4"]),
        ({"trxl_dim": 128}, ["trxl_dim 128", "64"]),
        ({"trxl_dim": 2**40}, ["trxl_dim", "65,536"]),
        ({"trxl_num_heads": 4}, ["attention.queries.weight", "(64, 64)", "(16, 16)"]),
        ({"trxl_positional_encoding": "absolute"}, ["absolute", "lacks", "inv_freqs"]),
        ({"trxl_positional_encoding": "learned"}, ["lacks transformer.pos_embedding"]),
        ({"reconstruction_coef": 0.1}, ["reconstruction_coef", "pixels"]),
        ({"env_id": "MortarMayhem-Grid-v0"}, ["encoder.weight"]),
        ({"env_id": "Nothing-v0"}, ["Nothing-v0", "max_episode_steps"]),
        ({"env_id": "\x1b[2J\n"}, ["env_id", "\\x1b"]),
        ({"env_id": 5}, ["env_id", "'5'"]),
    ],
)
def test_args_that_do_not_fit(args: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    line = refusal(changed(tmp_path, **args))
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"critic.bias": None}, ["lacks critic.bias"]),
        ({"critic.weight": None}, ["lacks critic.weight"]),
        ({"critic.weight": np.zeros(64, np.float32)}, ["critic.weight", "(64,)"]),
        ({"critic.weight": np.zeros((2, 64), np.float32)}, ["critic.weight", "(2, 64)", "(1, 64)"]),
        ({"actor_branches.0.weight": np.zeros((3, 64), np.float32)}, ["actor_branches.0.weight", "(3, 64)", "(2, 64)"]),
        ({"hidden_post_trxl.0.weight": np.zeros((64, 64), np.int64)}, ["hidden_post_trxl.0.weight", "int64"]),
        ({"hidden_post_trxl.0.bias": np.full(64, np.nan, np.float32)}, ["hidden_post_trxl.0.bias", "not finite"]),
        ({"mystery\n": np.zeros(3, np.float32)}, ["'mystery\\n'", "(3,)"]),
        ({"transformer.pos_embedding.inv_freqs": np.ones(32, np.float32)}, ["none", "holds", "inv_freqs"]),
    ],
)
def test_parameters_that_do_not_fit(weights: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    line = refusal(changed(tmp_path, weights))
    for word in words:
        assert word in line


def test_thousands_of_names_are_refused_at_once_in_a_short_line(tmp_path: Path) -> None:
    content = read_torch_file(POLICY)
    for count in (1000, 2000):
        names = [f"transformer.transformer_layers.{i}.attention.fc_out.bias" for i in range(4, count)]
        parameters = content["model_weights"] | dict.fromkeys(names, np.zeros(64, np.float32))
        args = content["args"] | {"trxl_num_layers": count} | {f"{'x' * 60}{i}": 1 for i in range(1000)}
        path = torch_archive.save(tmp_path / "file", parameters, args)
        started = time.perf_counter()
        assert len(refusal(path, max_episode_steps=16)) < 500
        assert time.perf_counter() - started < time_limit(20)
    notes = config_from_args(args | {"trxl_num_layers": 4})[1]
    assert max(map(len, notes)) < 500


def test_every_parameter_of_the_agent_must_be_filled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As when the agent gets a parameter of which the table of names knows nothing."""
    table = weights._targets
    monkeypatch.setattr(
        weights, "_targets", lambda agent: {name: to for name, to in table(agent).items() if name != "critic.bias"}
    )
    assert "parameters that no file of the original holds: critic.bias" in refusal(
        changed(tmp_path, {"critic.bias": None}), max_episode_steps=16
    )


def test_other_positional_frequencies_are_refused(tmp_path: Path) -> None:
    name, source = "transformer.pos_embedding.inv_freqs", GOLDEN / "vector_multidiscrete_absolute.nn"
    path = changed(tmp_path, {name: np.ones(12, np.float32)}, source)
    assert "10000^" in refusal(path, max_episode_steps=20)


def test_files_with_something_else_in_them(tmp_path: Path) -> None:
    tensor = torch_archive.Tensor("0", 1, (1,), (1,))
    weights, args = {"model_weights": {"critic.weight": tensor}}, {"args": {}}
    for content in (
        {"critic.weight": tensor},
        weights,
        args,
        args | {"model_weights": {"a": 1}},
        weights | {"args": 3},
        3,
    ):
        refusal(torch_archive.write(tmp_path / "file.nn", torch_archive.dumps(content), {"0": bytes(4)}))


def test_half_precision_parameters_become_float32(tmp_path: Path) -> None:
    weights = {k: v.astype(np.float16) for k, v in read_torch_file(POLICY)["model_weights"].items()}
    params = load_torch_checkpoint(changed(tmp_path, weights)).params
    for ours, whole in zip(jax.tree.leaves(params), jax.tree.leaves(load_torch_checkpoint(POLICY).params), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, whole, rtol=1e-3, atol=1e-6)


def test_a_module_that_a_file_names_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sly_module.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    path = changed(tmp_path, env_id="sly_module:Sly-v0")
    refusal(path)
    loaded = load_torch_checkpoint(path, max_episode_steps=16)
    assert loaded.config.env_id == "Sly-v0"
    assert "sly_module:Sly-v0" in loaded.notes[0]
    assert import_run(path, tmp_path / "run") == 2
    assert "Sly-v0" in capsys.readouterr().err
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "run").exists()
    assert import_run(path, tmp_path / "run", "--env_id", "gymnax/ProofofMemory-v0") == 0


SMALL = ["--num_envs", 4, "--num_steps", 32, "--total_timesteps", 256, "--init_lr", 1e-4, "--seed", 7]


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["ProofofMemory-v0", "gymnax/ProofofMemory-v0"])
def test_an_imported_run_is_fine_tuned(env_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    assert import_run(POLICY, run_dir, "--env_id", env_id, *SMALL) == 0
    printed = capsys.readouterr()
    assert f"python -m trxl_jax.commands.train --resume {run_dir}" in printed.out
    assert printed.err == ""
    assert sorted(path.name for path in run_dir.iterdir()) == ["checkpoints", "config.json", "spec.json"]
    config = load_config(run_dir / "config.json")
    assert (config.num_envs, config.seed, config.trxl_num_positions, config.clip_coef) == (4, 7, 16, 0.2)
    assert run_command(command.main, ["--resume", str(run_dir)]) == 0
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["global_step"] for row in rows] == [128, 256]
    assert rows[0]["charts/learning_rate"] == pytest.approx(1e-4)
    assert rows[0]["episode/r_mean"] > 0.8  # it plays from the start, where an untrained one earns about -0.2
    capsys.readouterr()
    assert run_command(command.main, ["--resume", str(run_dir), "--gamma", "0.9"]) == 2
    assert "--gamma" in capsys.readouterr().err


@pytest.mark.slow
def test_an_imported_run_starts_where_one_from_the_same_parameters_would(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    flags = [POLICY, run_dir, "--env_id", "gymnax/ProofofMemory-v0", *SMALL]
    call = [sys.executable, "-m", "trxl_jax.torch_import", *map(str, flags)]
    done = subprocess.run(call, cwd=GOLDEN.parent.parent, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.startswith(f"wrote {run_dir}")
    config = load_config(run_dir / "config.json")
    env = make_env(config)
    agent = make_agent(config, env.spec)
    fresh = init_states(config, env, agent, jax.random.split(jax.random.key(7))[0])
    (train_state, rollout_state), run = checkpoint.restore(run_dir / "checkpoints" / "0", fresh)
    assert run["iteration"] == train_state.iteration == 0
    jax.tree.map(np.testing.assert_array_equal, train_state.params, load_torch_checkpoint(POLICY).params)
    jax.tree.map(np.testing.assert_array_equal, train_state.opt_state, fresh[0].opt_state)
    np.testing.assert_array_equal(rollout_state.obs, fresh[1].obs)
    train(config, resume=run_dir)


def test_what_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    occupied, file = tmp_path / "occupied", tmp_path / "file"
    occupied.mkdir()
    (occupied / "thesis.tex").write_text("mine")
    file.write_text("mine")
    run_dir = tmp_path / "run"
    for flags, words in (
        ([POLICY, occupied], [str(occupied), "not empty"]),
        ([POLICY, file], [str(file), "is a file"]),
        ([POLICY, run_dir, "--run_dir", file], ["--run_dir", "leave this flag out"]),
        ([POLICY, run_dir, "--trxl_dim", 32], [str(POLICY), "encoder.weight", "(64, 3)", "(32, 3)"]),
        ([POLICY, run_dir, "--env_id", "gymnax/CartPole-v1"], [str(POLICY), "(64, 4)"]),
        (
            [LEARNED, run_dir, "--env_id", "gymnax/CartPole-v1", "--trxl_num_positions", 30],
            ["pos_embedding", "(30, 16)"],
        ),
        ([POLICY, run_dir, "--frobnicate"], ["--frobnicate"]),
        ([POLICY, run_dir, "--num_steps", 100], ["--num_steps 100"]),
        ([POLICY], ["RUN_DIR"]),
        (["--seed", 3], ["FILE RUN_DIR"]),
        ([tmp_path / "none.nn", run_dir], ["none.nn", "No such file"]),
        ([occupied / "thesis.tex", run_dir], ["thesis.tex", "torch.save"]),
    ):
        assert import_run(*flags) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        for word in words:
            assert word in err
        assert not run_dir.exists()
    assert os.listdir(occupied) == ["thesis.tex"]
    assert import_run(POLICY, run_dir, *SMALL) == 0
    assert import_run(POLICY, run_dir, *SMALL) == 2
    assert f"--resume {run_dir}" in capsys.readouterr().err


@pytest.mark.slow
def test_help_tells_how_to_call_it(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--help"], [str(POLICY), "somewhere", "--help"]):
        with pytest.raises(SystemExit) as ended:
            import_run(*flags)
        assert ended.value.code == 0
        assert "FILE RUN_DIR" in capsys.readouterr().out
