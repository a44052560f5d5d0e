"""Presets: the published configurations for Memory Gym, Proof of Memory and MiniGrid, by name; one of our own."""

import difflib
from typing import Any

from trxl_jax.config import Config
from trxl_jax.errors import ConfigError, brief

_ENDLESS: dict[str, Any] = {"trxl_memory_length": 256, "total_timesteps": 350_000_000}

PRESETS: dict[str, Config] = {
    "mortar-mayhem-grid": Config(env_id="MortarMayhem-Grid-v0", norm_adv=True, total_timesteps=100_000_000),
    "mortar-mayhem": Config(env_id="MortarMayhem-v0", reconstruction_coef=0.1, trxl_memory_length=275),
    "endless-mortar-mayhem": Config(env_id="Endless-MortarMayhem-v0", **_ENDLESS),
    "mystery-path-grid": Config(env_id="MysteryPath-Grid-v0", trxl_memory_length=96, total_timesteps=100_000_000),
    "mystery-path": Config(env_id="MysteryPath-v0", trxl_memory_length=256),
    "endless-mystery-path": Config(env_id="Endless-MysteryPath-v0", **_ENDLESS),
    "searing-spotlights": Config(env_id="SearingSpotlights-v0", reconstruction_coef=0.1, trxl_memory_length=256),
    "endless-searing-spotlights": Config(env_id="Endless-SearingSpotlights-v0", reconstruction_coef=0.1, **_ENDLESS),
    "proof-of-memory": Config(
        env_id="ProofofMemory-v0",
        total_timesteps=25_000,
        num_envs=16,
        num_steps=128,
        num_minibatches=8,
        update_epochs=4,
        trxl_num_layers=4,
        trxl_num_heads=1,
        trxl_dim=64,
        trxl_memory_length=16,
        trxl_positional_encoding="none",
        vf_coef=0.1,
        max_grad_norm=0.5,
        init_lr=3.0e-4,
        init_ent_coef=0.001,
        clip_coef=0.2,
    ),
    "minigrid-memory-s9": Config(
        env_id="MiniGrid-MemoryS9-v0",
        total_timesteps=2_048_000,
        num_envs=16,
        num_steps=256,
        trxl_num_layers=2,
        trxl_num_heads=4,
        trxl_dim=256,
        trxl_memory_length=64,
        max_grad_norm=0.25,
        anneal_steps=4_096_000,
        clip_coef=0.2,
    ),
    # The published command guesses. These settings learn the task; a study of every core found them (docs/results.md).
    "minigrid-memory-s9-tuned": Config(
        env_id="MiniGrid-MemoryS9-v0",
        env_kwargs={"symbolic": True, "agent_view_size": 3, "num_actions": 3},
        core="gru",
        segment_length=64,
        total_timesteps=1_500_000,
        num_envs=16,
        num_steps=128,
        num_minibatches=4,
        update_epochs=4,
        gamma=1.0,
        norm_adv=True,
        trxl_num_layers=1,
        trxl_num_heads=4,
        trxl_dim=64,
        trxl_memory_length=96,
        init_lr=3e-3,
        final_lr=3e-3,
        init_ent_coef=0.01,
        final_ent_coef=0.01,
        anneal_steps=0,
    ),
}
"""Configuration of each preset, by the name that `train.py` takes."""


def preset(name: str) -> Config:
    """The preset of that name.

    Raises:
        ConfigError: there is no such preset; the message suggests similar names.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name.lower(), PRESETS, n=3, cutoff=0.4) or sorted(PRESETS)
        raise ConfigError(f"unknown preset {brief(name)}; did you mean {', '.join(near)}?")
    return PRESETS[name]
