"""The agent of the design written out in NumPy for one sample at a time: loops over layers and heads, in float64."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.support.autodiff import Node, concatenate, exp, log, maximum, minimum
from trxl_jax.config import Config

Tree = dict[str, Any]


class Slot(NamedTuple):
    """hidden [L, D], each layer's input in the memory's dtype; position, the episode step at which it was written."""

    hidden: np.ndarray
    position: int


class Output(NamedTuple):
    """One sample's log-probabilities (a vector for each action branch), value, and layers' inputs [L, D]."""

    log_probs: list[Node]
    value: Node
    hidden: np.ndarray


class Agent:
    """The forward pass of one sample.

    Args:
        config: sizes.
        nvec: choices of each action branch.
        max_episode_steps: E.
    """

    def __init__(self, config: Config, nvec: tuple[int, ...], max_episode_steps: int) -> None:
        self.config, self.nvec, self.max_episode_steps = config, nvec, max_episode_steps
        self.mean, self.scale = 0.0, scale_of([])  # of observations in earlier updates

    def visible(self, history: list[Slot], index: int, episode_step: int) -> list[Slot]:
        """The min(k, W - 1) slots just before the one at `index`, in which step k of an episode is or will be."""
        count = min(episode_step, self.config.trxl_memory_length - 1)
        return history[index - count : index]

    def __call__(self, params: Tree, obs: np.ndarray, slots: list[Slot]) -> Output:
        """Looks at an observation and at the visible slots."""
        if self.config.normalize_observations:
            obs = np.clip((obs - self.mean) / self.scale, -10, 10)
        x = dense(params["encoder"]["dense"], Node(obs))
        hidden = []
        for layer in range(self.config.trxl_num_layers):
            weights = params["transformer"][f"layers_{layer}"]
            hidden.append(x.value)
            x = x + self._attend(weights, x, self._memories(params, slots, layer), sees_any=bool(slots))
            attended = layer_norm(x, **weights["norm_attention"])
            x = x + relu(dense(weights["projection"], attended))
        features = relu(dense(params["post_transformer"], x))
        branches = [dense(params[f"actor_{i}"], features) for i in range(len(self.nvec))]
        value = dense(params["critic"], features)[0]
        return Output([log_softmax(logits) for logits in branches], value, np.stack(hidden))

    def _memories(self, params: Tree, slots: list[Slot], layer: int) -> Node:
        """What a layer attends to, [slots, D]: W empty entries where nothing is visible."""
        if not slots:
            return self._positions(params, range(self.config.trxl_memory_length))
        hidden = np.stack([slot.hidden[layer].astype(np.float64) for slot in slots])
        return self._positions(params, [slot.position for slot in slots]) + hidden

    def _positions(self, params: Tree, positions: Sequence[int]) -> Node:
        """Encodings [positions, D]."""
        dim = self.config.trxl_dim
        if self.config.trxl_positional_encoding == "none":
            return Node(np.zeros((len(positions), dim)))
        if self.config.trxl_positional_encoding == "learned":
            rows = [min(position, self.max_episode_steps - 1) for position in positions]
            return params["transformer"]["positions"]["table"][rows]
        encoded = []
        for position in positions:
            angles = [(self.max_episode_steps - 1 - position) * 10000 ** (-j / dim) for j in range(0, dim, 2)]
            encoded.append(np.concatenate([np.sin(angles), np.cos(angles)]))
        return Node(np.stack(encoded))

    def _attend(self, weights: Tree, x: Node, memories: Node, *, sees_any: bool) -> Node:
        attention, dim, num_heads = weights["attention"], self.config.trxl_dim, self.config.trxl_num_heads
        query = layer_norm(x, **weights["norm_query"])
        kv = layer_norm(memories, attention["kv_scale"], attention["kv_bias"])
        contexts = []
        for head in range(num_heads):
            part = slice(head * dim // num_heads, (head + 1) * dim // num_heads)
            keys, values = kv[:, part] @ attention["keys"], kv[:, part] @ attention["values"]
            energies = keys @ (query[part] @ attention["queries"]) / np.sqrt(dim)
            if not sees_any:  # all are masked alike
                energies = Node(np.zeros(self.config.trxl_memory_length))
            contexts.append(exp(log_softmax(energies)) @ values)
        return dense(attention["out"], concatenate(contexts))


def scale_of(seen: list[Any]) -> np.ndarray:
    """By which numbers are divided that were seen so far."""
    return np.sqrt((np.var(seen, axis=0, dtype=np.float64) if seen else 1.0) + 1e-8)


def dense(weights: Tree, x: Node) -> Node:
    return x @ weights["kernel"] + weights["bias"]


def relu(x: Node) -> Node:
    return maximum(x, 0.0)


def layer_norm(x: Node, scale: Node, bias: Node) -> Node:
    """Over the last axis, with PyTorch's epsilon."""
    centred = x - x.mean(axis=-1)
    return centred / ((centred**2.0).mean(axis=-1) + 1e-5) ** 0.5 * scale + bias


def log_softmax(logits: Node) -> Node:
    """Of a vector."""
    shifted = logits - logits.value.max()
    return shifted - log(exp(shifted).sum())


def clip(x: Node, low: float, high: float) -> Node:
    return minimum(maximum(x, low), high)
