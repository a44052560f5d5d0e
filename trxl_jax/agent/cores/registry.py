"""The cores by the names that `--core` takes."""

from collections.abc import Callable
from functools import partial

from trxl_jax.agent.cores.attention_layer import AttentionOptions
from trxl_jax.agent.cores.base import Core
from trxl_jax.agent.cores.linear_recurrences import LRU, MinGRU
from trxl_jax.agent.cores.none import NoMemory
from trxl_jax.agent.cores.recurrent import GRU, LSTM, RecurrentCore
from trxl_jax.agent.cores.transformer_xl import TransformerXL
from trxl_jax.agent.numerics import Numerics
from trxl_jax.config import Config
from trxl_jax.errors import ConfigError, brief
from trxl_jax.own_modules import import_own

MakeCore = Callable[[Config, Numerics], Core]
_ATTENTION_OPTIONS = ("trxl_heads", "trxl_query_position", "trxl_see_self")


def make_core(config: Config, numerics: Numerics) -> Core:
    """The core that a configuration names.

    Args:
        config: fitted to its task. `core` may be `module:name`, which imports the module, from the working directory
            too, and calls what it finds there as `name(config, numerics)`.
        numerics: platform and precision.

    Raises:
        ConfigError: there is no such core, or it doesn't have an option that was given.
    """
    if config.core in CORES:
        return CORES[config.core](config, numerics)
    module, _, name = config.core.partition(":")
    if not name:
        raise ConfigError(f"--core {brief(config.core)}: known are {', '.join(CORES)}, and module:name for one's own")
    imported = import_own(module, f"--core {brief(config.core)}", "write module:name")
    try:
        core = getattr(imported, name)(config, numerics)
    except ConfigError:
        raise
    except Exception as error:  # whatever a module of the user's raises
        raise ConfigError(f"--core {brief(config.core)}: {brief(error)}") from error
    if not isinstance(core, Core):
        raise ConfigError(f"--core {brief(config.core)}: made {brief(core)}, which is no Core")
    return core


def require_refreshable(config: Config, core: Core) -> None:
    """Refuses to recompute a memory (`log_staleness`, `refresh_memory`) that a core doesn't have.

    Raises:
        ConfigError: the core and the flag don't fit.
    """
    flag = next((name for name in ("refresh_memory", "log_staleness") if getattr(config, name)), None)
    if flag is None:
        return
    refused = f"--{flag} {getattr(config, flag)}: the core {type(core).__name__}"
    if type(core).carry_of is Core.carry_of:
        raise ConfigError(f"{refused} has no memory that could be recomputed (no method carry_of); leave it out")
    if config.refresh_memory and isinstance(core, RecurrentCore):
        raise ConfigError(
            f"{refused} learns with the present parameters from each segment's first state; to have fewer old "
            "states, give a longer --segment_length instead"
        )


def _attention(layer: str, config: Config, numerics: Numerics) -> Core:
    _refuse(config, "core_layers", "has --trxl_num_layers instead")
    assert config.trxl_num_positions is not None, "the configuration isn't fitted to its task"
    options = AttentionOptions(
        dim=config.trxl_dim,
        num_heads=config.trxl_num_heads,
        window=config.trxl_memory_length,
        heads=config.trxl_heads,
        positional_encoding=config.trxl_positional_encoding,
        query_position=config.trxl_query_position,
    )
    return TransformerXL(
        dim=config.trxl_dim,
        options=options,
        num_layers=config.trxl_num_layers,
        layer=layer,
        see_self=config.trxl_see_self,
        max_episode_steps=config.trxl_num_positions,
        memory_dtype=config.memory_dtype,
        numerics=numerics,
        name="transformer",
    )


def _gated(config: Config, numerics: Numerics) -> Core:
    return _attention("gtrxl" if config.trxl_see_self else "gated", config, numerics)


def _recurrent(kind: type[RecurrentCore], config: Config, numerics: Numerics) -> Core:
    for name in _ATTENTION_OPTIONS:
        _refuse(config, name, "attends to nothing")
    return kind(dim=config.trxl_dim, num_layers=config.core_layers, numerics=numerics)


def _none(config: Config, numerics: Numerics) -> Core:
    for name in (*_ATTENTION_OPTIONS, "core_layers"):
        _refuse(config, name, "has no memory")
    return NoMemory(dim=config.trxl_dim)


def _refuse(config: Config, name: str, why: str) -> None:
    """Refuses an option that the core of `config` doesn't have."""
    value = getattr(config, name)
    if value != getattr(Config, name):
        raise ConfigError(f"--{name} {brief(value)}: --core {config.core} {why}; leave it out")


CORES: dict[str, MakeCore] = {
    "trxl": partial(_attention, "residual"),
    "gtrxl": _gated,
    "gru": partial(_recurrent, GRU),
    "lstm": partial(_recurrent, LSTM),
    "min_gru": partial(_recurrent, MinGRU),
    "lru": partial(_recurrent, LRU),
    "none": _none,
}
"""How to make each core, from a configuration fitted to its task."""
