"""--compute_dtype bfloat16: factors of products in bfloat16, everything else float32, results close to float32's."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.attention import encode_slots
from trxl_jax.agent.actor_critic import ActorCritic, make_agent
from trxl_jax.agent.cores.base import Queries
from trxl_jax.agent.cores.cache import CachedStates
from trxl_jax.agent.initializers import dense
from trxl_jax.agent.numerics import Numerics
from trxl_jax.config import Config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.observations import PICTURE_84, numbers
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import ConfigError
from trxl_jax.ppo.minibatch import forward_minibatch
from trxl_jax.ppo.observations import MinibatchObservations, PlainArray
from trxl_jax.ppo.rollout import init_rollout_state
from trxl_jax.ppo.train_step import init_states, make_train_step
from trxl_jax.ppo.update import Minibatch, ppo_loss

# A factor rounded to 8 significant bits is off by at most 2^-9 of itself, a product of two by 2^-8. Along the some 16
# products from the observation to the heads independent errors add up to sqrt(16) of that.
OUTPUTS = 4 * 2**-8
# Where a rounding turns a ReLU on or off, whole terms of the gradient come or go. Most do on frames of noise, whose
# features all lie near zero: 1 minus the cosine is 0.7% there, 0.1% with vectors.
DIRECTION = 0.02

N, Q, S, WINDOW = 2, 16, 40, 20
PIXELS = EnvSpec(PICTURE_84, DiscreteActions((3, 2)), 50)
VECTORS = EnvSpec(numbers(5), DiscreteActions((4,)), 50)
CASES = {"pixels": (PIXELS, "absolute", 0.1), "vectors": (VECTORS, "learned", 0.0)}


def build(case: str, compute_dtype: str) -> tuple[Config, ActorCritic]:
    spec, encoding, reconstruction = CASES[case]
    config = Config(
        trxl_dim=64,
        trxl_memory_length=WINDOW,
        trxl_positional_encoding=encoding,
        reconstruction_coef=reconstruction,
        compute_dtype=compute_dtype,
    )
    return config, make_agent(config, spec, platform="gpu")


def make_batch(spec: EnvSpec) -> Minibatch:
    rng = np.random.default_rng(0)
    branches = len(spec.action.nvec)
    shape = (N, Q, *spec.obs.arrays[""].shape)
    obs = rng.integers(0, 256, shape) if spec.has_pictures else rng.normal(size=shape)
    return Minibatch(
        observations=MinibatchObservations({"": PlainArray(jnp.asarray(obs, spec.obs.arrays[""].dtype))}),
        action=jnp.asarray(rng.integers(0, 2, (N, Q, branches)), jnp.int32),
        log_prob=jnp.asarray(-1 - rng.random((N, Q, branches)) / 10, jnp.float32),
        value=jnp.asarray(rng.normal(size=(N, Q)), jnp.float32),
        advantage=jnp.asarray(rng.normal(size=(N, Q)), jnp.float32),
        returns=jnp.asarray(rng.normal(size=(N, Q)), jnp.float32),
        queries=Queries(
            step=jnp.tile(jnp.arange(Q), (N, 1)), episode_step=jnp.asarray(rng.integers(0, 30, (N, Q)), jnp.int32)
        ),
    )


def make_functions(case: str, compute_dtype: str) -> tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]:
    """Parameters, and as functions of them the agent's output and the loss."""
    config, agent = build(case, compute_dtype)
    batch = make_batch(agent.spec)
    hidden = jax.random.normal(jax.random.key(1), (N, S, config.trxl_num_layers, config.trxl_dim))
    position = jnp.tile(jnp.arange(S), (N, 1))

    def prepare(params: Any) -> Any:
        return agent.apply(params, CachedStates(hidden, position), method="prepare")

    def output(params: Any) -> Any:
        return forward_minibatch(agent, params, batch, prepare(params))

    def loss(params: Any) -> Any:
        return ppo_loss(agent, params, batch, prepare(params), config, jnp.float32(1e-3))

    return agent.init_params(jax.random.key(0)), jax.jit(output), jax.jit(jax.value_and_grad(loss, has_aux=True))


