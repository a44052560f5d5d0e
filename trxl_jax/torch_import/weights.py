"""Parameters of the original PyTorch implementation, renamed and laid out for ours."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.errors import CheckpointError
from trxl_jax.torch_import.archive import quote

FREQUENCIES = "transformer.pos_embedding.inv_freqs"
"""A constant that the original saves beside its parameters."""
_ENCODER_GRID = (64, 7, 7)
_REMEDY = "the task and the sizes must be those it was trained with"


class _Place(NamedTuple):
    """Where a parameter of the original goes.

    Fields:
        path: in our variables.
        axes: the original's axes in our order.
        rearrange: what else moves, within the original's shape.
    """

    path: tuple[str, ...]
    axes: tuple[int, ...]
    rearrange: Callable[[np.ndarray], np.ndarray] = lambda value: value


def params_from_torch(weights: Mapping[str, np.ndarray], agent: ActorCritic) -> dict[str, Any]:
    """The variables of an agent, in float32, from a state dict of the original's.

    Linear weights are [out, in] there and [in, out] here; convolutions [out, in, h, w] and [h, w, in, out]; transposed
    ones [in, out, h, w] and, flipped in space, [h, w, in, out]. The original flattens pictures channel-first.

    Args:
        weights: arrays by PyTorch name.
        agent: the model that is to have them.

    Raises:
        CheckpointError: a parameter is missing, one too many, of another shape, or not made of finite numbers.
    """
    places = _places(agent)
    for name in weights:
        if name not in places and name != FREQUENCIES:
            shape = np.shape(weights[name])
            raise CheckpointError(f"it holds {quote(name)} of shape {shape}, none was expected; {_REMEDY}")
    expected = flatten_dict(jax.eval_shape(agent.init_params, jax.random.key(0))["params"])
    params = {}
    for name, place in places.items():
        shape = _shape_there(place, expected[place.path].shape)
        if name not in weights:
            raise CheckpointError(f"it lacks {name}, expected with shape {shape}; {_REMEDY}")
        value = np.asarray(weights[name])
        if value.shape != shape or not np.issubdtype(value.dtype, np.floating):
            found = f"{value.shape} of {value.dtype}"
            raise CheckpointError(f"{name} has shape {found}, expected {shape} of float32; {_REMEDY}")
        if not np.isfinite(value).all():
            raise CheckpointError(f"{name} holds numbers that are not finite; its training had diverged")
        params[place.path] = jnp.asarray(place.rearrange(value).transpose(place.axes), jnp.float32)
    return {"params": unflatten_dict(params)}


def _shape_there(place: _Place, ours: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(ours[place.axes.index(axis)] for axis in range(len(ours)))


def _places(agent: ActorCritic) -> dict[str, _Place]:
    """Every parameter of the original's agent of these sizes, by its name."""
    places: dict[str, _Place] = {}
    if agent.spec.is_pixels:
        for i in range(3):
            places |= _pair(f"encoder.{2 * i}", ("encoder", f"conv_{i}"), (2, 3, 1, 0))
        places |= _pair("encoder.7", ("encoder", "dense"), (1, 0), _channels_of_columns_last)
    else:
        places |= _pair("encoder", ("encoder", "dense"), (1, 0))
    if agent.positional_encoding == "learned":
        places["transformer.pos_embedding"] = _Place(("transformer", "positions", "table"), (0, 1))
    for i in range(agent.num_layers):
        places |= _layer(f"transformer.transformer_layers.{i}", ("transformer", f"layers_{i}"))
    places |= _pair("hidden_post_trxl.0", ("post_transformer",), (1, 0))
    for i in range(agent.spec.action.num_branches):
        places |= _pair(f"actor_branches.{i}", (f"actor_{i}",), (1, 0))
    places |= _pair("critic", ("critic",), (1, 0))
    if agent.reconstruction:
        places |= _pair(
            "transposed_cnn.0", ("decoder", "dense"), (1, 0), _channels_of_rows_last, _channels_of_rows_last
        )
        for i in range(3):
            places |= _pair(f"transposed_cnn.{2 * i + 3}", ("decoder", f"deconv_{i}"), (2, 3, 0, 1), _flip)
    return places


def _pair(
    name: str,
    path: tuple[str, ...],
    axes: tuple[int, ...],
    rearrange: Callable[[np.ndarray], np.ndarray] = lambda value: value,
    rearrange_bias: Callable[[np.ndarray], np.ndarray] = lambda value: value,
) -> dict[str, _Place]:
    return {
        f"{name}.weight": _Place((*path, "kernel"), axes, rearrange),
        f"{name}.bias": _Place((*path, "bias"), (0,), rearrange_bias),
    }


def _layer(name: str, path: tuple[str, ...]) -> dict[str, _Place]:
    attention = (*path, "attention")
    places = {
        f"{name}.attention.{kind}.weight": _Place((*attention, kind), (1, 0)) for kind in ("queries", "keys", "values")
    }
    places |= _pair(f"{name}.attention.fc_out", (*attention, "out"), (1, 0))
    places |= _pair(f"{name}.fc_projection.0", (*path, "projection"), (1, 0))
    places[f"{name}.norm_kv.weight"] = _Place((*attention, "kv_scale"), (0,))
    places[f"{name}.norm_kv.bias"] = _Place((*attention, "kv_bias"), (0,))
    for theirs, ours in (("layer_norm_q", "norm_query"), ("layer_norm_attn", "norm_attention")):
        places[f"{name}.{theirs}.weight"] = _Place((*path, ours, "scale"), (0,))
        places[f"{name}.{theirs}.bias"] = _Place((*path, ours, "bias"), (0,))
    return places


def _channels_of_columns_last(weight: np.ndarray) -> np.ndarray:
    """[D, channels * h * w] to [D, h * w * channels]."""
    return weight.reshape(-1, *_ENCODER_GRID).transpose(0, 2, 3, 1).reshape(weight.shape)


def _channels_of_rows_last(value: np.ndarray) -> np.ndarray:
    """[channels * h * w, ...] to [h * w * channels, ...]."""
    return np.moveaxis(value.reshape(*_ENCODER_GRID, *value.shape[1:]), 0, 2).reshape(value.shape)


def _flip(weight: np.ndarray) -> np.ndarray:
    return weight[:, :, ::-1, ::-1]
