"""Parameters of the original PyTorch implementation, renamed and laid out for ours."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ENCODER_GRID = (64, 7, 7)
_BUFFERS = {"transformer.pos_embedding.inv_freqs"}
_ATTENTION = {"norm_kv.weight": "kv_scale", "norm_kv.bias": "kv_bias"}
_MODULES = {"layer_norm_q": "norm_query", "layer_norm_attn": "norm_attention", "fc_projection.0": "projection"}


def params_from_torch(weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The variables of `ActorCritic` from a state dict of the original's `Agent`.

    Linear weights are [out, in] there and [in, out] here; convolutions [out, in, h, w] and [h, w, in, out]; transposed
    ones [in, out, h, w] and, flipped in space, [h, w, in, out]. The original flattens pictures channel-first.

    Args:
        weights: arrays by PyTorch name.

    Raises:
        ValueError: a name that the original's agent doesn't have.
    """
    params: dict[str, Any] = {}
    for name, value in weights.items():
        if name in _BUFFERS:
            continue
        path, array = _translate(name, np.asarray(value))
        node = params
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = array
    return {"params": jax.tree.map(jnp.asarray, params)}


def _translate(name: str, value: np.ndarray) -> tuple[list[str], np.ndarray]:
    if name == "transformer.pos_embedding":
        return ["transformer", "positions", "table"], value
    module, _, kind = name.rpartition(".")
    if found := re.fullmatch(r"transformer\.transformer_layers\.(\d+)\.(.+)", module):
        return _translate_layer(["transformer", f"layers_{found[1]}"], found[2], kind, value)
    if module == "encoder":
        return _dense(["encoder", "dense"], kind, value)
    if found := re.fullmatch(r"encoder\.([0247])", module):
        return _translate_encoder(int(found[1]), kind, value)
    if found := re.fullmatch(r"transposed_cnn\.([0357])", module):
        return _translate_decoder(int(found[1]), kind, value)
    if found := re.fullmatch(r"actor_branches\.(\d+)", module):
        return _dense([f"actor_{found[1]}"], kind, value)
    if module == "hidden_post_trxl.0":
        return _dense(["post_transformer"], kind, value)
    if module == "critic":
        return _dense(["critic"], kind, value)
    raise ValueError(f"{name!r} is not a parameter of the original's agent")


def _translate_layer(path: list[str], module: str, kind: str, value: np.ndarray) -> tuple[list[str], np.ndarray]:
    if f"{module}.{kind}" in _ATTENTION:
        return [*path, "attention", _ATTENTION[f"{module}.{kind}"]], value
    if module == "attention.fc_out":
        return _dense([*path, "attention", "out"], kind, value)
    if module in ("attention.queries", "attention.keys", "attention.values"):
        return [*path, *module.split(".")], value.T
    if module == "fc_projection.0":
        return _dense([*path, _MODULES[module]], kind, value)
    if module in _MODULES:
        return [*path, _MODULES[module], "scale" if kind == "weight" else "bias"], value
    raise ValueError(f"{module!r} is not a part of the original's transformer layer")


def _translate_encoder(index: int, kind: str, value: np.ndarray) -> tuple[list[str], np.ndarray]:
    if index < 7:
        path = ["encoder", f"conv_{index // 2}"]
        return ([*path, "kernel"], value.transpose(2, 3, 1, 0)) if kind == "weight" else ([*path, "bias"], value)
    if kind == "weight":
        value = value.reshape(-1, *_ENCODER_GRID).transpose(0, 2, 3, 1).reshape(value.shape)
    return _dense(["encoder", "dense"], kind, value)


def _translate_decoder(index: int, kind: str, value: np.ndarray) -> tuple[list[str], np.ndarray]:
    if index == 0:
        # Here the *output* is an image: its channels move last.
        value = np.moveaxis(value.reshape(*_ENCODER_GRID, *value.shape[1:]), 0, 2).reshape(value.shape)
        return _dense(["decoder", "dense"], kind, value)
    path = ["decoder", f"deconv_{(index - 3) // 2}"]
    if kind == "weight":
        return [*path, "kernel"], value[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
    return [*path, "bias"], value


def _dense(path: list[str], kind: str, value: np.ndarray) -> tuple[list[str], np.ndarray]:
    return ([*path, "kernel"], value.T) if kind == "weight" else ([*path, "bias"], value)
