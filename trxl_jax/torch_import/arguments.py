"""Converts the original implementation's settings (its argparse `args`) into a `Config`."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from trxl_jax.config import Config
from trxl_jax.errors import ConfigError
from trxl_jax.torch_import.archive import listed, quote

# Settings of the original that have no meaning here or don't affect the policy.
_IGNORED = frozenset({"torch_deterministic", "cuda", "capture_video", "save_model", "batch_size", "minibatch_size",
                      "num_iterations", "track", "wandb_project_name", "wandb_entity"})  # fmt: skip
# Settings that only exist here, or that a checkpoint file must not control.
_EXCLUDED = frozenset({"run_dir", "save_every", "keep", "eval_every", "eval_episodes", "eval_max_steps", "keep_best",
                       "capture_video", "video_every", "debug", "track", "wandb_project_name", "wandb_entity",
                       "env_options", "env_kwargs", "max_episode_steps", "async_envs", "env_timeout", "seed_bits",
                       "env_groups", "bootstrap_truncated", "trxl_num_positions", "memory_dtype", "compute_dtype",
                       "matmul_precision", "segment_length", "core", "core_layers", "previous_action",
                       "previous_reward", "trxl_heads", "trxl_query_position", "trxl_see_self", "log_staleness",
                       "refresh_memory", "normalize_observations", "normalize_rewards", "wrapper", "minigrid_view",
                       "minigrid_mission", "action_mask_key"})  # fmt: skip
_INCLUDED = frozenset(field.name for field in dataclasses.fields(Config)) - _EXCLUDED


def config_from_args(args: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """Converts the original's `vars(args)`.

    Files may be untrusted: settings that name directories, accounts or modules to import are ignored.

    Args:
        args: settings by name.

    Returns:
        The configuration, and notes for the user on settings that were missing, unknown or changed.

    Raises:
        ConfigError: a setting is invalid.
    """
    notes = []
    if missing := sorted(_INCLUDED - args.keys()):
        notes.append(f"its args lack {listed(missing)}; using the defaults")
    if unknown := sorted(args.keys() - _INCLUDED - _IGNORED):
        notes.append(f"its args {listed([quote(name) for name in unknown])} are unknown and ignored")
    values = {name: value for name, value in args.items() if name in _INCLUDED}
    for name, value in values.items():
        if value is not None and not isinstance(value, bool | int | float | str):
            raise ConfigError(f"its {name} is a {type(value).__name__}, not a number or a string")
    _adapt_env_id(values, notes)
    _adapt_learning(values, notes)
    encoding = values.get("trxl_positional_encoding", Config.trxl_positional_encoding)
    if encoding not in ("absolute", "learned", "none", ""):
        values["trxl_positional_encoding"] = "none"
        notes.append(f"its positional encoding {quote(str(encoding))} is treated as none, as in the original")
    try:
        return Config(**values | {"memory_dtype": "float32"}), notes
    except ConfigError as error:
        raise ConfigError(f"its args: {error}") from None


def _adapt_env_id(values: dict[str, Any], notes: list[str]) -> None:
    env_id = values.get("env_id", Config.env_id)
    if not isinstance(env_id, str) or not re.fullmatch(r"[\w./:-]+", env_id, re.ASCII):
        raise ConfigError(f"its env_id {quote(str(env_id))} is not the id of an environment")
    if ":" in env_id:
        values["env_id"] = env_id.rpartition(":")[2]
        notes.append(f"its environment is {env_id}, whose module is only imported if you pass --env_id yourself")


def _adapt_learning(values: dict[str, Any], notes: list[str]) -> None:
    steps, minibatches = values.get("num_steps"), values.get("num_minibatches")
    if isinstance(steps, int) and isinstance(minibatches, int) and minibatches > 0 and steps % minibatches:
        divisor = values["num_minibatches"] = math.gcd(steps, minibatches)
        notes.append(f"its num_minibatches {minibatches} doesn't divide num_steps {steps}; using {divisor}")
    if values.get("anneal_steps") == 0:
        for name in ("lr", "ent_coef"):
            values[f"init_{name}"] = values.get(f"final_{name}", getattr(Config, f"final_{name}"))
        notes.append("its anneal_steps is 0: as in the original, lr and ent_coef stay at their final values")
