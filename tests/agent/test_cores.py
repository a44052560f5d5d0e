"""The two rules that hold for every core, and what is true of segments; see `agent/cores/base.py`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trxl_jax.agent.actor_critic import ActorCritic, make_agent
from trxl_jax.agent.cores.registry import make_core
from trxl_jax.agent.numerics import Numerics
from trxl_jax.config import Config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.observations import PICTURE_84
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import ConfigError
from trxl_jax.play.policy import Policy
from trxl_jax.ppo.minibatch import Segments, forward_minibatch, minibatch_segments, take_minibatch
from trxl_jax.ppo.rollout import Rollout, collect_rollout, init_rollout_state

NUM_STEPS, WINDOW = 12, 6
SIZES = {"num_envs": 4, "num_steps": NUM_STEPS, "num_minibatches": 2, "total_timesteps": 10_000, "trxl_dim": 16,
         "trxl_num_heads": 2, "trxl_num_layers": 2, "trxl_memory_length": WINDOW, "memory_dtype": "float32",
         "env_id": "gymnax/ProofofMemory-v0"}  # fmt: skip
CORES: dict[str, dict[str, Any]] = {
    "trxl": {},
    "learned positions of queries too": {"trxl_positional_encoding": "learned", "trxl_query_position": True},
    "heads of their own": {"trxl_heads": "full"},
    "relative": {"trxl_positional_encoding": "relative", "trxl_heads": "full"},
    "relative, shared heads": {"trxl_positional_encoding": "relative"},
    "rotary, sees itself": {"trxl_positional_encoding": "rotary", "trxl_see_self": True},
    "sees itself": {"trxl_see_self": True},
    "window longer than the rollout": {"trxl_memory_length": 14, "trxl_positional_encoding": "rotary"},
    "gtrxl": {"core": "gtrxl"},
    "gtrxl as in its paper": {"core": "gtrxl", "trxl_see_self": True, "trxl_heads": "full",
                              "trxl_positional_encoding": "relative"},
    "gru": {"core": "gru"},
    "lstm of two layers": {"core": "lstm", "core_layers": 2},
    "min_gru": {"core": "min_gru"},
    "lru": {"core": "lru"},
    "none": {"core": "none"},
    "previous action and reward": {"core": "gru", "previous_action": True, "previous_reward": True},
}  # fmt: skip
EVERY_DAY = {"lstm of two layers", "rotary, sees itself"}
EACH_CORE = pytest.mark.parametrize(
    "options",
    [pytest.param(CORES[name], id=name, marks=[] if name in EVERY_DAY else [pytest.mark.slow]) for name in CORES],
)


def make(options: dict[str, Any], segment_length: int = 1) -> tuple[Config, ActorCritic, Any, Rollout]:
    """A configuration, its agent with random parameters, and its second rollout."""
    config = Config(segment_length=segment_length, **SIZES | options)
    env = make_env(config)
    agent = make_agent(config, env.spec)
    params = jax.jit(agent.init_params)(jax.random.key(0))
    collect = jax.jit(partial(collect_rollout, agent, params, env, num_steps=NUM_STEPS, segment_length=segment_length))
    state = init_rollout_state(env, agent, jax.random.key(1))
    for i in range(2):
        state, rollout = collect(state=state, key=jax.random.key(2 + i))
    assert (rollout.transitions.episode_step == 0).any()
    return config, agent, params, rollout


@EACH_CORE
@pytest.mark.parametrize("segment_length", [1, 4, NUM_STEPS])
def test_learning_gives_what_acting_gave(options: dict[str, Any], segment_length: int) -> None:
    """With unchanged parameters every ratio is 1, whether minibatches hold all environments or some of them."""
    config, agent, params, rollout = make(options, segment_length)
    zeros = jnp.zeros_like(rollout.transitions.reward)
    segments = minibatch_segments(jax.random.key(9), 4, NUM_STEPS, config.num_minibatches, segment_length)
    assert (segments.env is None) == (segment_length == 1)

    @jax.jit
    def compare(segments: Segments) -> tuple[jax.Array, jax.Array]:
        batch = take_minibatch(rollout, zeros, zeros, segments)
        prepared = agent.apply(params, rollout.memory, method="prepare")
        output = forward_minibatch(agent, params, batch, prepared, segment_length)
        return output.policy.log_prob(batch.action) - batch.log_prob, output.value - batch.value

    for i in range(config.num_minibatches):
        log_ratio, error = compare(jax.tree.map(lambda leaf, i=i: leaf[i], segments))
        np.testing.assert_allclose(jnp.exp(log_ratio), 1.0, atol=1e-5)
        np.testing.assert_allclose(error, 0.0, atol=1e-5)


@EACH_CORE
def test_gradients_flow_within_a_segment_and_an_episode(options: dict[str, Any]) -> None:
    """From a step to those before it in its segment, at most W - 1 of them, and to itself; nowhere else."""
    segment_length = 4
    config, agent, params, rollout = make(options, segment_length)
    queries = take_minibatch(
        rollout,
        rollout.transitions.reward,
        rollout.transitions.reward,
        Segments(jnp.tile(jnp.arange(NUM_STEPS), (4, 1))),
    ).queries
    x = jax.random.normal(jax.random.key(3), (4, NUM_STEPS, config.trxl_dim))
    prepared = agent.apply(params, rollout.memory, method="prepare")

    @jax.jit
    @jax.jacobian
    def jacobian(x: jax.Array) -> jax.Array:
        value = agent.apply(params, x, prepared, queries, segment_length, method="learn").value
        return value.sum(axis=0)  # environments don't see each other

    flows = np.abs(np.moveaxis(np.asarray(jacobian(x)), 0, 1)).sum(axis=-1) > 0  # [N, Q, step]
    step, k = np.arange(NUM_STEPS), np.asarray(rollout.transitions.episode_step).T
    ago = step[:, None] - step
    same_segment = step[:, None] // segment_length == step // segment_length
    expected = (ago >= 0) & same_segment & (k[:, :, None] >= ago)
    if config.core == "none":
        expected &= ago == 0
    np.testing.assert_array_equal(flows, expected)


@EACH_CORE
def test_nothing_of_an_earlier_episode_matters(options: dict[str, Any]) -> None:
    """A core whose carry is full of other numbers acts alike in an episode's first steps."""
    _, agent, params, rollout = make(options)
    empty = agent.core.init_carry(2)
    full = jax.tree.map(lambda leaf: leaf if leaf.ndim == 1 else jnp.full_like(leaf, 3), empty)
    ys = []
    for carry in (empty, full):
        state = agent.apply(params, carry, 0, method="start")
        for k in range(3):
            time = jnp.int32(k), jnp.full(2, k)
            obs = rollout.observations.obs[k, :2]
            output, entry = agent.apply(
                params, agent.apply(params, obs, method="encode"), state, *time, method="decide"
            )
            state = agent.apply(params, state, entry, *time, method="write")
            ys.append(output.value)
    np.testing.assert_array_equal(np.stack(ys[:3]), np.stack(ys[3:]))


