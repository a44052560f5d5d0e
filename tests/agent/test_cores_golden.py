"""Attention, gates and gated transformers agree with public reference implementations, file by file.

Each file with layers is run in two ways: all T queries at once, as in learning, and one step after the other over a
ring of the newest slots, as in acting.
"""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.cores_golden import GRADIENTS, OUTPUTS, CoreFile, assert_close, files, read, tree
from trxl_jax.agent.cores.attention import MemoryAttention
from trxl_jax.agent.cores.attention_layer import AttentionLayer, AttentionOptions, LayerSlots, ResidualLayer, layer_norm
from trxl_jax.agent.cores.gates import Gate
from trxl_jax.agent.cores.gtrxl import GTrXLLayer
from trxl_jax.agent.cores.projected_attention import ProjectedAttention
from trxl_jax.agent.cores.segments import OwnEntries
from trxl_jax.agent.cores.visibility import Visibility, see
from trxl_jax.agent.initializers import dense
from trxl_jax.agent.numerics import Numerics

CPU = Numerics("cpu")
LAYERS = files(["project layer", "GTrXL layer", "Transformer-XL layer"])
EVERY_DAY = {"relative_project_2_self", "rotary_project_1", "gtrxl_paper_1", "gtrxl_project_shared_2"}
ATTENTION = {"queries", "keys", "values", "positions", "content_bias", "position_bias", "out"}
NAMES = {"mlp/norm": "norm_attention", "mlp/dense": "dense", "feed_forward/norm": "norm_attention",
         "feed_forward/dense": "dense"}  # fmt: skip


class TransformerXLLayer(AttentionLayer):
    """Transformer-XL's own layer, pre-LN: a reference that tests the attention only."""

    inner: int = 0

    def setup(self) -> None:
        self.norm = self.norm_query = self.norm_memory = layer_norm()
        self.attention = self.options.attention(bias=False, numerics=self.numerics)
        self.norm_attention = layer_norm()
        self.dense1 = dense(self.inner, self.options.dim, self.numerics)
        self.dense2 = dense(self.options.dim, self.inner, self.numerics)

    def __call__(self, x: jax.Array, slots: LayerSlots, seen: Visibility, episode_step: jax.Array) -> jax.Array:
        x = x + self.attend(x, slots, seen, episode_step)
        return x + self.dense2(nn.relu(self.dense1(self.norm_attention(x))))


def make_layer(meta: dict[str, Any]) -> AttentionLayer:
    shared = meta["attention"] == "shared"
    options = AttentionOptions(
        dim=meta["D"],
        num_heads=meta["H"],
        window=meta["W"],
        heads="shared" if shared else "full",
        positional_encoding="absolute" if shared else meta["attention"],
        empty_entries=meta.get("empty_rows") != "nothing",
    )
    positions = options.positions(meta.get("max_episode_steps", 1))
    if meta["variant"] == "project layer":
        return ResidualLayer(options, positions, CPU, gated=meta["gated"])
    made = GTrXLLayer if meta["variant"] == "GTrXL layer" else TransformerXLLayer
    return made(options, positions, CPU, inner=meta["inner"])


def our_name(layer: AttentionLayer, name: str) -> str:
    """The name of a layer's parameter in the tree of our layer."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    if layer.options.projects_queries and name.startswith("norm_memory/"):
        return name.replace("norm_memory/", "attention/kv_")
    return f"attention/{name}" if name.split("/")[0] in ATTENTION else name


def our_params(layer: AttentionLayer, params: dict[str, np.ndarray], num_layers: int) -> list[Any]:
    """Arrays `layer<l>/<name>` as the variables of each layer."""
    by_layer: list[dict[str, np.ndarray]] = [{} for _ in range(num_layers)]
    for name, array in params.items():
        index, rest = name.removeprefix("layer").split("/", 1)
        by_layer[int(index)][our_name(layer, rest)] = array
    return [{"params": tree(layer_params)} for layer_params in by_layer]


def parallel(file: CoreFile, params: list[Any], x: jax.Array) -> tuple[jax.Array, list[dict[str, Any]]]:
    """All T queries at once; the last layer's output, and of each layer what it computed on the way."""
    n, t, _ = x.shape
    window, step, memory = file.meta["W"], file.inputs["episode_step"], file.inputs["memory"]
    layer, own = make_layer(file.meta), None
    position = jnp.concatenate([step[:, :1] + np.arange(-window, 0), step], axis=1)
    query_slot = jnp.broadcast_to(window + jnp.arange(t), (n, t))
    seen = see(query_slot, step, jnp.arange(window + t), window, 1, see_self=False)
    if file.meta["include_self"]:  # one segment, of which each query sees itself
        own = jnp.broadcast_to(jnp.eye(t, dtype=bool), (n, t, t))
    seen = seen._replace(own=own)
    computed = []
    for index, variables in enumerate(params):
        hidden = jnp.concatenate([memory[:, :, index], jax.lax.stop_gradient(x)], axis=1)
        slots = layer.apply(variables, hidden, position, method="encode_slots")
        before = x
        x, state = layer.apply(variables, x, slots, seen, step, mutable="intermediates", capture_intermediates=captured)
        computed.append({"input": before, "output": x, **state["intermediates"]})
    return x, computed


