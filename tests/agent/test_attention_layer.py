"""Attention layers: segments with gradient against a naive loop, precision, initial distributions, shared positions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.autodiff import Node, gradients
from tests.support.cores_golden import GRADIENTS, OUTPUTS, assert_close
from tests.support.naive_attention import NaiveAttention, Seen
from trxl_jax.agent.cores.attention_layer import AttentionLayer, AttentionOptions, ResidualLayer
from trxl_jax.agent.cores.distances import angles
from trxl_jax.agent.cores.gtrxl import GTrXLLayer
from trxl_jax.agent.cores.visibility import Visibility, see
from trxl_jax.agent.numerics import Numerics
from trxl_jax.errors import ConfigError

N, T, G, DIM, HEADS, E = 2, 8, 4, 8, 2, 20
# Episodes that end inside a segment, at its border, twice in a row, and not at all for long (E is 20).
STEPS = np.array([[3, 4, 0, 1, 0, 0, 1, 2], [14, 15, 16, 17, 18, 19, 20, 21]])

CASES = [
    AttentionOptions(DIM, HEADS, 3),
    AttentionOptions(DIM, HEADS, 3, query_position=True),
    AttentionOptions(DIM, HEADS, 7, positional_encoding="learned", query_position=True),
    AttentionOptions(DIM, HEADS, 7, positional_encoding="none"),
    AttentionOptions(DIM, HEADS, 3, "shared", "relative"),
    AttentionOptions(DIM, HEADS, 7, "shared", "rotary"),
    AttentionOptions(DIM, HEADS, 3, "full", "learned", query_position=True),
    AttentionOptions(DIM, HEADS, 7, "full", "absolute"),
    AttentionOptions(DIM, HEADS, 3, "full", "relative"),
    AttentionOptions(DIM, HEADS, 7, "full", "relative"),
    AttentionOptions(DIM, HEADS, 3, "full", "rotary"),
    AttentionOptions(DIM, HEADS, 7, "full", "rotary"),
]
EVERY_DAY = {0, 4, 9}


class Case:
    """A layer with parameters away from their initial values, segments of two environments, and a cotangent.

    Args:
        options: of the layer.
        see_self: whether queries see themselves.
        steps: [2, T], the steps of the queries in their episodes.
        segment_length: G.
    """

    def __init__(
        self, options: AttentionOptions, see_self: bool, steps: np.ndarray = STEPS, segment_length: int = G
    ) -> None:
        self.options, self.see_self, self.steps, self.segment_length = options, see_self, steps, segment_length
        self.num_steps = steps.shape[1]
        rng = np.random.default_rng(0)
        self.x, self.cotangent = rng.normal(size=(2, N, self.num_steps, options.dim)).astype(np.float32)
        self.hidden = np.concatenate([rng.normal(size=(N, options.window, options.dim)), self.x], axis=1).astype(
            np.float32
        )
        self.position = np.concatenate([steps[:, :1] + np.arange(-options.window, 0), steps], axis=1)
        self.layer = ResidualLayer(options, options.positions(E), Numerics("cpu"))
        fresh = nn.init(self.attend, self.layer)(jax.random.key(0), self.x)["params"]
        self.params = jax.tree.map(lambda p: np.float32(p + rng.normal(scale=0.3, size=p.shape)), fresh)

    def attend(self, layer: AttentionLayer, x: jax.Array) -> jax.Array:
        slots = jnp.arange(self.options.window + self.num_steps)
        query_slot = self.options.window + jnp.tile(jnp.arange(self.num_steps), (N, 1))
        steps = jnp.asarray(self.steps)
        seen = see(query_slot, steps, slots, self.options.window, self.segment_length, self.see_self)
        encoded = layer.encode_slots(jnp.asarray(self.hidden), jnp.asarray(self.position))
        return layer.attend(x, encoded, seen, steps)

    def ours(self) -> tuple[jax.Array, Any]:
        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            output = nn.apply(self.attend, self.layer)({"params": params}, x)
            return (output * self.cotangent).sum(), output

        differentiate = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        (_, output), gradient = jax.jit(differentiate)(self.params, self.x)
        return output, gradient

    def naive(self) -> tuple[np.ndarray, Any]:
        params, x = jax.tree.map(Node, (self.params, self.x))
        attention = NaiveAttention(self.options, E, params)
        steps = range(self.num_steps)
        rows = [[attention.read(x[n, t], self.steps[n, t], self.seen(x, n, t)) for t in steps] for n in range(N)]
        products = [rows[n][t] * self.cotangent[n, t] for n in range(N) for t in steps]
        loss = sum(products[1:], products[0]).sum()
        leaves, structure = jax.tree.flatten((params, x))
        output = np.array([[node.value for node in row] for row in rows])
        return output, jax.tree.unflatten(structure, gradients(loss, leaves))

    def seen(self, x: Node, n: int, t: int) -> list[Seen]:
        """The steps from the query's (or the one before) back to its episode's first, at most W - 1 before it."""
        k, window = self.steps[n, t], self.options.window
        found = []
        for distance in range(0 if self.see_self else 1, min(k, window - 1) + 1):
            step = t - distance
            own = step >= t // self.segment_length * self.segment_length
            found.append(Seen(x[n, step] if own else self.hidden[n, window + step], k - distance, distance))
        return found


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            options,
            id=f"{options.heads}-{options.positional_encoding}-{options.window}",
            marks=[] if i in EVERY_DAY else [pytest.mark.slow],
        )
        for i, options in enumerate(CASES)
    ],
)
def test_segments_equal_a_naive_loop(options: AttentionOptions) -> None:
    assert_equals_the_naive_loop(Case(options, see_self=options.window > G))


def assert_equals_the_naive_loop(case: Case) -> None:
    (output, ours), (expected, theirs) = case.ours(), case.naive()
    assert_close("output", output, expected, OUTPUTS)
    for (place, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        assert_close(f"gradient of {jax.tree_util.keystr(place)}", a, b, GRADIENTS)


@st.composite
def cases(draw: Any) -> tuple[Any, ...]:
    """Arguments of `Case`, with windows shorter and longer than the rollout, and ends of episodes anywhere."""
    encoding = draw(st.sampled_from(["absolute", "learned", "none", "relative", "rotary"]))
    options = AttentionOptions(
        8,
        draw(st.sampled_from([1, 2, 4])),
        draw(st.integers(2, 9)),
        draw(st.sampled_from(["shared", "full"])),
        encoding,
        query_position=encoding in ("absolute", "learned") and draw(st.booleans()),
    )
    segment_length = draw(st.integers(1, 4))
    num_steps = segment_length * draw(st.integers(1, 3))
    steps = np.zeros((N, num_steps), int)
    for n in range(N):
        steps[n, 0] = draw(st.integers(0, 12))
        for t in range(1, num_steps):
            steps[n, t] = 0 if draw(st.integers(0, 2)) == 0 else steps[n, t - 1] + 1
    return options, draw(st.booleans()), steps, segment_length


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(arguments=cases())
def test_random_segments_equal_a_naive_loop(arguments: tuple[Any, ...]) -> None:
    assert_equals_the_naive_loop(Case(*arguments))


def test_a_segment_of_one_step_is_what_queries_see_without_segments() -> None:
    query_slot, step = jnp.array([[5, 6]]), jnp.array([[3, 0]])
    plain = see(query_slot, step, jnp.arange(8), 4, 1, see_self=False)
    assert plain.own is None
    with_self = see(query_slot, step, jnp.arange(8), 4, 1, see_self=True)
    np.testing.assert_array_equal(plain.slots, with_self.slots)
    np.testing.assert_array_equal(with_self.own, np.ones((1, 2, 1), bool))


def test_angles_are_exact_at_large_positions() -> None:
    """Of absolute ones the frequencies' rounding remains; of differences nothing but float32's."""
    dim, far = 12, np.array([0, 1, 7, 250, 2047, 10_000_019])
    exact = 10000.0 ** (-np.arange(0, dim, 2) / dim)
    late = jnp.asarray(far[-1] - 5 * far[:5])
    turned = np.exp(1j * np.asarray(angles(jnp.asarray(far), dim), np.float64))
    np.testing.assert_allclose(turned[:5], np.exp(1j * far[:5, None] * exact), atol=3e-6)
    difference = turned[-1] * np.exp(-1j * np.asarray(angles(late, dim), np.float64))
    np.testing.assert_allclose(difference, np.exp(5j * far[:5, None] * exact), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [CASES[0], CASES[9], CASES[10]], ids=lambda o: o.positional_encoding)
def test_bfloat16_is_close_to_float32(options: AttentionOptions) -> None:
    case = Case(options, see_self=True)
    layer = case.layer.clone(numerics=Numerics("gpu", np.dtype(jnp.bfloat16)))
    run = jax.jit(lambda layer: nn.apply(case.attend, layer)({"params": case.params}, case.x), static_argnums=0)
    assert run(layer).dtype == jnp.float32
    slots = layer.apply({"params": case.params}, case.hidden, case.position, method="encode_slots")
    assert {leaf.dtype for leaf in jax.tree.leaves(slots)} == {jnp.dtype(jnp.bfloat16)}
    assert_close("output", run(layer), np.asarray(run(case.layer)), 4 * 2**-8)


@pytest.mark.parametrize(
    ("encoding", "dim", "message"),
    [("rotary", 12, "--trxl_dim 12.*--trxl_num_heads 4"), ("relative", 5, "--trxl_dim 5")],
)
def test_sizes_that_positions_cannot_have(encoding: str, dim: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AttentionOptions(dim, 4 if dim % 4 == 0 else 1, 3, positional_encoding=encoding)


class Stack(nn.Module):
    """Two layers with one table of positions."""

    options: AttentionOptions

    def setup(self) -> None:
        positions, numerics = self.options.positions(E), Numerics("cpu")
        self.positions = positions
        self.first = ResidualLayer(self.options, positions, numerics, gated=True)
        self.second = GTrXLLayer(self.options, positions, numerics, inner=48)

    def __call__(self, x: jax.Array, seen: Visibility, step: jax.Array) -> jax.Array:
        for layer in (self.first, self.second):
            x = layer(x, layer.encode_slots(x, step), seen, step)
        return x


def test_initial_distributions_and_shared_positions() -> None:
    dim, heads = 64, 4
    options = AttentionOptions(dim, heads, 3, "full", "learned")
    seen = Visibility(jnp.ones((1, 1, 1), bool), jnp.ones((1, 1), jnp.int32), jnp.zeros(1, jnp.int32))
    init = jax.jit(Stack(options).init)
    params = init(jax.random.key(0), jnp.ones((1, 1, dim)), seen, jnp.ones((1, 1), jnp.int32))["params"]
    assert set(params) == {"positions", "first", "second"}
    assert params["positions"]["table"].shape == (E, dim)
    assert set(params["second"]) == {"norm", "attention", "norm_attention", "dense1", "dense2", "gate1", "gate2"}
    matrices = {
        f"{name}/{i}": matrix
        for name in ("first", "second")
        for i, matrix in enumerate(jax.tree.leaves(params[name]))
        if matrix.ndim > 1
    }
    assert len(matrices) == (4 + 1 + 12) + (4 + 2 + 12)
    for name, matrix in matrices.items():
        fan_in = matrix.shape[0]
        assert 0.95 / np.sqrt(fan_in) < np.abs(matrix).max() <= 1 / np.sqrt(fan_in), name
        assert matrix.std() == pytest.approx(np.sqrt(1 / 3 / fan_in), rel=0.06), name
    for layer in ("first", "second"):
        assert (params[layer]["gate1"]["b_g"] == 2).all()


def test_relative_positions_start_without_biases() -> None:
    options = AttentionOptions(DIM, HEADS, 3, "full", "relative")
    layer = ResidualLayer(options, options.positions(1), Numerics("cpu"))
    params = layer.init(jax.random.key(0), jnp.ones((1, 1, DIM)), jnp.ones((1, 1), jnp.int32), method="encode_slots")
    attention = params["params"]["attention"]
    assert attention["positions"].shape == (DIM, HEADS, DIM // HEADS)
    assert not attention["content_bias"].any()
    assert not attention["position_bias"].any()
