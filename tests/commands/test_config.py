"""What a configuration takes: types, limits, and what is read back from `config.json`."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import sweep
from trxl_jax.commands.train import parse
from trxl_jax.config import Config
from trxl_jax.errors import ConfigError, UserError

DEEP: dict[str, Any] = {}
for _ in range(5000):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("total_timesteps", 1e6, 1_000_000),
        ("num_envs", np.int64(4), 4),
        ("num_envs", jnp.int32(4), 4),
        ("init_lr", 1, 1.0),
        ("init_lr", np.float64(0.5), 0.5),
        ("norm_adv", np.bool_(True), True),
        ("run_dir", Path("runs/a"), "runs/a"),
        ("env_options", {"a": np.float32(1), "b": (1, 2), "c": np.arange(2)}, {"a": 1.0, "b": [1, 2], "c": [0, 1]}),
    ],
)
def test_near_misses_are_taken_as_what_they_mean(name: str, given: Any, kept: Any) -> None:
    config = Config(**{name: given})
    value = getattr(config, name)
    assert value == kept
    assert type(value) is type(kept)
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("total_timesteps", "3", "'3': must be a whole number"),
        ("total_timesteps", 2.5, "must be a whole number"),
        ("num_envs", True, "must be a whole number"),
        ("num_envs", [2], "must be a whole number"),
        ("init_lr", "1e-4", "must be a finite number"),
        ("init_lr", float("nan"), "must be a finite number"),
        ("init_lr", 10**400, "must be a finite number"),
        ("norm_adv", 1, "must be true or false"),
        ("env_id", None, "must be text"),
        ("memory_dtype", 5, "must be bfloat16 or float32"),
        ("env_options", [1], "must be a JSON object"),
        ("env_options", {1: 2}, "must be text"),
        ("env_options", {"a": float("inf")}, "finite numbers"),
        ("env_options", {"a": object()}, "must hold nothing but"),
        ("env_options", DEEP, "must not be nested more than 32 deep"),
        ("exp_name", "\x1b[31mred", "without control characters"),
        ("exp_name", "\ud800", "without control characters"),
        ("exp_name", "x" * 10**6, "must not be longer than"),
        ("run_dir", "gs://bucket/run", "must be a directory of this machine"),
        ("num_envs", 10**9, "must be at most 1,048,576"),
        ("trxl_num_layers", 2**31, "must be at most 1,024"),
        ("total_timesteps", 2**63, "must be at most"),
        ("total_timesteps", 10**6000, "must be at most"),
        ("target_kl", 0, "must be positive"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_other_values_are_refused_in_one_short_line(name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Config(**{name: value})
    line = str(refusal.value)
    assert words in line
    assert f"--{name} " in line
    assert line.isprintable()
    assert len(line) < 300


def test_a_rollout_has_a_limit_too() -> None:
    with pytest.raises(ConfigError, match=r"^--num_envs 1048576: times --num_steps 2048 must be at most 2,147,483,647"):
        Config(num_envs=2**20, num_steps=2048, total_timesteps=2**40)


def test_every_number_has_limits() -> None:
    for field in Config.__dataclass_fields__.values():
        if "int" in str(field.type) or "float" in str(field.type):
            with pytest.raises(ConfigError):
                Config(**{field.name: 10**40})  # type: ignore[arg-type]


def test_traced_numbers_pass() -> None:
    """As in programs that train with many learning rates at once."""
    double = jax.jit(lambda value: 2 * Config(init_lr=value, gamma=value).init_lr)
    assert double(0.25) == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"num_envs": ' + "9" * 5000 + "}",
        '{"env_id": "\\u001b[31m"}',
        '{"env_id": "\\ud800"}',
        '{"\\u001b": 1}',
        '{"env_options": {"a": NaN}}',
        "null",
    ],
    ids=lambda text: text[:30],
)
def test_files_that_are_no_configuration_are_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json") as refusal:
        Config.from_json(text)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 300


def test_flags_take_whole_floats() -> None:
    config = parse(["--total_timesteps", "1e6", "--max_episode_steps", "1e3"]).config
    assert (config.total_timesteps, config.max_episode_steps) == (1_000_000, 1000)
    for flags, words in (
        (["--num_envs", "2.5"], "--num_envs: '2.5' is not a whole number"),
        (["--env_options", json.dumps({"a": 1})[:-1] + ', "b": ' + "[" * 10**5], "--env_options: nested too deep"),
        (["--env_kwargs", "[1]"], "--env_kwargs: must be a JSON object"),
    ):
        with pytest.raises(UserError, match=words):
            parse(flags)


@pytest.mark.parametrize("flags", [["--init_lr", "-1"], ["--seeds", "-1"], ["--total_timesteps", "2.5"]])
def test_the_sweep_checks_its_numbers_before_it_compiles(flags: list[str]) -> None:
    with pytest.raises(ConfigError, match=flags[1]):
        sweep.main(flags)


def test_an_agent_that_learned_through_segments_is_evaluated() -> None:
    config = Config(segment_length=16, core="gru")
    assert config.for_evaluation(2, 1).segment_length == 1