def captured(module: nn.Module, method: str) -> bool:
    return method == "__call__" and isinstance(module, Gate | MemoryAttention | ProjectedAttention)


def stepwise(file: CoreFile, params: list[Any], x: jax.Array) -> jax.Array:
    """One query after the other; a step's slots are encoded once and overwrite the oldest of W."""
    n, t, _ = x.shape
    window, step, memory = file.meta["W"], jnp.asarray(file.inputs["episode_step"]), file.inputs["memory"]
    layer, see_self = make_layer(file.meta), file.meta["include_self"]
    position = step[:, :1] + np.arange(-window, 0)
    rings = [
        layer.apply(variables, memory[:, :, index], position, method="encode_slots")
        for index, variables in enumerate(params)
    ]

    def act(rings: list[Any], now: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[list[Any], jax.Array]:
        x, k, slot = now[0][:, None], now[1][:, None], now[2]
        stored = slot - 1 - (slot - 1 - jnp.arange(window)) % window
        seen = see(jnp.full((n, 1), slot), k, stored, window, 1, see_self)
        written = []
        for variables, ring in zip(params, rings, strict=True):
            new = layer.apply(variables, jax.lax.stop_gradient(x), k, method="encode_slots")
            x = layer.apply(variables, x, ring, seen, k)
            written.append(
                jax.tree.map(
                    lambda ring, new: jax.lax.dynamic_update_slice_in_dim(ring, new, slot % window, axis=2), ring, new
                )
            )
        return written, x[:, 0]

    _, outputs = jax.lax.scan(act, rings, (jnp.moveaxis(x, 1, 0), step.T, window + jnp.arange(t)))
    return jnp.moveaxis(outputs, 0, 1)


def run_both_ways(file: CoreFile) -> dict[str, Any]:
    """For each way outputs and gradients by the parameters and x; for the parallel one what was computed, too."""
    cotangent = file.inputs["cotangent"]

    def learn(params: list[Any], x: jax.Array) -> tuple[jax.Array, Any]:
        output, computed = parallel(file, params, x)
        return (output * cotangent).sum(), (output, computed)

    def act(params: list[Any], x: jax.Array) -> tuple[jax.Array, Any]:
        output = stepwise(file, params, x)
        return (output * cotangent).sum(), (output, None)

    @jax.jit
    def both(params: list[Any], x: jax.Array) -> dict[str, Any]:
        ways = {"parallel": learn, "stepwise": act}
        return {way: jax.value_and_grad(f, argnums=(0, 1), has_aux=True)(params, x) for way, f in ways.items()}

    return both(our_params(make_layer(file.meta), file.params, file.meta["L"]), jnp.asarray(file.inputs["x"]))


def compare_weights(file: CoreFile, index: int, attention: dict[str, Any]) -> None:
    """Our weights over W + T slots and the segment, as the file has them: by distance, W - 1 to 0."""
    window, theirs = file.meta["W"], file.out[f"layer{index}/attention_weights"]
    step = np.arange(theirs.shape[1])[:, None]

    def pick(name: str, columns: np.ndarray) -> np.ndarray:
        return np.take_along_axis(np.asarray(attention[name][0]), columns[None, None], axis=-1)

    ours = pick("weights", window + step - np.arange(window - 1, 0, -1))
    own = pick("own_weights", step) if file.meta["include_self"] else np.zeros((*ours.shape[:3], 1))
    rows = file.inputs["visible"].any(axis=-1)[..., None, None]  # the others mean nothing in the file
    ours = np.moveaxis(np.concatenate([ours, own], axis=-1), 1, 2)
    assert_close(f"layer{index}/attention_weights", ours, np.where(rows, theirs, 0), OUTPUTS)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem in EVERY_DAY else [pytest.mark.slow]) for path in LAYERS],
)
def test_layers(path: Path) -> None:
    file = read(path)
    layer = make_layer(file.meta)
    for way, ((_, (output, computed)), (d_params, d_x)) in run_both_ways(file).items():
        assert_close(f"{way}: output", output, file.out["output"], OUTPUTS)
        assert_close(f"{way}: x", d_x, file.grad["in/x"], GRADIENTS)
        theirs = {name.removeprefix("param/"): g for name, g in file.grad.items() if name.startswith("param/")}
        expected = our_params(layer, theirs, file.meta["L"])
        assert jax.tree.structure(d_params) == jax.tree.structure(expected)
        for (place, ours), reference in zip(
            jax.tree_util.tree_leaves_with_path(d_params), jax.tree.leaves(expected), strict=True
        ):
            assert_close(f"{way}: gradient of {jax.tree_util.keystr(place)}", ours, reference, GRADIENTS)
        for index, parts in enumerate(computed or []):
            read_out = parts["attention"]["__call__"][0]
            after = parts["gate1"]["__call__"][0] if "gate1" in parts else parts["input"] + read_out
            for name, ours in {"attention": read_out, "after_attention": after, "output": parts["output"]}.items():
                assert_close(f"layer{index}/{name}", ours, file.out[f"layer{index}/{name}"], OUTPUTS)
            compare_weights(file, index, parts["attention"])


