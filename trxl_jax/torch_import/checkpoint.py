"""Loads checkpoints of the original PyTorch implementation as configuration and parameters.

The original's `--save_model` writes `{"model_weights": state_dict, "args": vars(args)}`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.agent.cores.positions import position_frequencies
from trxl_jax.config import Config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.observations import PICTURE_84, numbers
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import CheckpointError, UserError
from trxl_jax.torch_import.archive import read_torch_file
from trxl_jax.torch_import.arguments import config_from_args
from trxl_jax.torch_import.weights import FREQUENCIES, params_from_torch


class TorchCheckpoint(NamedTuple):
    """A converted checkpoint.

    Fields:
        config: the agent's settings, with `trxl_num_positions` set and, as in the original, a float32 memory.
        spec: shapes of the task's observations and actions, and its longest episode.
        params: the variables of `make_agent(config, spec)`, f32.
        notes: messages for the user about settings that were missing, unknown or changed.
    """

    config: Config
    spec: EnvSpec
    params: dict[str, Any]
    notes: tuple[str, ...]


class TorchFile(NamedTuple):
    """The content of a PyTorch checkpoint, before it is converted for a task.

    Fields:
        path: the file.
        weights: parameters by their PyTorch names.
        config: the settings stored in the file; with `trxl_num_positions` if positional encodings are learned.
        notes: messages for the user about these settings.
    """

    path: Path
    weights: dict[str, np.ndarray]
    config: Config
    notes: list[str]


def load_torch_checkpoint(
    path: Path | str, *, spec: EnvSpec | None = None, max_episode_steps: int | None = None
) -> TorchCheckpoint:
    """Loads a file written by the original's `--save_model`, including those its author published.

    No code in the file is executed. Files don't store the task's maximum episode length E, on which absolute positional
    encodings depend.

    Args:
        path: the file.
        spec: shapes of the task, if known.
        max_episode_steps: E. None: the number of learned positions, or that of `spec`, or that of the environment named
            in the file, which is created to find out.

    Raises:
        CheckpointError: the file can't be read, or its parameters don't match its settings and task.
    """
    file = open_file(Path(path))
    limit = max_episode_steps or file.config.trxl_num_positions
    if spec is not None:
        spec = spec if limit is None else spec._replace(max_episode_steps=limit)
    elif limit is not None:
        spec = _spec_of_weights(file, limit)
    else:
        spec = _spec_of_environment(file)
    return fit_to_task(file, file.config, spec)


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from None


def open_file(path: Path) -> TorchFile:
    """Reads a checkpoint without converting its parameters.

    Raises:
        CheckpointError: the file is damaged or was not written by the original's `--save_model`.
    """
    content = read_torch_file(path)
    with _errors_name(path):
        match content:
            case {"model_weights": dict() as weights, "args": dict() as args}:
                pass
            case _:
                raise CheckpointError(
                    "holds no model_weights and args; give a file written by the original's --save_model"
                )
        if not all(isinstance(value, np.ndarray) for value in weights.values()):
            raise CheckpointError("not all of its model_weights are tensors")
        config, notes = config_from_args(args)
        _check_sizes(weights, config)
        if config.trxl_positional_encoding == "learned":
            config = config.replace(trxl_num_positions=_size(weights, "transformer.pos_embedding", 0))
    return TorchFile(path, weights, config, notes)


def _check_sizes(weights: Mapping[str, np.ndarray], config: Config) -> None:
    """Checks sizes in the settings against the parameters before allocating anything: args may hold any number."""
    prefix = "transformer.transformer_layers."
    layers = len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})
    for name, size in (("trxl_num_layers", layers), ("trxl_dim", _size(weights, "critic.weight", 1))):
        if getattr(config, name) != size:
            raise CheckpointError(f"its args say {name} {getattr(config, name)}, but its parameters {size}")


def _size(weights: Mapping[str, np.ndarray], name: str, axis: int) -> int:
    """Size of a matrix along one axis."""
    if name not in weights:
        raise CheckpointError(f"it lacks {name}, expected of every agent with its args")
    if weights[name].ndim != 2:
        raise CheckpointError(f"{name} has shape {weights[name].shape}, expected a matrix")
    return weights[name].shape[axis]


def _spec_of_weights(file: TorchFile, max_episode_steps: int) -> EnvSpec:
    weights = file.weights
    with _errors_name(file.path):
        branches = sum(re.fullmatch(r"actor_branches\.\d+\.weight", name) is not None for name in weights)
        action = DiscreteActions(tuple(_size(weights, f"actor_branches.{i}.weight", 0) for i in range(branches)))
        if "encoder.weight" in weights:
            return EnvSpec(numbers(_size(weights, "encoder.weight", 1)), action, max_episode_steps)
    return EnvSpec(PICTURE_84, action, max_episode_steps)


def _spec_of_environment(file: TorchFile) -> EnvSpec:
    try:
        env = make_env(Config(env_id=file.config.env_id, num_envs=1))
    except UserError as error:
        raise CheckpointError(
            f"{file.path}: can't create its environment to find the longest episode ({error}); give max_episode_steps"
        ) from None
    env.close()
    return env.spec


def fit_to_task(file: TorchFile, config: Config, spec: EnvSpec) -> TorchCheckpoint:
    """Converts the parameters for a configuration and a task.

    Args:
        file: the checkpoint.
        config: the settings to use, which may differ from the file's.
        spec: shapes of the task.

    Raises:
        CheckpointError: the parameters don't match.
    """
    notes = file.notes
    with _errors_name(file.path):
        fitted = config.fitted_to(spec.max_episode_steps)
        if fitted.trxl_memory_length < config.trxl_memory_length:
            window = fitted.trxl_memory_length
            cut = f"trxl_memory_length {config.trxl_memory_length} is cut to {window}, the task's longest episode"
            notes = [*notes, cut]
        config = fitted
        _check_frequencies(file.weights, config)
        params = params_from_torch(file.weights, make_agent(config, spec))
    return TorchCheckpoint(config, spec, params, tuple(notes))


def _check_frequencies(weights: Mapping[str, np.ndarray], config: Config) -> None:
    """Absolute positional encodings have no parameters: only this saved constant shows whether they were used."""
    kind, found = config.trxl_positional_encoding, weights.get(FREQUENCIES)
    if (found is not None) != (kind == "absolute"):
        raise CheckpointError(f"its encoding is {kind}, and it {'lacks' if found is None else 'holds'} {FREQUENCIES}")
    expected = position_frequencies(config.trxl_dim)
    if found is not None and (found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-5, atol=0)):
        raise CheckpointError(f"its {FREQUENCIES} are not 10000^(-j / {config.trxl_dim}), j = 0, 2, 4, ...")
