"""Bytes that an optimised program moves, from XLA's text of it, by computation.

XLA's own cost analysis has one number for the whole program, in which a loop's body, what runs once, and every slice
at the size of what it is cut from are added up. Here each loop has its number: the bytes of every instruction's
operands and results, arrays padded to the tiles of their layout, and of slices and gathers what they touch.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4}
_ARRAY = re.compile(rf"({'|'.join(_SIZES)})\[([\d,]*)\](?:\{{([\d,]*)(?::T\(([\d,]+)\))?[^}}]*\}})?")
_SLICES = ("slice", "dynamic-slice", "gather", "slice-done")
_FREE = ("parameter", "tuple", "get-tuple-element", "constant", "bitcast", "after-all", "while", "conditional", "call",
         "opt-barrier", "copy-start", "slice-start", "async-start")  # fmt: skip


class Instruction(NamedTuple):
    """One line of a computation.

    Fields:
        shape: of its result, with layout.
        kind: such as fusion.
        operands: names of what it reads.
        callee: the computation that a fusion runs, or nothing.
        is_root: whether its result is the computation's.
    """

    shape: str
    kind: str
    operands: tuple[str, ...]
    callee: str
    is_root: bool


Computation = Mapping[str, Instruction]


def bytes_of_computations(text: str) -> dict[str, int]:
    """Bytes that one run of each computation moves, without the loops in it; those inside of fusions are left out."""
    computations = _read(text)
    inside = {line.callee for computation in computations.values() for line in computation.values() if line.callee}
    inside |= set(re.findall(r"to_apply=%?([\w.\-]+)", text))
    return {
        name: sum(_moved(line, computation, computations) for line in computation.values())
        for name, computation in computations.items()
        if name not in inside
    }


def bytes_of_array(shape: str) -> int:
    """Bytes of an array or a tuple of arrays, each padded to its layout's tiles."""
    total = 0
    for dtype, dims, order, tile in _ARRAY.findall(shape):
        sizes = [int(size) for size in dims.split(",") if size]
        minor_first = [int(axis) for axis in order.split(",") if axis]
        tiles = [int(size) for size in reversed(tile.split(",")) if size]
        for axis, size in zip(minor_first, tiles, strict=False):
            sizes[axis] = math.ceil(sizes[axis] / size) * size
        total += _SIZES[dtype] * math.prod(sizes)
    return total


def _moved(line: Instruction, computation: Computation, computations: Mapping[str, Computation]) -> int:
    if line.kind in _FREE:
        return 0
    if line.kind in _SLICES:
        return 2 * bytes_of_array(line.shape)
    if line.kind == "copy-done":  # its operand is a tuple of source, destination and context
        return 2 * bytes_of_array(line.shape)
    inner = computations.get(line.callee, {})
    result = _update_of(inner) if inner else _update(line, computation)
    read = [bytes_of_array(computation[name].shape) if name in computation else 0 for name in line.operands]
    for index, parameter in enumerate(_parameters(inner)):
        users = [user for user in inner.values() if parameter in user.operands]
        if users and all(user.kind in _SLICES and user.operands[0] == parameter for user in users):
            read[index] = min(read[index], sum(bytes_of_array(user.shape) for user in users))
        elif users and all(user.kind == "dynamic-update-slice" and user.operands[0] == parameter for user in users):
            read[index] = 0
    if line.kind == "dynamic-update-slice":
        read[0] = 0
    return (bytes_of_array(line.shape) if result is None else result) + sum(read)


def _update_of(inner: Computation) -> int | None:
    """Bytes that a fusion writes into an array that it updates in place; None: it writes a new one."""
    (root,) = (line for line in inner.values() if line.is_root)
    while root.kind == "bitcast":
        root = inner[root.operands[0]]
    return _update(root, inner)


def _update(line: Instruction, computation: Computation) -> int | None:
    if line.kind != "dynamic-update-slice":
        return None
    return bytes_of_array(computation[line.operands[1]].shape)


def _parameters(inner: Computation) -> list[str]:
    """Names of a fusion's parameters in their order."""
    numbered = [(int(line.operands[0]), name) for name, line in inner.items() if line.kind == "parameter"]
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
            callee = re.search(r"\bcalls=%?([\w.\-]+)", line)
            kind, given = found[4], found[5]
            operands = [given] if kind == "parameter" else re.findall(r"%([\w.\-]+)", given)
            current[found[2]] = Instruction(
                found[3], kind, tuple(operands), callee[1] if callee and kind == "fusion" else "", bool(found[1])
            )
    return computations
