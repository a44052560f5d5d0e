"""Attention as its equations say, one query, head and key at a time, in float64: what a layer of the agent must equal.

Rotary positions turn the query by the distance, and relative ones compute the sines of each distance.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.support.autodiff import Node, concatenate, exp
from trxl_jax.agent.cores.attention_layer import AttentionOptions


class Seen(NamedTuple):
    """Something that a query attends to: a hidden state, its step in the episode, and how many steps back it is."""

    hidden: Any
    step: int
    distance: int


class NaiveAttention:
    """Of one layer.

    Args:
        options: how the layer attends.
        max_episode_steps: E.
        params: the parameters of its norms and attention, as nodes.
    """

    def __init__(self, options: AttentionOptions, max_episode_steps: int, params: dict[str, Any]) -> None:
        self.options, self.params, self.max_episode_steps = options, params, max_episode_steps
        self.head_dim = options.dim // options.num_heads
        self.attention = attention = params["attention"]
        if "kv_scale" in attention:
            self.memory_norm = {"scale": attention["kv_scale"], "bias": attention["kv_bias"]}
        else:
            self.memory_norm = params["norm_memory"]

    def read(self, x: Node, step: int, seen: list[Seen]) -> Node:
        """What a query of a step reads."""
        encoded = x + self.encoding(step) if self.options.query_position else x
        query = layer_norm(encoded, self.params["norm_query"])
        entries = [layer_norm(self.encoding(s.step) + s.hidden, self.memory_norm) for s in seen]
        energy: Callable[[int, Node, Seen], Any] = lambda head, entry, s: self.energy(head, query, entry, s.distance)  # noqa: E731
        if not seen:  # the mean of the window's empty entries
            entries = [layer_norm(self.encoding(p) + np.zeros(self.options.dim), self.memory_norm)
                       for p in range(self.options.window)]  # fmt: skip
            seen, energy = [Seen(None, p, 0) for p in range(self.options.window)], lambda *_: Node(0.0)
        context = []
        for head in range(self.options.num_heads):
            weights = [exp(energy(head, entry, s)) for entry, s in zip(entries, seen, strict=True)]
            total = sum(weights[1:], weights[0])
            read = [w / total * self.project("values", head, e) for w, e in zip(weights, entries, strict=True)]
            context.append(sum(read[1:], read[0]))
        return concatenate(context) @ self.attention["out"]["kernel"] + self.attention["out"]["bias"]

    def energy(self, head: int, query: Node, entry: Node, distance: int) -> Node:
        q, k = self.project("queries", head, query), self.project("keys", head, entry)
        scale = (self.options.dim if self.options.heads == "shared" else self.head_dim) ** -0.5
        if self.options.positional_encoding == "rotary":
            return (turned(q, distance) * k).sum() * scale
        if self.options.positional_encoding != "relative":
            return (q * k).sum() * scale
        angle = distance * 10000.0 ** (-np.arange(0, self.options.dim, 2) / self.options.dim)
        r = Node(np.concatenate([np.sin(angle), np.cos(angle)])) @ self.attention["positions"][:, head]
        content, position = (self.attention[name][head] for name in ("content_bias", "position_bias"))
        return (((q + content) * k).sum() + ((q + position) * r).sum()) * scale

    def project(self, name: str, head: int, x: Node) -> Node:
        if self.options.heads == "shared":
            return x[head * self.head_dim : (head + 1) * self.head_dim] @ self.attention[name]
        return x @ self.attention[name][:, head]

    def encoding(self, step: int) -> Any:
        kind, dim = self.options.positional_encoding, self.options.dim
        if kind == "learned":
            return self.params["positions"]["table"][min(step, self.max_episode_steps - 1)]
        if kind != "absolute":
            return Node(np.zeros(dim))
        angle = (self.max_episode_steps - 1 - step) * 10000.0 ** (-np.arange(0, dim, 2) / dim)
        return Node(np.concatenate([np.sin(angle), np.cos(angle)]))


def layer_norm(x: Node, norm: dict[str, Node]) -> Node:
    centred = x - x.mean()
    return centred * ((centred * centred).mean() + 1e-5) ** -0.5 * norm["scale"] + norm["bias"]


def turned(x: Node, distance: int) -> Node:
    half = x.value.size // 2
    angle = distance * 10000.0 ** (-np.arange(half) / half)
    first, second = x[:half], x[half:]
    cos, sin = np.cos(angle), np.sin(angle)
    return concatenate([first * cos - second * sin, second * cos + first * sin])