@pytest.mark.parametrize(
    "options",
    [
        {"core": "gru", "trxl_dim": 130},
        {"core": "none", "trxl_dim": 65},
        {"core": "lstm", "trxl_positional_encoding": "learned", "trxl_num_positions": 10**8},
        {"core": "my_module:make_core", "trxl_dim": 65},
    ],
)
def test_limits_of_attention_are_those_of_cores_that_attend(options: dict[str, Any]) -> None:
    Config(**options)
    with pytest.raises(ConfigError, match="trxl_"):
        Config(**options | {"core": "gtrxl"})


@pytest.mark.parametrize("name", [None, "memory", "transformer"])
def test_attention_of_a_transformer_of_any_name_is_found(name: str | None) -> None:
    config = Config(**SIZES)
    spec = make_env(config).spec
    given = make_core(config.fitted_to(spec.max_episode_steps), Numerics("cpu"))
    agent = make_agent(config, spec, core=given.clone(name=name))
    policy = Policy(params=jax.jit(agent.init_params)(jax.random.key(0)), agent=agent, config=config)
    obs, memory = jnp.ones(spec.obs.arrays[""].shape), policy.init()
    _, memory = policy.step(obs, memory, deterministic=True)
    weights = policy.attention(obs, memory)
    assert weights.shape == (2, 2, WINDOW - 1)
    np.testing.assert_allclose(weights[..., 0], 1)  # of the only step there is


def test_a_traced_reconstruction_coefficient_makes_a_decoder() -> None:
    """As in a sweep within one program, where it may be 0 in some lanes and not in others."""
    spec = EnvSpec(PICTURE_84, DiscreteActions((3,)), 50)

    def has_decoder(coef: Any) -> bool:
        agent = make_agent(Config(reconstruction_coef=coef, **SIZES), spec)
        return "decoder" in jax.eval_shape(agent.init_params, jax.random.key(0))["params"]

    found = []
    jax.make_jaxpr(jax.vmap(lambda coef: found.append(has_decoder(coef)) or coef))(jnp.array([0.0, 0.1]))
    assert [has_decoder(0.0), has_decoder(0.1), *found] == [False, True, True]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"core": "frob"}, ["--core 'frob'", "lstm"]),
        ({"core": "no.such.module:make"}, ["--core", "no.such.module"]),
        ({"core": "json:dumps"}, ["--core"]),
        ({"core": "gru", "trxl_heads": "full"}, ["--trxl_heads 'full'", "gru"]),
        ({"core": "none", "core_layers": 2}, ["--core_layers 2", "no memory"]),
        ({"core_layers": 2}, ["--core_layers 2", "--trxl_num_layers"]),
        ({"segment_length": 5}, ["--segment_length 5", "must divide --num_steps 12"]),
        ({"segment_length": 12, "num_minibatches": 3}, ["--segment_length 12", "4 segments"]),
        ({"trxl_positional_encoding": "rotary", "trxl_dim": 14}, ["heads of 7 numbers", "--trxl_num_heads 2"]),
        ({"trxl_positional_encoding": "relative", "trxl_dim": 15, "trxl_num_heads": 3}, ["--trxl_dim 15", "even"]),
        ({"trxl_positional_encoding": "rotary", "trxl_query_position": True}, ["--trxl_query_position", "rotary"]),
        ({"core": "gru", "refresh_memory": True}, ["--refresh_memory True", "GRU", "--segment_length"]),
        ({"core": "none", "refresh_memory": True}, ["--refresh_memory True", "NoMemory", "leave it out"]),
        ({"core": "none", "log_staleness": 3}, ["--log_staleness 3", "NoMemory", "leave it out"]),
        ({"log_staleness": -1}, ["--log_staleness -1", "negative"]),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options: dict[str, Any], words: list[str]) -> None:
    def build() -> None:
        config = Config(**SIZES | options)
        make_agent(config, make_env(config).spec)

    with pytest.raises(ConfigError) as raised:
        build()
    message = str(raised.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
