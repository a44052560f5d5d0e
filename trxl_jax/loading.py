"""A trained agent from a run, from a checkpoint, or from a file of the PyTorch original."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import chex
import jax

from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.config import Config, load_config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS, EnvSpec
from trxl_jax.envs.observations import PICTURE_84, numbers
from trxl_jax.envs.registry import require_no_import
from trxl_jax.errors import CheckpointError, ConfigError
from trxl_jax.files import read_text
from trxl_jax.play.policy import Policy
from trxl_jax.runs import checkpoint
from trxl_jax.torch_import.checkpoint import load_torch_checkpoint


def load(path: str | Path, *, allow_import: bool = False) -> Policy:
    """Reads a trained agent. The environment isn't needed.

    Args:
        path: a run's directory (its newest checkpoint is read), its `best` directory, one checkpoint in it, or a file
            of the PyTorch original (.nn or .cleanrl_model).
        allow_import: whether to import the module of a `core` such as `module:name`, which a file may have chosen.

    Raises:
        UserError: there is nothing of the kind, or it can't be read.
    """
    path = find(Path(path))
    if path.is_file():
        loaded = load_torch_checkpoint(path)
        for note in loaded.notes:
            logging.getLogger(__name__).warning("%s: %s", path, note)
        return Policy(params=loaded.params, agent=make_agent(loaded.config, loaded.spec), config=loaded.config)
    run_dir = path.parent.parent
    config = load_config(run_dir / "config.json")
    if config.names_core:
        require_no_import(config, allow_import=allow_import)
    shapes = checkpoint.params_shapes(path)
    try:
        spec = _read_spec(run_dir, shapes["params"], config)
    except (AttributeError, IndexError, KeyError, TypeError):
        raise CheckpointError(f"{path} holds no agent of trxl_jax; name an earlier checkpoint") from None
    agent = make_agent(config, spec)
    expected = jax.eval_shape(agent.init_params, jax.random.key(0))
    try:
        chex.assert_trees_all_equal_shapes_and_dtypes(shapes, expected)
    except AssertionError:
        raise CheckpointError(f"{path} does not fit {run_dir / 'config.json'}, which has other sizes") from None
    return Policy(params=checkpoint.restore_params(path), agent=agent, config=config)


def find(path: Path) -> Path:
    """The checkpoint or file of the original that `load` reads; arguments and errors are those of `load`."""
    if os.path.isfile(path):  # unlike Path's, False for names that are too long
        return path
    for run_dir, checkpoints in ((path, path / "checkpoints"), (path.parent, path)):
        if os.path.isfile(run_dir / "config.json"):
            newest = checkpoint.latest(checkpoints)
            if newest is None:
                hint = "; train with --keep_best" if checkpoints.name == "best" else ""
                raise CheckpointError(f"{checkpoints} holds no checkpoint yet{hint}")
            return newest
    if not os.path.isfile(path.parent.parent / "config.json"):
        raise ConfigError(f"{path} is no run, checkpoint or file of an agent; name the directory of a training run")
    return path


def _read_spec(run_dir: Path, params: dict[str, Any], config: Config) -> EnvSpec:
    """The task's observations and actions, from `spec.json`."""
    path = run_dir / "spec.json"
    try:
        return EnvSpec.from_json(json.loads(read_text(path)))
    except FileNotFoundError:
        return _spec_of_params(params, config)
    except (OSError, ValueError, RecursionError) as error:  # ConfigError is a ValueError
        raise ConfigError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from None


def _spec_of_params(params: dict[str, Any], config: Config) -> EnvSpec:
    """The same from the shapes of parameters, for runs that version 0.1.0 wrote, which have no `spec.json`."""
    branches = sorted((name for name in params if name.startswith("actor_")), key=lambda name: int(name[6:]))
    action = DiscreteActions(tuple(params[name]["bias"].shape[0] for name in branches))
    limit = config.trxl_num_positions or ENDLESS_MAX_EPISODE_STEPS
    if "conv_0" in params["encoder"]:
        return EnvSpec(PICTURE_84, action, limit)
    return EnvSpec(numbers(params["encoder"]["dense"]["kernel"].shape[0]), action, limit)
