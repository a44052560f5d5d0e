"""Evaluation plays what it says, and training doesn't notice."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import av
import gymnasium
import jax
import numpy as np
import pytest

import trxl_jax
from tests.support.device_probes import Counting, Remembering
from tests.support.probes import Counter
from trxl_jax import Config, make_agent, make_env
from trxl_jax.errors import ConfigError, EnvironmentFailure
from trxl_jax.play.evaluation import evaluate, make_evaluator
from trxl_jax.play.policy import Policy
from trxl_jax.runs.checkpoint import latest
from trxl_jax.runs.trainer import train

SIZES: dict[str, Any] = {
    "num_envs": 2, "num_steps": 16, "num_minibatches": 2, "update_epochs": 1, "total_timesteps": 128, "trxl_dim": 8,
    "trxl_num_heads": 1, "trxl_num_layers": 1, "trxl_memory_length": 4,
}  # fmt: skip
NOT_TRAINING = ("eval/", "charts/SPS", "episode/t_mean")


class Uneven(Counter):
    """Half of its episodes are thirty times as long as the others; its observations tell the seed."""

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        obs, info = super().reset(**kwargs)
        self.seed = kwargs["seed"]
        self.length = 3 if self.np_random.random() < 0.5 else 90
        return obs, info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, info | {"seed": self.seed}


def fresh_policy(config: Config, env: Any = None) -> Policy:
    agent = make_agent(config, make_env(config, env).spec)
    return Policy(params=jax.jit(agent.init_params)(jax.random.key(0)), agent=agent, config=config)


def rows(run_dir: Path, *, without: tuple[str, ...] = ()) -> list[dict[str, float]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(without)} for line in lines]


def test_long_episodes_count_as_often_as_short_ones() -> None:
    """Each environment's first episodes, by the seeds that its wrapper draws; the first to end would be the short."""
    policy = fresh_policy(Config(**SIZES), Uneven)
    evaluation = evaluate(policy, 10, num_envs=4, seed=3, env=Uneven)
    seeds = [
        np.random.SeedSequence((2**31 + 3, index, episode)).generate_state(1)[0] % 2**31
        for index, share in enumerate((3, 3, 2, 2))
        for episode in range(share)
    ]
    assert [episode["seed"] for episode in evaluation.episodes] == seeds
    lengths = [episode["l"] for episode in evaluation.episodes]
    assert set(lengths) == {3, 90}
    assert evaluation.means["r"] == evaluation.means["l"] == np.mean(lengths)
    assert all(set(episode) >= {"r", "l", "growing", "whole"} and "t" not in episode for episode in evaluation.episodes)


@pytest.mark.parametrize(("run", "change"), [("proof_run", {"seed": 2}), ("device_run", {"deterministic": True})])
def test_an_evaluation_repeats_itself(run: str, change: dict[str, Any], request: pytest.FixtureRequest) -> None:
    policy = trxl_jax.load(request.getfixturevalue(run))
    first, again, other = (trxl_jax.evaluate(policy, 9, num_envs=4, **kwargs) for kwargs in ({}, {}, change))
    assert len(first.episodes) == 9
    assert first == again
    assert first != other
    assert all(2 < episode["l"] <= 16 for episode in first.episodes)
    assert first.means["r"] == pytest.approx(np.mean([episode["r"] for episode in first.episodes]))


def test_an_evaluator_starts_over_each_time_and_can_be_stopped(proof_run: Path) -> None:
    policy = trxl_jax.load(proof_run)
    env = make_env(policy.config.for_evaluation(3, 1))
    evaluator = make_evaluator(env, 6, seed=1)
    first = evaluator(policy)
    assert evaluator(policy, lambda: True) is None
    assert evaluator(policy) == first


def test_actions_differ_from_step_to_step_from_chunk_to_chunk_and_between_environments() -> None:
    """Episodes are as long as a chunk of steps: with the same key in every chunk they would repeat themselves."""
    evaluation = evaluate(fresh_policy(Config(**SIZES), Remembering()), 6, num_envs=2, env=Remembering())
    assert [episode["l"] for episode in evaluation.episodes] == [64] * 6
    assert len({episode["r"] for episode in evaluation.episodes}) == 6
    assert all(12 < episode["ones"] < 52 for episode in evaluation.episodes)


@pytest.mark.slow
@pytest.mark.parametrize("env", [partial(Counter, 10**9), Counting()], ids=["host", "device"])
def test_an_evaluation_cuts_episodes_that_do_not_end(env: Any) -> None:
    policy = fresh_policy(Config(**SIZES, eval_max_steps=4), Counting())
    cut = evaluate(policy, 3, num_envs=2, env=env)
    assert [(episode["l"], episode["cut"]) for episode in cut.episodes] == [(4, 1)] * 3
    whole = evaluate(policy, 3, num_envs=2, env=Counting(), max_steps=50)
    assert [episode["l"] for episode in whole.episodes] == [5] * 3
    assert "cut" not in whole.means


@pytest.mark.slow
def test_options_and_other_environments_reach_an_evaluation(mortar_run: Path) -> None:
    policy = trxl_jax.load(mortar_run)
    shown = {count: evaluate(policy, 2, num_envs=2, env_options={"command_count": [count]}) for count in (1, 8)}
    assert shown[8].means["l"] > shown[1].means["l"] + 20  # each command is shown for four steps
    with pytest.raises(ConfigError, match="was trained on"):
        evaluate(policy, 2, env=lambda: gymnasium.make("CartPole-v1"))
    with pytest.raises(ConfigError, match="command_cuont"):
        evaluate(policy, 2, env_options={"command_cuont": [3]})


