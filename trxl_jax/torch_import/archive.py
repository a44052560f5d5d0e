"""Reads files of `torch.save` without PyTorch, and without running anything that a file asks for.

Such a file is a zip archive: `data.pkl`, a pickle in which tensors name their storages, and for each storage a record
`data/<key>` of raw numbers. Python's own unpickler calls what a pickle names. Here `pickletools` only parses it, and
the few instructions that checkpoints need build containers, numbers, strings and arrays; any other one is refused.

A `pickle.Unpickler` that admits a few names would be shorter but not as safe: an index in the file makes its memo as
large as that index, and a dict's key of nested tuples, whose hash is computed anew for each use, can keep it busy for
ever (`test_bombs`).
"""

import math
import pickletools
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from trxl_jax.errors import CheckpointError

_MAX_PICKLE = 2**20  # bytes; a checkpoint of the defaults has 12,000
_MAX_AXES = 8
_PROTOCOL = 2  # the one `torch.save` writes

_BFLOAT16 = "BFloat16Storage"
_STORAGES: dict[str, np.dtype[Any]] = {
    "HalfStorage": np.dtype(np.float16),
    _BFLOAT16: np.dtype(np.uint16),  # its upper half of a float32; NumPy has no such number
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "ByteStorage": np.dtype(np.uint8),
    "CharStorage": np.dtype(np.int8),
    "ShortStorage": np.dtype(np.int16),
    "IntStorage": np.dtype(np.int32),
    "LongStorage": np.dtype(np.int64),
    "BoolStorage": np.dtype(np.bool_),
}


def read_torch_file(path: Path) -> Any:
    """What was given to `torch.save`, with NumPy arrays instead of tensors.

    Arrays are views that can't be written to; tensors that shared a storage share memory. bfloat16 becomes float32.
    Keys of dicts are strings.

    Raises:
        CheckpointError: it can't be read, is damaged, or holds anything but containers, numbers, strings and tensors.
    """
    try:
        with path.open("rb") as file:
            _check_kind(file)
            with zipfile.ZipFile(file) as archive:
                return _load(_Records(archive, file.seek(0, 2)))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}; name a file that `torch.save` wrote") from None
    except _Refusal as refusal:
        raise CheckpointError(f"{path}: {refusal}") from None
    except Exception as error:  # zipfile and pickletools raise many kinds for bytes that make no sense to them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path} is damaged or incomplete ({reason[:200]}); copy it again") from None


def quote(text: str) -> str:
    """Text from a file for an error's line: without line breaks and escape sequences, and not long."""
    return ascii(text if len(text) <= 80 else text[:80] + "...")


def listed(names: Sequence[str]) -> str:
    """Names for a line, the first five if there are more."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


class _Refusal(Exception):
    """Why a file isn't read."""


class _Symbol(NamedTuple):
    """A name that a pickle refers to; never the thing itself."""

    name: str


class _Mark(NamedTuple):
    """Where the items of a container begin on the stack."""


_DICT = _Symbol("collections OrderedDict")
_TENSOR = _Symbol("torch._utils _rebuild_tensor_v2")
_PARAMETER = _Symbol("torch._utils _rebuild_parameter")
_SYMBOLS = {symbol.name: symbol for symbol in (_DICT, _TENSOR, _PARAMETER)}
_SYMBOLS |= {f"torch {name}": _Symbol(name) for name in _STORAGES}


def _check_kind(file: IO[bytes]) -> None:
    start = file.read(4)
    if start.startswith(b"\x80"):
        raise _Refusal(
            "a pickle, as PyTorch wrote before 1.6; load it with a recent PyTorch and save it again: "
            "torch.save(torch.load(path, weights_only=True), path)"
        )
    if start != b"PK\x03\x04":
        raise _Refusal("not a file that `torch.save` wrote")


class _Records:
    """The records of an archive, each storage read once."""

    def __init__(self, archive: zipfile.ZipFile, file_size: int) -> None:
        infos = archive.infolist()
        # PyTorch stores records as they are. Compressed or overlapping ones could unpack to any size.
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or (
            sum(info.file_size for info in infos) > file_size
        ):
            raise _Refusal("its records are compressed or overlap; `torch.save` writes none that do")
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Refusal("a zip archive, but not one that `torch.save` wrote: it needs one data.pkl")
        self._archive = archive
        self._sizes = {info.filename: info.file_size for info in infos}
        self._folder = pickles[0].removesuffix("data.pkl")
        self._storages: dict[tuple[str, str], np.ndarray] = {}
        order = self.read("byteorder") if f"{self._folder}byteorder" in self._sizes else b"little"
        if order not in (b"little", b"big"):
            raise _Refusal("its byte order is neither little nor big")
        self._swapped = order.decode() != sys.byteorder

    def read(self, name: str) -> bytes:
        """One record."""
        if self._folder + name not in self._sizes:
            raise _Refusal(f"its record {quote(name)} is missing; copy the file again")
        return self._archive.read(self._folder + name)

    def pickle(self) -> bytes:
        """The pickle, unless it is far longer than a checkpoint's."""
        if self._sizes[self._folder + "data.pkl"] > _MAX_PICKLE:
            raise _Refusal(f"its data.pkl has more than {_MAX_PICKLE:,} bytes; a checkpoint's is far smaller")
        return self.read("data.pkl")

    def storage(self, reference: Any) -> np.ndarray:
        """The numbers of one storage, [elements], from a pickle's reference to it."""
        match reference:
            case ("storage", _Symbol(name), str(key), str(), int(elements)) if name in _STORAGES:
                if (name, key) not in self._storages:
                    self._storages[name, key] = self._read_storage(name, key, elements)
                return self._storages[name, key]
        raise _Refusal("a tensor refers to something that is not a storage")

    def _read_storage(self, name: str, key: str, elements: int) -> np.ndarray:
        data, dtype = self.read(f"data/{key}"), _STORAGES[name]
        if len(data) != elements * dtype.itemsize:
            raise _Refusal(f"its record {quote(f'data/{key}')} has {len(data)} bytes, not {elements * dtype.itemsize}")
        numbers = np.frombuffer(data, dtype.newbyteorder("S") if self._swapped else dtype).astype(dtype, copy=False)
        if name == _BFLOAT16:
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        numbers.flags.writeable = False
        return numbers


