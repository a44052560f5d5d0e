"""What the values of a configuration may be, each by itself and together."""

from typing import Any

from trxl_jax.errors import ConfigError, brief

_MOST_32_BITS, _MOST_64_BITS = 2**31 - 1, 2**63 - 1
# The least and the largest value of each number. Sizes end far above what fits into memory, others where the integers
# of programs end.
_LIMITS: dict[str, tuple[float, float]] = {
    "gamma": (0, 1), "gae_lambda": (0, 1), "env_timeout": (0, 1e9),
    "num_envs": (1, 2**20), "num_steps": (1, 2**24), "num_minibatches": (1, 2**24), "update_epochs": (1, 2**16),
    "total_timesteps": (1, _MOST_64_BITS), "anneal_steps": (0, _MOST_64_BITS), "max_episode_steps": (1, _MOST_32_BITS),
    "eval_max_steps": (0, _MOST_32_BITS), "seed_bits": (31, 32), "trxl_num_positions": (1, _MOST_32_BITS),
    "trxl_num_layers": (1, 2**10), "trxl_num_heads": (1, 2**16), "trxl_dim": (1, 2**16),
    "trxl_memory_length": (1, 2**24), "eval_episodes": (1, 2**20), "keep": (1, _MOST_32_BITS),
    "video_every": (1, _MOST_32_BITS), "save_every": (0, _MOST_32_BITS), "eval_every": (0, _MOST_32_BITS),
    "seed": (0, 2**32 - 1), "segment_length": (1, 2**24), "core_layers": (1, 2**10),
    "log_staleness": (0, _MOST_32_BITS), "env_groups": (0, 2**16),
} | dict.fromkeys(
    ("init_lr", "final_lr", "clip_coef", "init_ent_coef", "final_ent_coef", "vf_coef", "reconstruction_coef",
     "max_grad_norm", "target_kl"), (0.0, 1e30)
)  # fmt: skip
_POSITIVE = ("max_grad_norm", "target_kl")
_ATTENTION_CORES = ("trxl", "gtrxl")  # of ours no other reads --trxl_num_heads and positions


def check(config: Any) -> None:
    """Checks all values of a `Config`, whose types are right.

    Raises:
        ConfigError: the first that can't be; the line says what would do.
    """
    for name, (least, most) in _LIMITS.items():
        _check_limits(config, name, least, most)
    _check_relations(config)
    if config.core in _ATTENTION_CORES:
        _check_attention(config)


def refusal(config: Any, name: str, remedy: str) -> ConfigError:
    """The error of a value that can't be."""
    return ConfigError(f"--{name} {brief(getattr(config, name))}: {remedy}")


def _check_limits(config: Any, name: str, least: float, most: float) -> None:
    value = getattr(config, name)
    if not isinstance(value, int | float):  # None, or a traced number of a sweep in one program
        return
    if (least, most) == (0, 1):
        _require(config, least <= value <= most, name, "must lie between 0 and 1")
    _require(config, value >= least, name, f"must be at least {least}" if least else "must not be negative")
    _require(config, value > 0 or name not in _POSITIVE, name, "must be positive")
    shown = "less than 2^32" if name == "seed" else f"at most {most:,}" if most < 10**10 else f"at most {most:g}"
    _require(config, value <= most, name, f"must be {shown}")


def _check_relations(config: Any) -> None:
    _require(
        config,
        not config.norm_adv or config.batch_size > config.num_minibatches,
        "norm_adv",
        "needs minibatches of more than one sample; lower --num_minibatches",
    )
    _require(config, not config.keep_best or config.eval_every > 0, "keep_best", "needs evaluations; give --eval_every")
    _require(
        config,
        config.batch_size <= _MOST_32_BITS,
        "num_envs",
        f"times --num_steps {config.num_steps} must be at most {_MOST_32_BITS:,} steps",
    )
    _require(
        config,
        config.num_steps % config.num_minibatches == 0,
        "num_steps",
        f"must be a multiple of --num_minibatches {config.num_minibatches}; {_multiples(config)} would do",
    )
    _require(
        config,
        config.num_steps % config.segment_length == 0,
        "segment_length",
        f"must divide --num_steps {config.num_steps}",
    )
    _require(
        config,
        config.batch_size // config.segment_length % config.num_minibatches == 0,
        "segment_length",
        f"leaves {config.batch_size // config.segment_length} segments, which --num_minibatches "
        f"{config.num_minibatches} must divide",
    )
    _require(
        config,
        config.run_dir is None or "://" not in config.run_dir,
        "run_dir",
        "must be a directory of this machine; copy it when the run has ended, or mount the other storage",
    )
    _require(
        config,
        config.total_timesteps >= config.batch_size,
        "total_timesteps",
        f"is less than one update of num_envs x num_steps = {config.batch_size} steps",
    )
    _require(
        config,
        config.num_iterations <= _MOST_32_BITS,
        "total_timesteps",
        f"is more than {_MOST_32_BITS:,} updates of num_envs x num_steps = {config.batch_size} steps",
    )


def _check_attention(config: Any) -> None:
    _require(
        config,
        config.trxl_dim % config.trxl_num_heads == 0,
        "trxl_dim",
        f"must be a multiple of --trxl_num_heads {config.trxl_num_heads}",
    )
    _require(
        config,
        config.trxl_positional_encoding not in ("absolute", "relative") or config.trxl_dim % 2 == 0,
        "trxl_dim",
        f"must be even for {config.trxl_positional_encoding} positions (sines and cosines); or use "
        "--trxl_positional_encoding none",
    )
    _require(
        config,
        config.trxl_positional_encoding != "rotary" or config.trxl_dim // config.trxl_num_heads % 2 == 0,
        "trxl_num_heads",
        f"makes heads of {config.trxl_dim // config.trxl_num_heads} numbers, which rotary positions can't turn in "
        "pairs; choose it so that --trxl_dim divided by it is even",
    )
    _require(
        config,
        not config.trxl_query_position or config.trxl_positional_encoding in ("absolute", "learned"),
        "trxl_query_position",
        f"needs positions that are added, and they are {config.trxl_positional_encoding}; use absolute or learned",
    )
    _require(
        config,
        config.trxl_positional_encoding != "learned"
        or (config.trxl_num_positions or 1) * config.trxl_dim <= _MOST_32_BITS,
        "trxl_positional_encoding",
        f"has no room for {config.trxl_num_positions} positions; use absolute or none",
    )


def _require(config: Any, condition: bool, name: str, remedy: str) -> None:
    if not condition:
        raise refusal(config, name, remedy)


def _multiples(config: Any) -> str:
    lower = config.num_steps // config.num_minibatches * config.num_minibatches
    return " or ".join(str(n) for n in (lower, lower + config.num_minibatches) if n)
