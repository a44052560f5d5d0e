from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.attention import seeing
from trxl_jax.agent.cores.attention import MemoryAttention, attend, attend_frozen_keys, attend_single_query, normalise
from trxl_jax.agent.cores.attention_layer import AttentionOptions
from trxl_jax.agent.cores.positions import PositionalEncoding
from trxl_jax.agent.cores.transformer_xl import TransformerXL
from trxl_jax.agent.numerics import Numerics


def make_model(encoding: str, platform: str) -> TransformerXL:
    """Two layers with two heads, D 8, W 4, E 10."""
    return TransformerXL(
        dim=8,
        options=AttentionOptions(dim=8, num_heads=2, window=4, positional_encoding=encoding),
        num_layers=2,
        layer="residual",
        see_self=False,
        max_episode_steps=10,
        memory_dtype="float32",
        numerics=Numerics(platform),
    )


def test_absolute_positions_count_down_and_go_on_past_the_end() -> None:
    encoding = PositionalEncoding("absolute", 4, 10).apply({}, jnp.array([0, 9, 2000]))
    for row, angle in zip(encoding, [9.0, 0.0, -1991.0], strict=True):
        expected = [np.sin(angle), np.sin(angle / 100), np.cos(angle), np.cos(angle / 100)]
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_learned_positions_stay_on_the_last_row_past_the_end() -> None:
    module = PositionalEncoding("learned", 4, 3)
    params = module.init(jax.random.key(0), jnp.zeros(1, jnp.int32))
    rows = module.apply(params, jnp.array([0, 2, 3, 5000]))
    table = params["params"]["table"]
    assert table.shape == (3, 4)
    np.testing.assert_array_equal(rows, table[jnp.array([0, 2, 2, 2])])


def plain_attention(params: dict, query: np.ndarray, kv: np.ndarray, heads: int) -> np.ndarray:
    """One query as the original computes it: every slot projected, all heads with the same matrices."""
    dim = len(query)
    q, keys = query.reshape(heads, -1) @ params["queries"], kv.reshape(len(kv), heads, -1) @ params["keys"]
    values = kv.reshape(len(kv), heads, -1) @ params["values"]
    energy = np.einsum("hd,shd->hs", q, keys) / np.sqrt(dim)
    weights = np.exp(energy - energy.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    context = np.einsum("hs,shd->hd", weights, values).reshape(dim)
    return context @ params["out"]["kernel"] + params["out"]["bias"]


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_projecting_every_slot(heads: int) -> None:
    n, q, s, dim = 2, 3, 7, 8
    keys = jax.random.split(jax.random.key(heads), 6)
    query, slots = jax.random.normal(keys[0], (n, q, dim)), normalise(jax.random.normal(keys[1], (n, s, dim)))
    visible = jax.random.bernoulli(keys[2], 0.5, (n, q, s)).at[0, 0].set(False)
    empty = normalise(jax.random.normal(keys[3], (4, dim)))
    module = MemoryAttention(heads, True, Numerics("cpu"))
    by_head = jnp.moveaxis(slots.reshape(n, s, heads, -1), 2, 1)
    params = module.init(keys[4], query, by_head, seeing(visible)[0], empty.mean(axis=0))["params"]
    # Gain and bias away from 1 and 0, where they would not show.
    params |= {"kv_scale": 1 + jnp.arange(dim) / 10, "kv_bias": jax.random.normal(keys[5], (dim,))}
    ours = module.apply({"params": params}, query, by_head, seeing(visible)[0], empty.mean(axis=0))

    plain = jax.tree.map(np.asarray, params)
    for i in range(n):
        for j in range(q):
            sees = np.flatnonzero(visible[i, j])
            kv = np.asarray(slots[i])[sees] if len(sees) else np.asarray(empty)
            kv = kv * plain["kv_scale"] + plain["kv_bias"]
            if not len(sees):  # the fully masked softmax of the original is uniform
                uniform = plain | {"queries": np.zeros_like(plain["queries"])}
                expected = plain_attention(uniform, np.asarray(query[i, j]), kv, heads)
            else:
                expected = plain_attention(plain, np.asarray(query[i, j]), kv, heads)
            np.testing.assert_allclose(ours[i, j], expected, atol=2e-6)


def test_weights_are_sown_and_sum_to_one_over_what_is_visible() -> None:
    model = make_model("absolute", "cpu")
    hidden, position = jnp.ones((1, 6, 2, 8)), jnp.arange(6)[None]
    x = jax.random.normal(jax.random.key(0), (1, 2, 8))
    visible = jnp.zeros((1, 2, 6), bool).at[0, 1, 2:5].set(True)
    params = model.init(jax.random.key(1), x, [jnp.ones((1, 2, 6, 4))] * 2, *seeing(visible))
    slots = model.apply(params, hidden, position, method="encode_slots")
    _, sown = model.apply(params, x, slots, *seeing(visible), mutable="intermediates")
    for layer in ("layers_0", "layers_1"):
        weights = sown["intermediates"][layer]["attention"]["weights"][0]
        np.testing.assert_allclose(weights.sum(axis=-1)[0], [[0, 1], [0, 1]], atol=1e-6)
        assert not weights[..., [0, 1, 5]].any()


@pytest.mark.parametrize(("way", "q"), [(attend_frozen_keys, 5), (attend_frozen_keys, 1), (attend_single_query, 1)])
def test_ways_to_attend_agree_in_values_and_gradients(way: Any, q: int) -> None:
    n, s, heads, dim = 3, 9, 2, 4
    keys = jax.random.split(jax.random.key(0), 4)
    query, slots = jax.random.normal(keys[0], (n, q, heads, dim)), jax.random.normal(keys[1], (n, heads, s, dim))
    visible = jax.random.bernoulli(keys[2], 0.5, (n, q, s)).at[:, :, 0].set(True)
    cotangent = jax.random.normal(keys[3], query.shape)
    np.testing.assert_allclose(way(query, slots, visible), attend(query, slots, visible)[0], atol=1e-6)
    plain = jax.grad(lambda q: (attend(q, slots, visible)[0] * cotangent).sum())(query)
    fast = jax.grad(lambda q: (way(q, slots, visible) * cotangent).sum())(query)
    np.testing.assert_allclose(fast, plain, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["absolute", "learned"])
def test_platforms_agree(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's formulation of the whole transformer against the general one, values and gradients."""
    monkeypatch.setattr("trxl_jax.agent.cores.attention._MIN_PRODUCTS_OF_A_LOOP", 1)
    n, q, s, dim = 2, 5, 9, 8
    keys = jax.random.split(jax.random.key(0), 3)
    x, hidden = jax.random.normal(keys[0], (n, q, dim)), jax.random.normal(keys[1], (n, s, 2, dim))
    visible = jax.random.bernoulli(keys[2], 0.4, (n, q, s))
    position = jnp.tile(jnp.arange(s), (n, 1))

    def loss(params: dict, model: TransformerXL) -> jax.Array:
        slots = model.apply(params, hidden, position, method="encode_slots")
        return jnp.sin(model.apply(params, x, slots, *seeing(visible))[0]).sum()

    models = [make_model(encoding, platform) for platform in ("cpu", "gpu")]
    params = models[0].init(jax.random.key(1), x, [jnp.ones((n, 2, s, 4))] * 2, *seeing(visible))
    results = [jax.value_and_grad(loss)(params, model) for model in models]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *results)
