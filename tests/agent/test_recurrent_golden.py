"""Recurrent cores agree with public implementations: outputs, states and gradients.

One case for each reference file of a recurrent core, in each of the ways in which it can be computed.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.support.cores_golden import files, read_arrays
from trxl_jax.agent.cores.linear_recurrences import LRU, ComplexState, MinGRU
from trxl_jax.agent.cores.recurrent import GRU, LSTM, LSTMState, RecurrentCore, reset
from trxl_jax.agent.numerics import Numerics

FILES = files({"gru", "gru_cell", "lstm", "mingru", "mingru_g", "lru"})
OUTPUTS, GRADIENTS = 1e-5, 2e-5
GATED = {"weight_ih": "input/kernel", "bias_ih": "input/bias", "weight_hh": "recurrent/kernel",
         "bias_hh": "recurrent/bias"}  # fmt: skip
Arrays = dict[str, np.ndarray]


def make_core(meta: dict[str, Any], platform: str) -> RecurrentCore:
    shape = {"dim": meta["hidden"], "num_layers": meta["L"], "numerics": Numerics(platform)}
    match meta["variant"]:
        case "gru" | "gru_cell":
            return GRU(**shape)
        case "lstm":
            return LSTM(**shape)
        case "lru":
            return LRU(**shape | {"dim": meta["D"]}, state_dim=meta["hidden"])
        case "mingru":
            return MinGRU(**shape)
    return MinGRU(**shape, candidate="positive")


def our_parameters(arrays: Arrays, prefix: str) -> Arrays:
    """Arrays `prefix/NAME` of a file under the names of Flax, and with [in, out] matrices."""
    ours = {}
    for full, value in arrays.items():
        if full.startswith(prefix):
            name = full.removeprefix(prefix)
            stem, _, layer = name.partition("_l")
            if stem in GATED:
                ours[f"layers_{layer or 0}/{GATED[stem]}"] = value.T
            else:
                ours[f"layers_0/{name}"] = value.T if name[:2] in ("b_", "c_") else value
    return ours


def states_of(arrays: Arrays, prefix: str, plural: str = "") -> Any:
    """The state of each layer, [..., hidden], from arrays `prefix/state` and the like."""
    found = {
        name: arrays.get(f"{prefix}{name.replace('state', 'state' + plural)}") for name in ("state_re", "state_im")
    }
    if found["state_re"] is not None:
        return (ComplexState(found["state_re"], found["state_im"]),)
    hidden, cell = (arrays.get(f"{prefix}{name}{plural}") for name in ("state", "cell"))
    if arrays["in/state"].ndim == 2:  # without an axis of layers
        return (hidden,)
    layers = range(hidden.shape[-2])
    return tuple(hidden[..., i, :] if cell is None else LSTMState(hidden[..., i, :], cell[..., i, :]) for i in layers)


def step_by_step(core: RecurrentCore, params: Any, state: Any, x: jax.Array, first: jax.Array) -> Any:
    """Final state, outputs [N, T, D] and all states [N, T, ...] by `step`."""
    initial = core.initial_state(len(x))

    def step(state: Any, now: Any) -> Any:
        state, y = core.apply(params, reset(state, initial, now[1]), now[0], method="step_state")
        return state, (y, state)

    state, (y, states) = jax.lax.scan(step, state, (jnp.swapaxes(x, 0, 1), first.T))
    return state, jnp.swapaxes(y, 0, 1), jax.tree.map(lambda s: jnp.swapaxes(s, 0, 1), states)


def segment_ends(num_steps: int) -> list[int]:
    return [num_steps // 3, num_steps] if num_steps >= 3 else [num_steps]


def in_segments(core: RecurrentCore, params: Any, state: Any, x: jax.Array, first: jax.Array) -> Any:
    """The same by `unroll` over two segments; the states are those after each of them."""
    states, outputs, start = [], [], 0
    for end in segment_ends(x.shape[1]):
        part, start = slice(start, end), end
        state, y = core.apply(params, state, x[:, part], first[:, part], method="unroll")
        states.append(state)
        outputs.append(y)
    return state, jnp.concatenate(outputs, axis=1), jax.tree.map(lambda *s: jnp.stack(s, axis=1), *states)


WAYS = {"step": ("cpu", step_by_step), "unroll": ("cpu", in_segments), "unroll_on_accelerators": ("gpu", in_segments)}


def check(name: str, ours: Any, theirs: Any, bound: float) -> None:
    """Every array to within `bound` of its largest magnitude, or of 1e-3 where that vanishes."""
    leaves = jax.tree_util.tree_leaves_with_path(theirs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs), name
    for (path, expected), value in zip(leaves, jax.tree.leaves(ours), strict=True):
        assert value.shape == expected.shape, f"{name}{path}: {value.shape} instead of {expected.shape}"
        error = np.abs(np.asarray(value, np.float64) - expected).max() / max(np.abs(expected).max(), 1e-3)
        assert error <= bound, f"{name}{jax.tree_util.keystr(path)}: off by {error:.1e}"


def test_there_are_reference_files() -> None:
    assert FILES


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[] if way == "unroll" else [pytest.mark.slow]) for way in WAYS]
)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_outputs_states_and_gradients(path: Path, way: str) -> None:
    meta, arrays = read_arrays(path)
    platform, run = WAYS[way]
    core = make_core(meta, platform)
    x, first = jnp.asarray(arrays["in/x"]), jnp.asarray(arrays["in/episode_step"] == 0)
    shapes = jax.eval_shape(lambda: core.init(jax.random.key(0), core.initial_state(1), x[:1, 0], method="step_state"))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), flatten_dict(shapes["params"], sep="/"))
    given = our_parameters(arrays, "param/")
    assert given.keys() <= zeros.keys()  # a file may have no biases

    def loss(inputs: dict[str, Any]) -> Any:
        params = {"params": unflatten_dict(zeros | inputs["param"], sep="/")}
        final, y, states = run(core, params, inputs["state"], inputs["x"], first)
        return (y * arrays["in/cotangent"]).sum(), (final, y, states)

    inputs = {"param": given, "state": states_of(arrays, "in/"), "x": x}
    differentiated = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (final, y, states)), gradients = differentiated(jax.tree.map(jnp.asarray, inputs))

    expected = {"param": our_parameters(arrays, "grad/param/"), "state": states_of(arrays, "grad/in/"),
                "x": arrays["grad/in/x"]}  # fmt: skip
    steps = np.arange(meta["T"]) if way == "step" else np.array(segment_ends(meta["T"])) - 1
    check("output", y, arrays["out/output"], OUTPUTS)
    check("states", states, jax.tree.map(lambda s: s[:, steps], states_of(arrays, "out/", "s")), OUTPUTS)
    check("final", final, states_of(arrays, "out/final_"), OUTPUTS)
    check("gradient", gradients, expected, GRADIENTS)