def _load(records: _Records) -> Any:
    """Builds what the pickle describes."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    arg: Any
    for opcode, arg, _ in pickletools.genops(records.pickle()):
        name = opcode.name
        if name == "PROTO" and arg != _PROTOCOL:
            raise _Refusal(f"pickle protocol {arg}; load it with PyTorch and save it again with pickle_protocol=2")
        if name == "STOP":
            (result,) = stack
            return result
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif name in ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"):
            stack.append(arg)
        elif name == "GLOBAL":
            if arg not in _SYMBOLS:
                raise _Refusal(
                    f"it asks for {quote(arg.replace(' ', '.'))}, which no checkpoint needs; nothing was run"
                )
            stack.append(_SYMBOLS[arg])
        elif name == "BINPERSID":
            stack.append(records.storage(stack.pop()))
        elif name in _BUILDERS:
            _BUILDERS[name](stack)
        elif name != "PROTO":
            raise _Refusal(f"its pickle has the instruction {name}, which no checkpoint needs; nothing was run")
    raise _Refusal("its pickle has no end")


def _append(stack: list[Any], items: list[Any]) -> None:
    if type(stack[-1]) is not list:
        raise _Refusal("it appends to what is not a list")
    stack[-1].extend(items)


def _set_items(stack: list[Any], items: list[Any]) -> None:
    # Strings alone: the hash of nested tuples can take forever.
    if type(stack[-1]) is not dict or len(items) % 2 or any(type(key) is not str for key in items[::2]):
        raise _Refusal("one of its dicts has keys that are not strings")
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _call(stack: list[Any]) -> None:
    arguments, function = stack.pop(), stack.pop()
    match function, arguments:
        case _Symbol(), () if function == _DICT:
            stack.append({})
        case _Symbol(), (np.ndarray() as storage, offset, size, stride, *_) if function == _TENSOR:
            stack.append(_tensor(storage, offset, size, stride))
        case _Symbol(), (np.ndarray() as tensor, *_) if function == _PARAMETER:
            stack.append(tensor)
        case _:
            raise _Refusal("it calls something in a way that checkpoints don't")


def _set_state(stack: list[Any]) -> None:
    """A state dict's attributes are versions of modules, of no use here."""
    stack.pop()
    if type(stack[-1]) is not dict:
        raise _Refusal("it sets attributes of what is not a state dict")


def _tensor(storage: np.ndarray, offset: Any, size: Any, stride: Any) -> np.ndarray:
    if len(size) != len(stride) or len(size) > _MAX_AXES:
        raise _Refusal(f"a tensor has {len(size)} axes and {len(stride)} strides")
    if any(type(number) is not int or number < 0 for number in (offset, *size, *stride)):
        raise _Refusal("a tensor's offset, size or strides are not numbers that count")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if not 0 < count <= len(storage) or last >= len(storage):
        raise _Refusal(
            f"a tensor of size {size}, strides {stride} and offset {offset} doesn't fit its storage of {len(storage)}"
        )
    item = storage.itemsize
    return np.ndarray(size, storage.dtype, storage, offset * item, [step * item for step in stride])


def _after_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while type(top := stack.pop()) is not _Mark:
        items.append(top)
    return items[::-1]


def _last(stack: list[Any], count: int) -> tuple[Any, ...]:
    return tuple([stack.pop() for _ in range(count)][::-1])


_BUILDERS: dict[str, Callable[[list[Any]], None]] = {
    "MARK": lambda stack: stack.append(_Mark()),
    "NONE": lambda stack: stack.append(None),
    "NEWTRUE": lambda stack: stack.append(True),
    "NEWFALSE": lambda stack: stack.append(False),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "EMPTY_TUPLE": lambda stack: stack.append(()),
    "TUPLE": lambda stack: stack.append(tuple(_after_mark(stack))),
    "TUPLE1": lambda stack: stack.append(_last(stack, 1)),
    "TUPLE2": lambda stack: stack.append(_last(stack, 2)),
    "TUPLE3": lambda stack: stack.append(_last(stack, 3)),
    "APPEND": lambda stack: _append(stack, [stack.pop()]),
    "APPENDS": lambda stack: _append(stack, _after_mark(stack)),
    "SETITEM": lambda stack: _set_items(stack, list(_last(stack, 2))),
    "SETITEMS": lambda stack: _set_items(stack, _after_mark(stack)),
    "REDUCE": _call,
    "BUILD": _set_state,
}
