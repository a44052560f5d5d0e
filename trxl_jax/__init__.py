"""PPO with Transformer-XL as episodic memory, in JAX and Flax.

Names are imported when they are first used: worker processes of host environments import this package too, and need
neither JAX nor Flax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trxl_jax.advantages import gae
    from trxl_jax.agent import ActorCritic, MultiCategorical, make_agent
    from trxl_jax.config import Config
    from trxl_jax.envs import make_env
    from trxl_jax.envs.base import Environment, EnvSpec, EpisodeStats, TimeStep
    from trxl_jax.envs.device import DeviceEnvironment
    from trxl_jax.envs.host import HostEnvironment
    from trxl_jax.evaluation import Evaluation, evaluate
    from trxl_jax.memory import EpisodicMemory
    from trxl_jax.policy import Policy, PolicyMemory, load
    from trxl_jax.ppo import TrainState, make_optimizer, ppo_loss, update
    from trxl_jax.presets import PRESETS
    from trxl_jax.rollout import RolloutState, collect_rollout
    from trxl_jax.torch_import import load_torch_checkpoint
    from trxl_jax.train_step import init_states, make_train_step
    from trxl_jax.trainer import train

_HOME = {
    "gae": "advantages",
    "ActorCritic": "agent",
    "MultiCategorical": "agent",
    "make_agent": "agent",
    "PRESETS": "presets",
    "Config": "config",
    "make_env": "envs",
    "Environment": "envs.base",
    "EnvSpec": "envs.base",
    "EpisodeStats": "envs.base",
    "TimeStep": "envs.base",
    "DeviceEnvironment": "envs.device",
    "HostEnvironment": "envs.host",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "EpisodicMemory": "memory",
    "Policy": "policy",
    "PolicyMemory": "policy",
    "load": "policy",
    "TrainState": "ppo",
    "make_optimizer": "ppo",
    "ppo_loss": "ppo",
    "update": "ppo",
    "RolloutState": "rollout",
    "collect_rollout": "rollout",
    "load_torch_checkpoint": "torch_import",
    "init_states": "train_step",
    "make_train_step": "train_step",
    "train": "trainer",
}

__all__ = [  # noqa: RUF022 - in the order of the modules
    "gae",
    "ActorCritic",
    "MultiCategorical",
    "make_agent",
    "PRESETS",
    "Config",
    "make_env",
    "Environment",
    "EnvSpec",
    "EpisodeStats",
    "TimeStep",
    "DeviceEnvironment",
    "HostEnvironment",
    "Evaluation",
    "evaluate",
    "EpisodicMemory",
    "Policy",
    "PolicyMemory",
    "load",
    "TrainState",
    "make_optimizer",
    "ppo_loss",
    "update",
    "RolloutState",
    "collect_rollout",
    "load_torch_checkpoint",
    "init_states",
    "make_train_step",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
