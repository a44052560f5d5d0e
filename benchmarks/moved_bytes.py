"""Bytes that an optimised program moves, from XLA's text of it, by computation.

XLA's own cost analysis has one number for the whole program, in which a loop's body, what runs once, and every slice
at the size of what it is cut from are added up. Here each loop has its number: the bytes of every instruction's
operands and results, arrays padded to the tiles of their layout, and of slices and gathers what they touch. Bytes in
a TPU's fast memory, whose arrays have S(1) in their layout, are counted apart: they don't load the main memory.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4,
          "token": 0}  # fmt: skip
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)(?::T\(([\d,]+)\))?([^}]*)\})?")
_SLICES = ("slice", "dynamic-slice", "gather")
_FREE = ("parameter", "tuple", "get-tuple-element", "constant", "bitcast", "after-all", "while", "conditional", "call",
         "opt-barrier", "copy-start", "slice-start", "dynamic-slice-start", "async-start")  # fmt: skip
_FREE_CALLS = ("ConcatBitcast", "AllocateBuffer")
"""The first gives slices that lie side by side one name; the second makes room for what is written later."""


class Instruction(NamedTuple):
    """One line of a computation.

    Fields:
        name: of its result.
        shape: of its result, with layout.
        kind: such as fusion.
        operands: names of what it reads.
        callee: the computation that a fusion runs, or nothing.
        target: what a custom call calls, or nothing.
        is_root: whether its result is the computation's.
    """

    name: str
    shape: str
    kind: str
    operands: tuple[str, ...]
    callee: str
    target: str
    is_root: bool


Computation = Mapping[str, Instruction]


class Bytes(NamedTuple):
    """Bytes that are read or written.

    Fields:
        main: in the main memory.
        fast: in the fast memory.
    """

    main: int
    fast: int

    def __add__(self, other: "Bytes") -> "Bytes":  # type: ignore[override]
        return Bytes(self.main + other.main, self.fast + other.fast)


NONE = Bytes(0, 0)


def bytes_of_computations(text: str) -> dict[str, Bytes]:
    """Bytes that one run of each computation moves, without the loops and calls in it; fusions' own are left out."""
    computations = _read(text)
    inside = {line.callee for computation in computations.values() for line in computation.values() if line.callee}
    applied = [line for line in text.splitlines() if " call(" not in line]
    inside |= set(re.findall(r"to_apply=%?([\w.\-]+)", "\n".join(applied)))
    return {
        name: sum((_moved(line, computation, computations) for line in computation.values()), NONE)
        for name, computation in computations.items()
        if name not in inside
    }


def bytes_of_array(shape: str) -> Bytes:
    """Bytes of an array or a tuple of arrays, each padded to its layout's tiles."""
    total = NONE
    for dtype, dims, order, tile, rest in _ARRAY.findall(shape):
        sizes = [int(size) for size in dims.split(",") if size]
        minor_first = [int(axis) for axis in order.split(",") if axis]
        tiles = [int(size) for size in reversed(tile.split(",")) if size]
        for axis, size in zip(minor_first, tiles, strict=False):
            sizes[axis] = math.ceil(sizes[axis] / size) * size
        size = _SIZES[dtype] * math.prod(sizes)
        total += Bytes(0, size) if "S(1)" in rest else Bytes(size, 0)
    return total


def _moved(line: Instruction, computation: Computation, computations: Mapping[str, Computation]) -> Bytes:
    if line.kind in _FREE or line.target in _FREE_CALLS:
        return NONE
    if line.kind.endswith("-done"):  # its operand is a tuple of source, destination and context; it moves so much
        result = bytes_of_array(line.shape)
        source = bytes_of_array(computation[line.operands[0]].shape.split("}")[0] + "}")
        amount = sum(result)
        return result + (Bytes(amount, 0) if source.main else Bytes(0, amount))
    inner = computations.get(line.callee, {line.name: line, **computation})
    parameters = _parameters(inner) if line.callee else list(line.operands)
    moved = _written(line, inner)
    for operand, parameter in zip(line.operands, parameters, strict=True):
        whole = bytes_of_array(computation[operand].shape) if operand in computation else NONE
        moved += _read_of(whole, parameter, _users(parameter, inner) if line.callee else [line], inner)
    return moved


def _read_of(whole: Bytes, name: str, users: Sequence[Instruction], inner: Computation) -> Bytes:
    """What of an operand is read: all, or by slices what they touch, or nothing of an array that is only updated."""
    if not users or not all(_origin(user.operands[0], inner) == name for user in users):
        return whole
    if all(user.kind in _SLICES for user in users):
        touched = min(sum(whole), sum(sum(bytes_of_array(user.shape)) for user in users))
        return Bytes(touched, 0) if whole.main else Bytes(0, touched)
    return NONE if all(user.kind == "dynamic-update-slice" for user in users) else whole


def _written(line: Instruction, inner: Computation) -> Bytes:
    """What an instruction writes: of an array that is updated in place, the update."""
    root = next(one for one in inner.values() if one.is_root) if line.callee else line
    results = [inner[name] for name in root.operands] if line.callee and root.kind == "tuple" else [root]
    written = NONE
    for result, array in zip(results, _ARRAY.finditer(line.shape), strict=False):
        whole, source = bytes_of_array(array[0]), inner.get(_origin(result.name, inner), result)
        if source.kind == "dynamic-update-slice":
            update = sum(bytes_of_array(inner[source.operands[1]].shape))
            whole = Bytes(update, 0) if whole.main else Bytes(0, update)
        written += whole
    return written if len(results) > 1 or not line.shape.startswith("(") else bytes_of_array(line.shape)


def _users(name: str, inner: Computation) -> list[Instruction]:
    """The instructions that read a value, through bitcasts."""
    direct = [user for user in inner.values() if name in user.operands and user.kind != "parameter"]
    through = [_users(user.name, inner) for user in direct if user.kind == "bitcast"]
    return [user for user in direct if user.kind != "bitcast"] + [user for users in through for user in users]


def _origin(name: str, inner: Computation) -> str:
    """What a value is a bitcast of."""
    while name in inner and inner[name].kind == "bitcast":
        name = inner[name].operands[0]
    return name


def _parameters(inner: Computation) -> list[str]:
    """Names of a fusion's parameters in their order."""
    numbered = [(int(line.operands[0]), line.name) for line in inner.values() if line.kind == "parameter"]
    return [name for _, name in sorted(numbered)]


def _read(text: str) -> dict[str, dict[str, Instruction]]:
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] = {}
    for line in text.splitlines():
        head = re.match(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        found = re.match(r"^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(?:, |$)", line)
        if head:
            current = computations.setdefault(head[1], {})
        elif found:
            kind, given = found[4], found[5]
            callee = re.search(r"\bcalls=%?([\w.\-]+)", line) if kind == "fusion" else None
            target = re.search(r'custom_call_target="([^"]+)"', line)
            operands = [given] if kind == "parameter" else re.findall(r"%([\w.\-]+)", given)
            current[found[2]] = Instruction(
                name=found[2],
                shape=found[3],
                kind=kind,
                operands=tuple(operands),
                callee=callee[1] if callee else "",
                target=target[1] if target else "",
                is_root=bool(found[1]),
            )
    return computations
