"""Checkpoints of the original PyTorch implementation as agents of ours.

A file is what the original's `--save_model` writes: `{"model_weights": state_dict, "args": vars(args)}`.
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
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.registry import make_env
from trxl_jax.envs.spaces import IMAGE_SHAPE, DiscreteActions
from trxl_jax.errors import CheckpointError, UserError
from trxl_jax.torch_import.archive import read_torch_file
from trxl_jax.torch_import.arguments import config_from_args
from trxl_jax.torch_import.weights import FREQUENCIES, params_from_torch


class TorchCheckpoint(NamedTuple):
    """An agent of the original as ours.

    Fields:
        config: its settings, with `max_episode_steps`, and with the memory in float32 as the original's was.
        spec: the task's observations, actions and longest episode.
        params: the variables of `make_agent(config, spec)`.
        notes: what a person should know: settings that were missing, unknown or changed.
    """

    config: Config
    spec: EnvSpec
    params: dict[str, Any]
    notes: tuple[str, ...]


class TorchFile(NamedTuple):
    """A file of the original, read but not yet fitted to a task.

    Fields:
        path: where it is.
        weights: arrays by PyTorch name.
        config: its settings.
        notes: what a person should know of them.
    """

    path: Path
    weights: dict[str, np.ndarray]
    config: Config  # with `max_episode_steps` if positions are learned
    notes: list[str]


def load_torch_checkpoint(
    path: Path | str, *, spec: EnvSpec | None = None, max_episode_steps: int | None = None
) -> TorchCheckpoint:
    """Reads a file of the original's `--save_model`, or one that its author published.

    Nothing in it is run. Files don't hold the task's longest episode E, which sets the phase of absolute positions.

    Args:
        path: the file.
        spec: the task, if it is known.
        max_episode_steps: E. None: the number of learned positions, or that of `spec`, or else that of the file's own
            environment, which is made to ask it.

    Raises:
        CheckpointError: the file can't be read, or its parameters are not those of its settings and task.
    """
    file = open_file(Path(path))
    limit = max_episode_steps or file.config.max_episode_steps
    if spec is not None:
        spec = spec if limit is None else spec._replace(max_episode_steps=limit)
    elif limit is not None:
        spec = _spec_of_weights(file, limit)
    else:
        spec = _ask_environment(file)
    return fit_to_task(file, file.config, spec)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from None


def open_file(path: Path) -> TorchFile:
    """Reads a file.

    Raises:
        CheckpointError: it is damaged, or no file of the original's `--save_model`.
    """
    content = read_torch_file(path)
    with _told_of(path):
        match content:
            case {"model_weights": dict() as weights, "args": dict() as args}:
                pass
            case _:
                raise CheckpointError("holds no model_weights and args; name a file of the original's --save_model")
        if not all(isinstance(value, np.ndarray) for value in weights.values()):
            raise CheckpointError("not all of its model_weights are tensors")
        config, notes = config_from_args(args)
        _check_sizes(weights, config)
        if config.trxl_positional_encoding == "learned":
            config = config.replace(max_episode_steps=_size(weights, "transformer.pos_embedding", 0))
    return TorchFile(path, weights, config, notes)


def _check_sizes(weights: Mapping[str, np.ndarray], config: Config) -> None:
    """Holds sizes against the parameters before anything is built of them: args can say any number."""
    prefix = "transformer.transformer_layers."
    layers = len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})
    for name, size in (("trxl_num_layers", layers), ("trxl_dim", _size(weights, "critic.weight", 1))):
        if getattr(config, name) != size:
            raise CheckpointError(f"its args say {name} {getattr(config, name)}, its parameters {size}")


def _size(weights: Mapping[str, np.ndarray], name: str, axis: int) -> int:
    """Size of a matrix along an axis."""
    if name not in weights:
        raise CheckpointError(f"it lacks {name}, expected of every agent with its args")
    if weights[name].ndim != 2:
        raise CheckpointError(f"{name} has shape {weights[name].shape}, expected a matrix")
    return weights[name].shape[axis]


def _spec_of_weights(file: TorchFile, max_episode_steps: int) -> EnvSpec:
    weights = file.weights
    with _told_of(file.path):
        branches = sum(re.fullmatch(r"actor_branches\.\d+\.weight", name) is not None for name in weights)
        action = DiscreteActions(tuple(_size(weights, f"actor_branches.{i}.weight", 0) for i in range(branches)))
        if "encoder.weight" in weights:
            shape = (_size(weights, "encoder.weight", 1),)
            return EnvSpec(shape, np.dtype(np.float32), action, max_episode_steps)
    return EnvSpec(IMAGE_SHAPE, np.dtype(np.uint8), action, max_episode_steps)


def _ask_environment(file: TorchFile) -> EnvSpec:
    try:
        env = make_env(Config(env_id=file.config.env_id, num_envs=1))
    except UserError as error:
        raise CheckpointError(
            f"{file.path}: its environment can't be asked for its longest episode ({error}); give max_episode_steps"
        ) from None
    env.close()
    return env.spec


def fit_to_task(file: TorchFile, config: Config, spec: EnvSpec) -> TorchCheckpoint:
    """The file's parameters as those of a configuration and a task."""
    notes = file.notes
    with _told_of(file.path):
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
    """Absolute positions have no parameters: only this constant tells whether an agent was trained with them."""
    kind, found = config.trxl_positional_encoding, weights.get(FREQUENCIES)
    if (found is not None) != (kind == "absolute"):
        raise CheckpointError(f"its encoding is {kind}, and it {'lacks' if found is None else 'holds'} {FREQUENCIES}")
    expected = position_frequencies(config.trxl_dim)
    if found is not None and (found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-5, atol=0)):
        raise CheckpointError(f"its {FREQUENCIES} are not 10000^(-j / {config.trxl_dim}), j = 0, 2, 4, ...")