@pytest.mark.parametrize("path", files(["attention alone"]), ids=lambda path: path.stem)
def test_attention_alone(path: Path) -> None:
    """Slots in no order and with gaps; entries aren't normalised, and slots have a gradient."""
    file = read(path)
    meta, distance = file.meta, file.inputs["distance"]
    n = distance.shape[0]
    window = int(distance.max()) + 1
    attention = ProjectedAttention(meta["D"], meta["H"], "full", meta["attention"], window, False, CPU)
    step = file.inputs.get("query_position", np.zeros(n, np.int32))[:, None]
    own = jnp.ones((n, 1, 1), bool) if meta["include_self"] else None
    seen = Visibility(file.inputs["visible"][:, None], jnp.asarray(step), jnp.asarray(step - distance), own)

    @jax.jit
    def run(params: Any, query: jax.Array, slots: jax.Array) -> Any:
        def loss(params: Any, query: jax.Array, slots: jax.Array) -> tuple[jax.Array, Any]:
            encode = lambda entries, position: attention.apply(params, entries, position, method="encode")  # noqa: E731
            query = query[:, None]
            entries = None if own is None else OwnEntries(*encode(query, step), own)
            output, state = attention.apply(
                params, query, step, encode(slots, seen.slot_position), seen, entries, None, mutable="intermediates"
            )
            return (output[:, 0] * file.inputs["cotangent"]).sum(), (output[:, 0], state["intermediates"])

        return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, query, slots)

    (_, (output, sown)), gradients = run({"params": tree(file.params)}, file.inputs["query"], file.inputs["slots"])
    assert_close("output", output, file.out["output"], OUTPUTS)
    parts = [sown[name][0][:, :, 0] for name in ("weights", "own_weights") if name in sown]
    assert_close("attention_weights", np.concatenate(parts, -1), file.out["attention_weights"], OUTPUTS)
    compare_gradients(file, gradients[0]["params"], {"query": gradients[1], "slots": gradients[2]})


@pytest.mark.parametrize("path", files(["gate"]), ids=lambda path: path.stem)
def test_gates(path: Path) -> None:
    file = read(path)

    @jax.jit
    def run(params: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
            output = Gate(CPU).apply(params, x, y)
            return (output * file.inputs["cotangent"]).sum(), output

        return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, x, y)

    (_, output), gradients = run({"params": tree(file.params)["gate"]}, file.inputs["x"], file.inputs["y"])
    assert_close("output", output, file.out["output"], OUTPUTS)
    compare_gradients(file, {"gate": gradients[0]["params"]}, {"x": gradients[1], "y": gradients[2]})


def compare_gradients(file: CoreFile, params: Any, inputs: dict[str, jax.Array]) -> None:
    expected = tree(file.grad)
    assert jax.tree.structure(expected["param"]) == jax.tree.structure(params)
    for (place, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path({"in": inputs, "param": params}), jax.tree.leaves(expected), strict=True
    ):
        assert_close(f"gradient of {jax.tree_util.keystr(place)}", ours, theirs, GRADIENTS)
