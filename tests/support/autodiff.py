"""Reverse-mode differentiation of NumPy code in float64, small enough to be checked by reading."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Gradient = Callable[[np.ndarray], np.ndarray]


class Node:
    """A float64 array that remembers what it was computed from.

    Args:
        value: the array.
        parents: pairs of an operand and a function from the gradient of this node to the operand's.
    """

    __array_ufunc__ = None  # `array + node` calls `Node.__radd__`
    count = 0

    def __init__(self, value: Any, *parents: "tuple[Node, Gradient]") -> None:
        self.value = np.asarray(value, np.float64)
        self.parents = parents
        Node.count += 1
        self.index = Node.count

    def __add__(self, other: Any) -> "Node":
        other = _node(other)
        return Node(self.value + other.value, (self, lambda g: g), (other, lambda g: g))

    def __mul__(self, other: Any) -> "Node":
        other = _node(other)
        return Node(self.value * other.value, (self, lambda g: g * other.value), (other, lambda g: g * self.value))

    def __pow__(self, exponent: float) -> "Node":
        return Node(self.value**exponent, (self, lambda g: g * exponent * self.value ** (exponent - 1)))

    def __matmul__(self, other: Any) -> "Node":
        """Of a vector or matrix and a matrix, or of a matrix and a vector."""
        other = _node(other)
        a, b = self.value, other.value
        return Node(
            a @ b,
            (self, lambda g: np.outer(g, b) if b.ndim == 1 else g @ b.T),
            (other, lambda g: np.outer(a, g) if a.ndim == 1 else a.T @ g),
        )

    def __getitem__(self, index: Any) -> "Node":
        def scatter(gradient: np.ndarray) -> np.ndarray:
            full = np.zeros_like(self.value)
            np.add.at(full, index, gradient)
            return full

        return Node(self.value[index], (self, scatter))

    def __neg__(self) -> "Node":
        return self * -1.0

    def __sub__(self, other: Any) -> "Node":
        return self + -_node(other)

    def __rsub__(self, other: Any) -> "Node":
        return _node(other) - self

    def __truediv__(self, other: Any) -> "Node":
        return self * _node(other) ** -1.0

    __radd__, __rmul__ = __add__, __mul__

    def sum(self, axis: int | None = None) -> "Node":
        """Over everything, or over an axis that stays with size 1."""
        shape = self.value.shape
        total = self.value.sum(axis=axis, keepdims=axis is not None)
        return Node(total, (self, lambda g: np.broadcast_to(g, shape)))

    def mean(self, axis: int | None = None) -> "Node":
        """Over everything, or over an axis that stays with size 1."""
        return self.sum(axis) / (self.value.size if axis is None else self.value.shape[axis])


def exp(x: Node) -> Node:
    y = np.exp(x.value)
    return Node(y, (x, lambda g: g * y))


def log(x: Node) -> Node:
    return Node(np.log(x.value), (x, lambda g: g / x.value))


def maximum(a: Any, b: Any) -> Node:
    """The larger of two, element by element; the gradient goes to `a` where they are equal."""
    a, b = _node(a), _node(b)
    first = a.value >= b.value
    return Node(np.where(first, a.value, b.value), (a, lambda g: g * first), (b, lambda g: g * ~first))


def minimum(a: Any, b: Any) -> Node:
    return -maximum(-_node(a), -_node(b))


def concatenate(nodes: Iterable[Node]) -> Node:
    """Vectors to one vector."""
    nodes = list(nodes)
    ends = np.cumsum([node.value.size for node in nodes])
    parents = [(node, lambda g, end=end, size=node.value.size: g[end - size : end]) for node, end in zip(nodes, ends)]
    return Node(np.concatenate([node.value for node in nodes]), *parents)


def gradients(result: Node, inputs: list[Node]) -> list[np.ndarray]:
    """Of a number by each of the inputs; zero where it doesn't depend on one."""
    reached = {result.index: result}
    pending = [result]
    while pending:
        for parent, _ in pending.pop().parents:
            if parent.index not in reached:
                reached[parent.index] = parent
                pending.append(parent)
    total = {result.index: np.ones_like(result.value)}
    for index in sorted(reached, reverse=True):  # operands are older than results
        for parent, gradient in reached[index].parents:
            part = _reduce(gradient(total[index]), parent.value.shape)
            total[parent.index] = total.get(parent.index, 0.0) + part
    return [total.get(node.index, np.zeros_like(node.value)) for node in inputs]


def _node(x: Any) -> Node:
    return x if isinstance(x, Node) else Node(x)


def _reduce(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sums over the axes along which an operand of that shape was broadcast."""
    if gradient.shape == shape:
        return gradient
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    repeated = tuple(i for i, size in enumerate(shape) if size == 1 and gradient.shape[i] > 1)
    return gradient.sum(axis=repeated, keepdims=True)
