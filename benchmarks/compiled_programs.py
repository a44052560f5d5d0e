"""Reads XLA's text of a program that it compiled for an accelerator: its loops, and the kernels in them.

A kernel is an instruction of the optimised program that starts work on the device: a fusion, a copy, a call of cuBLAS
or cuDNN (one each, whatever the library makes of it).
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator

GAE_SCOPE = "gae"

_FREE = frozenset(("parameter", "tuple", "get-tuple-element", "constant", "bitcast", "after-all", "partition-id",
                   "replica-id", "opt-barrier", "copy-done", "async-done", "async-update"))  # fmt: skip
_COLLECTIVE = r"(all-gather|all-to-all|all-reduce|reduce-scatter|collective-permute)(-start)?"


@dataclasses.dataclass
class Block:
    """A computation of the optimised program: its own kernels, and those that it calls.

    Fields:
        kinds: number of own kernels by kind.
        gae: how many of them belong to GAE.
        rounds: how often it runs each time that its caller runs; None: the compiler doesn't know.
        inner: loops and branches.
        collectives: the lines of those kernels by which devices exchange numbers.
    """

    kinds: Counter[str]
    gae: int = 0
    rounds: int | None = 1
    inner: "list[Block]" = dataclasses.field(default_factory=list)
    collectives: list[str] = dataclasses.field(default_factory=list)

    @property
    def kernels(self) -> int:
        """Kernels of one run, inner rounds included."""
        return self.kinds.total() + sum((block.rounds or 1) * block.kernels for block in self.inner)

    @property
    def gae_kernels(self) -> int:
        """As `kernels`, of GAE only."""
        return self.gae + sum((block.rounds or 1) * block.gae_kernels for block in self.inner)

    @property
    def is_exact(self) -> bool:
        """Whether all numbers of rounds are known."""
        return all(block.rounds is not None and block.is_exact for block in self.inner)

    def walk(self, depth: int = 0) -> "Iterator[tuple[int, Block]]":
        """Itself and everything inside, with depths."""
        yield depth, self
        for block in self.inner:
            yield from block.walk(depth + 1)

    def largest(self, rounds: int) -> "Block | None":
        """The loop of so many rounds that has the most kernels."""
        found = [block for depth, block in self.walk() if depth and block.rounds == rounds]
        return max(found, key=lambda block: block.kernels, default=None)


def read_program(text: str) -> Block:
    """The kernels of an optimised program, from XLA's text of it."""
    computations: dict[str, list[str]] = {}
    name, entry = "", ""
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$", line)
        if head and not line.startswith("HloModule"):
            name = head[2]
            computations[name] = []
            entry = name if head[1] else entry
        elif name and line.startswith("  "):
            computations[name].append(line)
    return _read_block(computations, entry)


def _read_block(computations: dict[str, list[str]], name: str) -> Block:
    block = Block(Counter())
    for line in computations[name]:
        found = re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = (?:\(.*?\)|\S+) ([\w\-]+)\(", line)
        kind = found[1] if found else ""
        if not kind or kind in _FREE:
            continue
        if kind in ("while", "conditional", "call", "async-start"):
            block.inner += [_called(computations, line, called) for called in _callees(kind, line)]
            continue
        if re.fullmatch(_COLLECTIVE, kind):
            block.collectives.append(line)
        if kind == "custom-call":
            kind = _attribute("custom_call_target", line)
        elif kind == "fusion" and (library := re.search(r'"kind":"(__\w+)"', line)):
            kind = library[1].strip("_")
        block.kinds[kind] += 1
        block.gae += f"/{GAE_SCOPE}/" in line
    return block


def _called(computations: dict[str, list[str]], line: str, name: str) -> Block:
    block = _read_block(computations, name)
    if " while(" in line:
        trips = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
        block.rounds = int(trips[1]) if trips else None
        if block.rounds is None:  # then every round also computes the condition, and the host waits for it
            block.inner.append(_read_block(computations, _attribute("condition", line)))
            block.kinds["condition read by the host"] += 1
    return block


def _callees(kind: str, line: str) -> list[str]:
    if kind == "while":
        return [_attribute("body", line)]
    if kind == "call":
        return [_attribute("to_apply", line)]
    if kind == "async-start":
        return [_attribute("calls", line)]
    branches = re.search(r"branch_computations=\{([^}]*)\}", line)
    if branches:
        return [name.strip().lstrip("%") for name in branches[1].split(",")]
    return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line)


def _attribute(name: str, line: str) -> str:
    found = re.search(rf'\b{name}="?%?([^",\s)]+)', line)
    return found[1] if found else name