@pytest.mark.slow
def test_training_computes_the_same_with_and_without(tmp_path: Path) -> None:
    """Resumed in between, with another schedule."""
    config = Config(env_id="gymnax/ProofofMemory-v0", **SIZES)
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    for run_dir, first, second in ((plain, 0, 0), (watched, 3, 2)):
        train(config.replace(run_dir=str(run_dir), total_timesteps=96, eval_every=first, eval_episodes=3))
        train(config.replace(run_dir=str(run_dir), eval_every=second, eval_episodes=3), resume=run_dir)
    assert rows(plain, without=NOT_TRAINING) == rows(watched, without=NOT_TRAINING)
    evaluated = ["eval/r_mean" in row and "eval/l_mean" in row for row in rows(watched)]
    assert evaluated == [False, False, True, True]
    assert not any(name.startswith("eval/") for row in rows(plain) for name in row)


@pytest.mark.slow
def test_memory_gym_trains_the_same_while_it_is_evaluated_and_filmed(tmp_path: Path) -> None:
    """Its tasks share one screen of the process, and closing one would close all."""
    config = Config(env_id="MortarMayhem-Grid-v0", **SIZES | {"total_timesteps": 96})
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    train(config.replace(run_dir=str(plain)))
    extras = {"eval_every": 1, "eval_episodes": 2, "capture_video": True, "video_every": 2}
    train(config.replace(run_dir=str(watched), **extras))
    assert rows(plain, without=NOT_TRAINING) == rows(watched, without=NOT_TRAINING)
    assert [path.name for path in watched.glob("videos/*")] == ["step_64.mp4"]
    with av.open(watched / "videos" / "step_64.mp4") as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) > 40  # ten commands, each shown for four steps
    assert all(frame.shape == (336 + 42, 680, 3) and frame.std() > 10 for frame in frames)
    assert all("eval/commands_completed_mean" in row for row in rows(watched))


@pytest.mark.slow
def test_an_evaluation_is_of_the_parameters_of_its_update(tmp_path: Path) -> None:
    config = Config(env_id="gymnax/ProofofMemory-v0", eval_every=4, eval_episodes=5, run_dir=str(tmp_path / "run"),
                    **SIZES)  # fmt: skip
    train(config)
    played = evaluate(trxl_jax.load(tmp_path / "run"), 5, num_envs=2, seed=config.seed)
    assert rows(tmp_path / "run")[-1]["eval/r_mean"] == pytest.approx(played.means["r"])


def test_a_batch_can_not_be_evaluated_in(tmp_path: Path) -> None:
    config = Config(env_id="ProofofMemory-v0", run_dir=str(tmp_path / "run"), **SIZES)
    for flag, value in (("eval_every", 1), ("capture_video", True)):
        with pytest.raises(ConfigError, match=f"--{flag}: .*function"):
            train(config.replace(**{flag: value}), env=make_env(config))


@pytest.mark.slow
def test_an_evaluation_that_fails_keeps_the_state(tmp_path: Path) -> None:
    made = []

    class FailsWhenEvaluated(Counter):
        """Two are looked at and two train; those made later break."""

        def __init__(self) -> None:
            super().__init__()
            made.append(self)
            self.number = len(made)

        def step(self, action: Any) -> tuple:
            if self.number > 4:
                raise RuntimeError("out of order")
            return super().step(action)

    run_dir = tmp_path / "run"
    with pytest.raises(EnvironmentFailure, match="out of order") as raised:
        train(Config(run_dir=str(run_dir), eval_every=2, eval_episodes=2, **SIZES), env=FailsWhenEvaluated)
    newest = latest(run_dir / "checkpoints")
    assert newest is not None
    assert newest.name == "2"
    assert str(newest) in str(raised.value)


class Unavailable(Counter):
    """Fails in evaluations until it is repaired."""

    repaired = False

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        held_out = [np.random.SeedSequence((2**31 + 1, index, 0)).generate_state(1)[0] for index in range(2)]
        self.fails = kwargs["seed"] in held_out and not self.repaired
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.fails:
            raise RuntimeError("out of order")
        return super().step(action)


@pytest.mark.slow
def test_an_evaluation_that_failed_leaves_the_row_and_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(**SIZES | {"total_timesteps": 64}, eval_every=1, eval_episodes=2, run_dir=str(tmp_path / "run"))
    with pytest.raises(EnvironmentFailure, match=r"out of order.*the state before it is in .*checkpoints/1$"):
        train(config, env=Unavailable)
    (row,) = rows(tmp_path / "run")
    assert row["iteration"] == 1
    assert "eval/r_mean" not in row
    monkeypatch.setattr(Unavailable, "repaired", True)
    result = train(config, env=Unavailable, resume="auto")
    assert result.metrics["eval/r_mean"] == 3
    assert [row["eval/r_mean"] for row in rows(tmp_path / "run")] == [3, 3]


class Grey(Counter):
    """Its pictures have one channel."""

    render_mode = "rgb_array"

    def render(self) -> np.ndarray:
        return np.zeros((8, 8), np.uint8)


def test_any_error_after_an_update_saves_it(tmp_path: Path) -> None:
    config = Config(**SIZES, capture_video=True, video_every=2, save_every=0, run_dir=str(tmp_path / "run"))
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever a library makes of such pictures
        train(config, env=Grey)
    assert latest(tmp_path / "run" / "checkpoints") == tmp_path / "run" / "checkpoints" / "2"
    assert [row["iteration"] for row in rows(tmp_path / "run")] == [1, 2]