def norm(tree: Any) -> float:
    return float(jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree))))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_outputs_loss_and_gradient_stay_close(case: str) -> None:
    params, output, loss = make_functions(case, "float32")
    same_params, rounded_output, rounded_loss = make_functions(case, "bfloat16")
    jax.tree.map(np.testing.assert_array_equal, params, same_params)
    for exact, rounded in zip(jax.tree.leaves(output(params)), jax.tree.leaves(rounded_output(params)), strict=True):
        assert rounded.dtype == jnp.float32
        assert 0 < norm(exact - rounded) <= OUTPUTS * norm(exact)
    (exact, _), exact_grads = loss(params)
    (rounded, metrics), rounded_grads = rounded_loss(params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((rounded, metrics, rounded_grads)))
    assert abs(exact - rounded) <= OUTPUTS * abs(exact)
    product = sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), exact_grads, rounded_grads)))
    assert 1 - product / (norm(exact_grads) * norm(rounded_grads)) <= DIRECTION


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_product_with_samples_but_the_heads_takes_bfloat16(case: str) -> None:
    params, output, _ = make_functions(case, "bfloat16")
    pattern = r"stablehlo\.(?:dot_general|convolution)\b.*: \(tensor<[\dx]*(\w+)>, tensor<[\dx]*(\w+)>\)"
    factors = re.findall(pattern, output.lower(params).as_text())
    spec = CASES[case][0]
    in_float32 = 1 + (not spec.has_pictures)  # all heads; the encoder of vectors
    # Weight matrices multiplied with each other, W_q W_k^T and W_v W_out: of all layers at once where they are folded.
    in_float32 += 2 if CASES[case][1] == "absolute" else 2 * Config.trxl_num_layers
    assert factors.count(("f32", "f32")) == in_float32
    assert factors.count(("bf16", "bf16")) == len(factors) - in_float32


def test_a_bias_gradient_is_summed_in_float32() -> None:
    """Summed in bfloat16, ones stop counting at 256."""
    layer = dense(1, 1, Numerics("gpu", np.dtype(jnp.bfloat16)))
    inputs = jnp.ones((4096, 1))
    params = layer.init(jax.random.key(0), inputs)
    gradient = jax.jit(jax.grad(lambda p: layer.apply(p, inputs).sum()))(params)["params"]
    np.testing.assert_array_equal(gradient["bias"], 4096)
    np.testing.assert_array_equal(gradient["kernel"], 4096)


@pytest.mark.slow
def test_parameters_optimiser_and_metrics_stay_float32_in_training() -> None:
    config = Config(
        env_id="gymnax/ProofofMemory-v0",
        compute_dtype="bfloat16",
        num_envs=4,
        num_steps=16,
        num_minibatches=2,
        total_timesteps=64,
        trxl_dim=16,
        trxl_num_layers=2,
    )
    env = make_env(config)
    agent = make_agent(config, env.spec)
    before = init_states(config, env, agent, jax.random.key(0))
    train_state, _, output = make_train_step(config, env, agent)(*before, jax.random.key(1))
    for leaf in jax.tree.leaves((train_state.params, train_state.opt_state[0].mu, train_state.opt_state[0].nu)):
        assert leaf.dtype == jnp.float32
    assert all(value.dtype == jnp.float32 and jnp.isfinite(value) for value in output.metrics.values())
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), before[0].params, train_state.params)
    assert norm(moved) > 0


def test_on_a_cpu_bfloat16_runs_what_accelerators_run() -> None:
    config = Config(compute_dtype="bfloat16")
    agent = make_agent(config, PIXELS, platform="cpu")
    assert not agent.shares_frames()
    assert agent == make_agent(config, PIXELS, platform="gpu")
    assert make_agent(Config(), PIXELS, platform="cpu").shares_frames()


def test_what_is_attended_to_is_stored_in_bfloat16() -> None:
    config = Config(env_id="gymnax/ProofofMemory-v0", compute_dtype="bfloat16", num_envs=2)
    env = make_env(config)
    agent = make_agent(config, env.spec)
    state = jax.eval_shape(lambda key: init_rollout_state(env, agent, key), jax.random.key(0))
    params = jax.eval_shape(agent.init_params, jax.random.key(0))
    encoded = jax.eval_shape(partial(encode_slots, agent), params, state.memory)
    assert all(layer.dtype == jnp.bfloat16 for layer in encoded)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["gymnax/ProofofMemory-v0", "jax/MysteryPath-Grid-v0"])
def test_matmul_precision_holds_for_all_products_and_gradients_of_accelerators(env_id: str) -> None:
    sizes: dict[str, Any] = {"num_envs": 2, "num_steps": 4, "num_minibatches": 2, "total_timesteps": 8, "trxl_dim": 8}
    config = Config(env_id=env_id, reconstruction_coef=0.1 if env_id.startswith("jax/") else 0.0, **sizes)
    env = make_env(config)

    def products(precision: str, platform: str) -> list[str]:
        exact = config.replace(matmul_precision=precision)
        agent = make_agent(exact, env.spec, platform)
        states = jax.eval_shape(partial(init_states, exact, env, agent), jax.random.key(0))
        text = make_train_step(exact, env, agent).lower(*states, jax.random.key(0)).as_text()  # type: ignore[attr-defined]
        return [line for line in text.splitlines() if re.search(r"stablehlo\.(dot_general|convolution)", line)]

    found = products("highest", "gpu")
    assert len(found) > 50
    assert all(line.count("HIGHEST") == 2 for line in found), found
    if not env.spec.has_pictures:
        assert not any("HIGHEST" in line for line in products("default", "gpu"))
        assert products("highest", "cpu") == products("default", "cpu")


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ConfigError, match="--matmul_precision 'exact': must be default, high or highest"):
        Config(matmul_precision="exact")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--compute_dtype 'float16': must be bfloat16 or float32"):
        Config(compute_dtype="float16")  # type: ignore[arg-type]
