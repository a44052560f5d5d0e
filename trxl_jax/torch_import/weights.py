"""Converts parameters of the original PyTorch implementation to Flax names and layouts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.agent.cores.transformer_xl import TransformerXL
from trxl_jax.errors import CheckpointError
from trxl_jax.torch_import.archive import listed, quote

FREQUENCIES = "transformer.pos_embedding.inv_freqs"
"""A constant that the original saves with its parameters: frequencies of the absolute positional encoding."""
_ENCODER_GRID = (64, 7, 7)
_HINT = "task and sizes must be those it was trained with"


class _Target(NamedTuple):
    """Where a PyTorch parameter goes in the Flax variables.

    Fields:
        path: keys in the nested dict of parameters.
        axes: permutation of the PyTorch axes that gives the Flax layout.
        rearrange: applied before the permutation; keeps the shape.
    """

    path: tuple[str, ...]
    axes: tuple[int, ...]
    rearrange: Callable[[np.ndarray], np.ndarray] = lambda value: value


def params_from_torch(weights: Mapping[str, np.ndarray], agent: ActorCritic) -> dict[str, Any]:
    """Converts a PyTorch state dict into the variables of an agent.

    Layouts, PyTorch to Flax: linear weights [out, in] to [in, out]; convolutions [out, in, h, w] to [h, w, in, out];
    transposed convolutions [in, out, h, w] to [h, w, in, out], flipped along h and w. PyTorch flattens images
    channels-first, Flax channels-last.

    Args:
        weights: floating-point arrays by PyTorch name.
        agent: the model the parameters are for.

    Returns:
        Variables as `agent.init_params` returns them, f32.

    Raises:
        CheckpointError: a parameter is missing, unexpected, has the wrong shape, or is not finite.
    """
    targets = _targets(agent)
    for name in weights:
        if name not in targets and name != FREQUENCIES:
            shape = np.shape(weights[name])
            raise CheckpointError(f"it holds {quote(name)} of shape {shape}, which is not expected; {_HINT}")
    # Before shapes are computed: that takes long for as many layers as a file may name.
    for name in targets:
        if name not in weights:
            raise CheckpointError(f"it lacks {name}; {_HINT}")
    expected = flatten_dict(jax.eval_shape(agent.init_params, jax.random.key(0))["params"])
    params = {}
    for name, target in targets.items():
        shape = _torch_shape(target, expected[target.path].shape)
        value = np.asarray(weights[name])
        if value.shape != shape or not np.issubdtype(value.dtype, np.floating):
            found = f"{value.shape} of {value.dtype}"
            raise CheckpointError(f"{name} has shape {found}, expected {shape} of float32; {_HINT}")
        if not np.isfinite(value).all():
            raise CheckpointError(f"{name} is not finite; its training diverged")
        params[target.path] = jnp.asarray(target.rearrange(value).transpose(target.axes), jnp.float32)
    if unfilled := sorted(".".join(path) for path in expected.keys() - params.keys()):
        raise CheckpointError(f"the agent has parameters that no file of the original holds: {listed(unfilled)}")
    return {"params": unflatten_dict(params)}


def _torch_shape(target: _Target, ours: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(ours[target.axes.index(axis)] for axis in range(len(ours)))


def _targets(agent: ActorCritic) -> dict[str, _Target]:
    """Where each parameter goes, by its PyTorch name, for an agent of these sizes."""
    core = agent.core
    assert isinstance(core, TransformerXL), "files of the original hold no other core"
    targets: dict[str, _Target] = {}
    if agent.spec.has_pictures:
        for i in range(3):
            targets |= _weight_and_bias(f"encoder.{2 * i}", ("encoder", f"conv_{i}"), (2, 3, 1, 0))
        targets |= _weight_and_bias("encoder.7", ("encoder", "dense"), (1, 0), _columns_to_channels_last)
    else:
        targets |= _weight_and_bias("encoder", ("encoder", "dense"), (1, 0))
    if core.options.positional_encoding == "learned":
        targets["transformer.pos_embedding"] = _Target(("transformer", "positions", "table"), (0, 1))
    for i in range(core.num_layers):
        targets |= _layer(f"transformer.transformer_layers.{i}", ("transformer", f"layers_{i}"))
    targets |= _weight_and_bias("hidden_post_trxl.0", ("post_transformer",), (1, 0))
    for i in range(agent.spec.action.num_branches):
        targets |= _weight_and_bias(f"actor_branches.{i}", (f"actor_{i}",), (1, 0))
    targets |= _weight_and_bias("critic", ("critic",), (1, 0))
    if agent.reconstruction:
        targets |= _weight_and_bias(
            "transposed_cnn.0", ("decoder", "dense"), (1, 0), _rows_to_channels_last, _rows_to_channels_last
        )
        for i in range(3):
            targets |= _weight_and_bias(f"transposed_cnn.{2 * i + 3}", ("decoder", f"deconv_{i}"), (2, 3, 0, 1), _flip)
    return targets


def _weight_and_bias(
    name: str,
    path: tuple[str, ...],
    axes: tuple[int, ...],
    rearrange: Callable[[np.ndarray], np.ndarray] = lambda value: value,
    rearrange_bias: Callable[[np.ndarray], np.ndarray] = lambda value: value,
) -> dict[str, _Target]:
    return {
        f"{name}.weight": _Target((*path, "kernel"), axes, rearrange),
        f"{name}.bias": _Target((*path, "bias"), (0,), rearrange_bias),
    }


def _layer(name: str, path: tuple[str, ...]) -> dict[str, _Target]:
    attention = (*path, "attention")
    targets = {
        f"{name}.attention.{kind}.weight": _Target((*attention, kind), (1, 0)) for kind in ("queries", "keys", "values")
    }
    targets |= _weight_and_bias(f"{name}.attention.fc_out", (*attention, "out"), (1, 0))
    targets |= _weight_and_bias(f"{name}.fc_projection.0", (*path, "projection"), (1, 0))
    targets[f"{name}.norm_kv.weight"] = _Target((*attention, "kv_scale"), (0,))
    targets[f"{name}.norm_kv.bias"] = _Target((*attention, "kv_bias"), (0,))
    for theirs, ours in (("layer_norm_q", "norm_query"), ("layer_norm_attn", "norm_attention")):
        targets[f"{name}.{theirs}.weight"] = _Target((*path, ours, "scale"), (0,))
        targets[f"{name}.{theirs}.bias"] = _Target((*path, ours, "bias"), (0,))
    return targets


def _columns_to_channels_last(weight: np.ndarray) -> np.ndarray:
    """[D, channels * h * w] to [D, h * w * channels]."""
    return weight.reshape(-1, *_ENCODER_GRID).transpose(0, 2, 3, 1).reshape(weight.shape)


def _rows_to_channels_last(value: np.ndarray) -> np.ndarray:
    """[channels * h * w, ...] to [h * w * channels, ...]."""
    return np.moveaxis(value.reshape(*_ENCODER_GRID, *value.shape[1:]), 0, 2).reshape(value.shape)


def _flip(weight: np.ndarray) -> np.ndarray:
    return weight[:, :, ::-1, ::-1]
