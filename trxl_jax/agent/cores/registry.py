"""The cores by the names that `--core` takes."""

from collections.abc import Callable

from trxl_jax.agent.cores.base import Core
from trxl_jax.agent.cores.none import NoMemory
from trxl_jax.agent.cores.transformer_xl import TransformerXL
from trxl_jax.agent.numerics import Numerics
from trxl_jax.config import Config

MakeCore = Callable[[Config, Numerics], Core]


def make_core(config: Config, numerics: Numerics) -> Core:
    """The core that a configuration names, for a configuration fitted to its task."""
    return _make_trxl(config, numerics)


def _make_trxl(config: Config, numerics: Numerics) -> Core:
    assert config.trxl_num_positions is not None, "the configuration isn't fitted to its task"
    return TransformerXL(
        dim=config.trxl_dim,
        num_layers=config.trxl_num_layers,
        num_heads=config.trxl_num_heads,
        window=config.trxl_memory_length,
        positional_encoding=config.trxl_positional_encoding,
        max_episode_steps=config.trxl_num_positions,
        memory_dtype=config.memory_dtype,
        numerics=numerics,
        name="transformer",
    )


def _make_none(config: Config, numerics: Numerics) -> Core:
    return NoMemory(dim=config.trxl_dim)
