"""A trained agent from a run, from a checkpoint, or from a file of the PyTorch original."""

import json
import logging
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np

from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.config import Config, load_config
from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS, EnvSpec
from trxl_jax.envs.spaces import IMAGE_SHAPE, DiscreteActions
from trxl_jax.errors import CheckpointError, ConfigError
from trxl_jax.play.policy import Policy
from trxl_jax.runs import checkpoint
from trxl_jax.torch_import.checkpoint import load_torch_checkpoint


def load(path: str | Path) -> Policy:
    """Reads a trained agent. The environment isn't needed.

    Args:
        path: a run's directory (its newest checkpoint is read), one checkpoint in it, or a file of the PyTorch
            original (.nn or .cleanrl_model).

    Raises:
        UserError: there is nothing of the kind, or it can't be read.
    """
    path = Path(path)
    if path.is_file():
        loaded = load_torch_checkpoint(path)
        for note in loaded.notes:
            logging.getLogger(__name__).warning("%s: %s", path, note)
        return Policy(params=loaded.params, agent=make_agent(loaded.config, loaded.spec), config=loaded.config)
    run_dir = path if (path / "config.json").is_file() else path.parent.parent
    if not (run_dir / "config.json").is_file():
        raise ConfigError(f"{path} is no run, checkpoint or file of an agent; name the directory of a training run")
    newest = checkpoint.latest(run_dir / "checkpoints") if path == run_dir else path
    if newest is None:
        raise CheckpointError(f"{run_dir} has no checkpoint yet")
    config = load_config(run_dir / "config.json")
    params = checkpoint.restore_params(newest)
    agent = make_agent(config, _read_spec(run_dir, params["params"], config))
    expected = jax.eval_shape(agent.init_params, jax.random.key(0))
    try:
        chex.assert_trees_all_equal_shapes_and_dtypes(params, expected)
    except AssertionError:
        raise CheckpointError(f"{newest} does not fit {run_dir / 'config.json'}, which has other sizes") from None
    return Policy(params=params, agent=agent, config=config)


def _read_spec(run_dir: Path, params: dict[str, Any], config: Config) -> EnvSpec:
    """The task's observations and actions, from `spec.json`."""
    path = run_dir / "spec.json"
    try:
        return EnvSpec.from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        return _spec_of_params(params, config)
    except (OSError, ValueError) as error:  # ConfigError is a ValueError
        raise ConfigError(f"{path} can't be read: {error}") from None


def _spec_of_params(params: dict[str, Any], config: Config) -> EnvSpec:
    """The same from the shapes of parameters, for runs that version 0.1.0 wrote, which have no `spec.json`."""
    branches = sorted((name for name in params if name.startswith("actor_")), key=lambda name: int(name[6:]))
    action = DiscreteActions(tuple(params[name]["bias"].shape[0] for name in branches))
    limit = config.trxl_num_positions or ENDLESS_MAX_EPISODE_STEPS
    if "conv_0" in params["encoder"]:
        return EnvSpec(IMAGE_SHAPE, np.dtype(np.uint8), action, limit)
    features = params["encoder"]["dense"]["kernel"].shape[0]
    return EnvSpec((features,), np.dtype(np.float32), action, limit)
