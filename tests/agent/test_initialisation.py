"""Each layer's initial distribution is the original's; the reference vectors load parameters and can't tell."""

import re

import jax
import numpy as np
import pytest

from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.agent.initializers import orthogonal as orthogonal_init
from trxl_jax.config import Config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.observations import PICTURE_84, ArraySpace, numbers

DIM, HEADS, LAYERS = 256, 4, 2
HEAD = DIM // HEADS
SQRT2, THIRD = np.sqrt(2), np.sqrt(1 / 3)


def orthogonal(gain: float, rows: int, columns: int) -> float:
    """Standard deviation of a (semi-)orthogonal matrix's elements."""
    return gain / np.sqrt(max(rows, columns))


# path: (standard deviation of the weight, fan_in that bounds the bias); from the original's layer definitions.
PIXELS = {
    "encoder/conv_0": (orthogonal(SQRT2, 32, 3 * 64), 3 * 64),
    "encoder/conv_1": (orthogonal(SQRT2, 64, 32 * 16), 32 * 16),
    "encoder/conv_2": (orthogonal(SQRT2, 64, 64 * 9), 64 * 9),
    "encoder/dense": (orthogonal(SQRT2, DIM, 3136), 3136),
    "post_transformer": (orthogonal(SQRT2, DIM, DIM), DIM),
    "actor_0": (orthogonal(0.1, 3, DIM), DIM),
    "actor_1": (orthogonal(0.1, 4, DIM), DIM),
    "critic": (orthogonal(1, 1, DIM), DIM),
    "decoder/dense": (orthogonal(SQRT2, 3136, DIM), DIM),
    "decoder/deconv_0": (orthogonal(SQRT2, 64, 64 * 9), 64 * 9),
    "decoder/deconv_1": (orthogonal(SQRT2, 64, 32 * 16), 32 * 16),
    "decoder/deconv_2": (orthogonal(SQRT2, 32, 3 * 64), 3 * 64),
    "transformer/layers_1/attention/out": (THIRD / np.sqrt(DIM), DIM),
    "transformer/layers_1/projection": (THIRD / np.sqrt(DIM), DIM),
}


def initial(obs: ArraySpace, encoding: str, reconstruction: float) -> dict:
    config = Config(trxl_dim=DIM, trxl_num_heads=HEADS, trxl_num_layers=LAYERS, trxl_positional_encoding=encoding,
                    reconstruction_coef=reconstruction)  # fmt: skip
    spec = EnvSpec(obs, DiscreteActions((3, 4)), 64)
    return jax.jit(make_agent(config, spec).init_params)(jax.random.key(0))["params"]


@pytest.fixture(scope="module")
def pixels() -> dict:
    return initial(PICTURE_84, "learned", 0.1)


def find(params: dict, path: str) -> dict:
    for part in path.split("/"):
        params = params[part]
    return params


@pytest.mark.parametrize("path", PIXELS)
def test_weights_and_biases(pixels: dict, path: str) -> None:
    std, fan_in = PIXELS[path]
    layer = find(pixels, path)
    assert layer["kernel"].std() == pytest.approx(std, rel=0.06)
    bound = 1 / np.sqrt(fan_in)
    largest = np.abs(layer["bias"]).max()
    assert largest <= bound
    if layer["bias"].size >= 32:
        assert largest >= 0.9 * bound
        assert layer["bias"].std() == pytest.approx(bound * THIRD, rel=0.3)


def test_orthogonality_is_over_the_originals_matrices(pixels: dict) -> None:
    kernel = np.asarray(pixels["encoder"]["conv_2"]["kernel"]).transpose(3, 2, 0, 1).reshape(64, -1)
    np.testing.assert_allclose(kernel @ kernel.T, 2 * np.eye(64), atol=1e-4)
    kernel = np.asarray(pixels["decoder"]["deconv_2"]["kernel"]).transpose(2, 3, 0, 1).reshape(32, -1)
    np.testing.assert_allclose(kernel @ kernel.T, 2 * np.eye(32), atol=1e-4)


def test_transformer_matrices_norms_and_positions(pixels: dict) -> None:
    layer = pixels["transformer"]["layers_0"]
    for name in ("queries", "keys", "values"):
        matrix = np.asarray(layer["attention"][name])
        assert matrix.shape == (HEAD, HEAD)
        assert 0.95 / np.sqrt(HEAD) < np.abs(matrix).max() <= 1 / np.sqrt(HEAD)
        assert matrix.std() == pytest.approx(THIRD / np.sqrt(HEAD), rel=0.06)
    for norm in ("norm_query", "norm_attention"):
        assert (layer[norm]["scale"] == 1).all()
        assert (layer[norm]["bias"] == 0).all()
    assert (layer["attention"]["kv_scale"] == 1).all()
    assert (layer["attention"]["kv_bias"] == 0).all()
    table = pixels["transformer"]["positions"]["table"]
    assert table.shape == (64, DIM)
    assert table.std() == pytest.approx(1, rel=0.05)
    assert abs(table.mean()) < 0.05


def test_vector_encoder() -> None:
    layer = initial(numbers(8), "none", 0.0)["encoder"]["dense"]
    assert layer["kernel"].std() == pytest.approx(orthogonal(SQRT2, 8, DIM), rel=0.06)
    assert np.abs(layer["bias"]).max() <= 1 / np.sqrt(8)


def test_the_default_agent_has_as_many_parameters_as_the_original() -> None:
    config = Config()
    agent = make_agent(config, EnvSpec(PICTURE_84, DiscreteActions((4,)), 119))
    params = jax.eval_shape(agent.init_params, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == pytest.approx(2.41e6, rel=0.01)


def test_no_batched_decomposition_under_vmap_and_the_same_numbers() -> None:
    """XLA's CPU backend may wait for ever in batched ones, for threads of its pool that they occupy."""
    spec = EnvSpec(PICTURE_84, DiscreteActions((3, 4)), 64)
    config = Config(trxl_dim=16, trxl_num_heads=2, trxl_num_layers=1, reconstruction_coef=0.1)
    init = jax.vmap(make_agent(config, spec).init_params)
    text = jax.jit(init).lower(jax.random.split(jax.random.key(0), 3)).as_text()
    decomposed = re.findall(r"custom_call @lapack_sgeqrf_ffi.*?: \(tensor<([\dx]+)xf32>\)", text)
    assert len(decomposed) >= 8
    assert all(len(shape.split("x")) == 2 for shape in decomposed), decomposed
    keys = jax.random.split(jax.random.key(0), 2)
    both, shape = jax.vmap(lambda key: orthogonal_init(2.0)(key, (6, 3)))(keys), (6, 3)
    np.testing.assert_array_equal(both[1], jax.nn.initializers.orthogonal(2.0)(keys[1], shape))
