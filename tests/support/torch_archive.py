"""Writes archives in the format of `torch.save`, without PyTorch: valid ones and, for tests, malformed ones."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

KINDS = {"float16": "Half", "float32": "Float", "float64": "Double", "uint8": "Byte", "int8": "Char", "int16": "Short",
         "int32": "Int", "int64": "Long", "bool": "Bool", "bfloat16": "BFloat16"}  # fmt: skip


class Tensor(NamedTuple):
    """A tensor: a view of a storage. Offset and strides are in elements."""

    storage: str
    elements: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0
    dtype: str = "float32"
    location: str = "cpu"


class Opcodes(bytes):
    """Raw pickle opcodes, inserted unchanged."""


def dumps(content: Any) -> bytes:
    """Pickles a value with protocol 2."""
    return b"\x80\x02" + _encode(content) + b"."


def write(
    path: Path, pickled: bytes, storages: Mapping[str, bytes], byteorder: str | None = "little", **kwargs: Any
) -> Path:
    """Writes an archive from a pickle and the bytes of its storages."""
    with zipfile.ZipFile(path, "w", **kwargs) as archive:
        archive.writestr("archive/data.pkl", pickled)
        if byteorder is not None:
            archive.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")
    return path


def save(path: Path, weights: Mapping[str, np.ndarray], args: Mapping[str, Any]) -> Path:
    """Writes a checkpoint as the original's `--save_model` does."""
    tensors, storages = {}, {}
    for i, (name, value) in enumerate(weights.items()):
        stride = tuple(step // value.itemsize for step in np.ascontiguousarray(value).strides)
        tensors[name] = Tensor(str(i), value.size, value.shape, stride, dtype=str(value.dtype), location="cuda:0")
        storages[str(i)] = value.tobytes()
    return write(path, dumps({"model_weights": tensors, "args": dict(args)}), storages)


def _encode(value: Any) -> bytes:
    match value:
        case Opcodes():
            return value
        case Tensor():
            storage = _encode(("storage", _symbol(f"torch {KINDS[value.dtype]}Storage"), value.storage, value.location,
                               value.elements)) + b"Q"  # fmt: skip
            hooks = Opcodes(_symbol("collections OrderedDict") + b")R")
            return call(
                "torch._utils _rebuild_tensor_v2",
                Opcodes(storage),
                value.offset,
                value.size,
                value.stride,
                False,
                hooks,
            )
        case None | bool():
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            return (
                b"J" + struct.pack("<i", value)
                if abs(value) < 2**31
                else b"\x8a\x10" + value.to_bytes(16, "little", signed=True)
            )
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(_encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_encode, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_encode(part) for item in value.items() for part in item) + b"u"
    raise TypeError(value)


def call(function: str, *arguments: Any) -> Opcodes:
    """Opcodes that call a function, given as "module name", with arguments."""
    return Opcodes(_symbol(function) + _encode(arguments) + b"R")


def _symbol(name: str) -> Opcodes:
    return Opcodes(b"c" + name.replace(" ", "\n").encode() + b"\n")
