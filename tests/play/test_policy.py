"""A loaded policy acts as the rollout did, alone or in a batch, and needs no environment."""

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces as gymnax_spaces

import trxl_jax
from tests.support.attention import encode_slots, look
from tests.support.device_probes import Cued
from tests.support.paths import GOLDEN
from tests.support.probes import Counter
from tests.support.runs import make_run, untrained
from trxl_jax import Config, make_env
from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.agent.cores.visibility import visible_slots
from trxl_jax.envs.actions import BoxActions
from trxl_jax.errors import CheckpointError, ConfigError
from trxl_jax.play.policy import Policy, PolicyMemory
from trxl_jax.ppo.rollout import Rollout, collect_rollout, init_rollout_state

WINDOW, STEPS = 6, 16
SIZES = {"num_envs": 3, "num_steps": STEPS, "num_minibatches": 1, "total_timesteps": 10_000, "trxl_dim": 16,
         "trxl_num_heads": 2, "trxl_num_layers": 2, "trxl_memory_length": WINDOW}  # fmt: skip


def collect(config: Config, env: Any = None) -> tuple[Policy, list[Rollout], list[jax.Array]]:
    """Two rollouts under fresh parameters, and their keys."""
    batch = make_env(config, env)
    policy = untrained(config, batch.spec)
    agent = policy.agent
    state = init_rollout_state(batch, agent, jax.random.key(1))
    step = jax.jit(lambda state, key: collect_rollout(agent, policy.params, batch, state, key, STEPS))
    keys = [jax.random.key(2), jax.random.key(3)]
    rollouts = []
    for key in keys:
        state, rollout = step(state, key)
        rollouts.append(rollout)
    return policy, rollouts, keys


@pytest.mark.parametrize(
    ("env_id", "encoding", "memory_dtype"),
    [
        ("gymnax/ProofofMemory-v0", "absolute", "bfloat16"),
        pytest.param("gymnax/ProofofMemory-v0", "learned", "bfloat16", marks=pytest.mark.slow),
        ("gymnax/ProofofMemory-v0", "none", "float32"),
        # Pixels, whose distinct frames a rollout encodes once.
        pytest.param("MiniGrid-MemoryS9-v0", "absolute", "bfloat16", marks=pytest.mark.slow),
        pytest.param("SearingSpotlights-v0", "absolute", "bfloat16", marks=pytest.mark.slow),  # and two action branches
    ],
)
def test_a_step_is_a_step_of_a_rollout(env_id: str, encoding: str, memory_dtype: str) -> None:
    """Same keys, same actions; the ring goes round several times, and on from one rollout to the next."""
    check_steps(Config(env_id=env_id, trxl_positional_encoding=encoding, memory_dtype=memory_dtype, **SIZES))


@pytest.mark.parametrize(
    "options",
    [
        {"core": "lstm", "previous_action": True, "previous_reward": True},
        pytest.param({"core": "gtrxl", "trxl_positional_encoding": "rotary"}, marks=pytest.mark.slow),
        pytest.param({"trxl_heads": "full", "trxl_positional_encoding": "relative"}, marks=pytest.mark.slow),
        pytest.param({"core": "lru"}, marks=pytest.mark.slow),
    ],
)
def test_a_step_is_a_step_of_a_rollout_with_every_core(options: dict[str, Any]) -> None:
    check_steps(Config(env_id="gymnax/ProofofMemory-v0", **SIZES, **options))


def check_steps(config: Config) -> None:
    policy, rollouts, keys = collect(config)
    reward = jnp.zeros(config.num_envs)
    memory = policy.init(config.num_envs)
    for rollout, key in zip(rollouts, keys, strict=True):
        for t, action_key in enumerate(jax.random.split(key, STEPS)):
            steps = jax.tree.map(lambda x, t=t: x[t], rollout.transitions)
            np.testing.assert_array_equal(memory.episode_step, steps.episode_step)
            obs = rollout.observations.obs[t]
            output, _ = policy.decide(obs, memory, reward)
            action, memory = policy.step(obs, memory, action_key, reward=reward)
            reward = steps.reward
            expected = steps.action if steps.action.shape[1] > 1 else steps.action[:, 0]
            np.testing.assert_array_equal(action, expected)
            np.testing.assert_allclose(output.policy.log_prob(steps.action), steps.log_prob, atol=1e-5)
            np.testing.assert_allclose(output.value, steps.value, atol=1e-5)
            memory = policy.reset(memory, steps.done)
    if "Proof" in config.env_id:
        assert rollouts[0].transitions.done.any()
    assert memory.steps == 2 * STEPS


def play(policy: Policy, observations: np.ndarray, memory: PolicyMemory) -> tuple[np.ndarray, PolicyMemory]:
    actions = []
    for obs in observations:
        action, memory = policy.step(obs, memory, deterministic=True)
        actions.append(action)
    return np.stack(actions), memory


@pytest.mark.slow
def test_one_environment_alone_is_a_row_of_a_batch() -> None:
    policy, rollouts, _ = collect(Config(env_id="SearingSpotlights-v0", **SIZES))
    observations = np.asarray(rollouts[0].observations.obs)
    together, batch = play(policy, observations, policy.init(3))
    alone, single = play(policy, observations[:, 1], policy.init())
    assert alone.shape == (STEPS, 2)
    assert single.episode_step.shape == ()
    np.testing.assert_array_equal(alone, together[:, 1])
    for ours, theirs in zip(single.core.ring.layers, batch.core.ring.layers, strict=True):
        np.testing.assert_allclose(ours, theirs[1], atol=1e-5)


def test_a_reset_episode_starts_like_a_fresh_one() -> None:
    policy, rollouts, _ = collect(Config(env_id="gymnax/ProofofMemory-v0", **SIZES))
    observations = rollouts[0].observations.obs
    _, memory = play(policy, observations, policy.init(3))
    memory = policy.reset(memory, jnp.array([True, False, True]))
    fresh = policy.init(3)
    for obs in observations[:5]:
        worn, memory = policy.decide(obs, memory)
        new, fresh = policy.decide(obs, fresh)
        same = np.isclose(worn.value, new.value, atol=1e-6)
        np.testing.assert_array_equal(same, [True, False, True])


def test_the_memory_may_be_scanned_over() -> None:
    policy, rollouts, keys = collect(Config(env_id="gymnax/ProofofMemory-v0", **SIZES))
    steps = rollouts[0].transitions

    def one_step(memory: PolicyMemory, inputs: Any) -> tuple[PolicyMemory, jax.Array]:
        obs, done, key = inputs
        action, memory = policy.step(obs, memory, key)
        return policy.reset(memory, done), action

    inputs = (rollouts[0].observations.obs, steps.done, jax.random.split(keys[0], STEPS))
    _, actions = jax.jit(lambda memory: jax.lax.scan(one_step, memory, inputs))(policy.init(3))
    np.testing.assert_array_equal(actions, steps.action[..., 0])


def test_an_agent_that_reads_rewards_needs_them() -> None:
    config = Config(env_id="gymnax/ProofofMemory-v0", core="none", previous_reward=True, **SIZES)
    agent = make_agent(config, make_env(config).spec)
    policy = Policy(params=jax.jit(agent.init_params)(jax.random.key(0)), agent=agent, config=config)
    obs = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match="reward"):
        policy.step(obs, policy.init(3), deterministic=True)
    _, memory = policy.step(obs, policy.init(3), deterministic=True, reward=np.zeros(3))
    values = [policy.decide(obs, memory, np.full(3, reward))[0].value for reward in (0, 1)]
    assert (np.abs(values[0] - values[1]) > 1e-6).all()


def test_a_sampled_action_needs_a_key_and_a_greedy_one_is_the_mode() -> None:
    policy, rollouts, _ = collect(Config(env_id="SearingSpotlights-v0", **SIZES))
    obs, memory = rollouts[0].observations.obs[0], policy.init(3)
    output, _ = policy.decide(obs, memory)
    np.testing.assert_array_equal(policy.step(obs, memory, deterministic=True)[0], output.policy.mode())
    with pytest.raises(ValueError, match="key"):
        policy.step(obs, memory)


def test_attention_is_by_age() -> None:
    """Against the weights over slots in order of time."""
    policy, rollouts, keys = collect(Config(env_id="gymnax/ProofofMemory-v0", **SIZES))
    agent, steps, stored = policy.agent, rollouts[0].transitions, rollouts[0].memory
    observations = rollouts[0].observations.obs
    slots = encode_slots(agent, policy.params, stored)
    forward = jax.jit(partial(look, agent, mutable="intermediates"))
    memory = policy.init(3)
    for t, key in enumerate(jax.random.split(keys[0], STEPS)):
        query_slot = jnp.full((3, 1), WINDOW + t)
        visible = visible_slots(query_slot, steps.episode_step[t][:, None], jnp.arange(WINDOW + STEPS), WINDOW)
        _, sown = forward(policy.params, observations[t][:, None], slots, visible)
        ours = policy.attention(observations[t], memory)
        assert ours.shape == (3, 2, 2, WINDOW - 1)
        for layer in range(2):
            weights = sown["intermediates"]["transformer"][f"layers_{layer}"]["attention"]["weights"][0][:, :, 0]
            for age in range(WINDOW - 1):
                np.testing.assert_allclose(ours[:, layer, :, age], weights[..., WINDOW + t - 1 - age], atol=1e-5)
        np.testing.assert_allclose(ours.sum(axis=-1)[:, 0, 0], steps.episode_step[t] > 0, atol=1e-5)
        _, memory = policy.step(observations[t], memory, key)
        memory = policy.reset(memory, steps.done[t])


def test_attention_leaves_out_the_step_itself() -> None:
    config = Config(env_id="gymnax/ProofofMemory-v0", trxl_see_self=True, **SIZES)
    spec = make_env(config).spec
    policy = untrained(config, spec)
    memory, obs = policy.init(), jnp.ones(spec.obs.arrays[""].shape)
    for step in range(3):
        sums = policy.attention(obs, memory).sum(axis=-1)
        assert (sums >= 0).all()
        assert (sums < 0.99).all()
        assert (sums > 0).all() == (step > 0)
        _, memory = policy.step(obs, memory, deterministic=True)


@pytest.mark.parametrize("core", ["gru", "none"])
def test_only_cores_that_attend_have_attention(core: str) -> None:
    config = Config(env_id="gymnax/ProofofMemory-v0", core=core, **SIZES)
    spec = make_env(config).spec
    policy = untrained(config, spec)
    assert not policy.agent.core.attends
    with pytest.raises(ConfigError, match="attends to nothing") as error:
        policy.attention(jnp.ones(spec.obs.arrays[""].shape), policy.init())
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["proof_run", "device_run", "mortar_run"])
def test_a_run_is_loaded_from_its_newest_checkpoint(run: str, request: pytest.FixtureRequest) -> None:
    run_dir: Path = request.getfixturevalue(run)
    policy = trxl_jax.load(run_dir)
    config = policy.config
    assert policy.agent.spec == make_env(config).spec
    checkpoint = run_dir / "checkpoints" / "1"
    for ours, theirs in zip(
        jax.tree.leaves(policy.params), jax.tree.leaves(trxl_jax.load(str(checkpoint)).params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    fresh = jax.jit(policy.agent.init_params)(jax.random.split(jax.random.split(jax.random.key(config.seed))[0])[0])
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), policy.params, fresh)
    assert 0 < max(jax.tree.leaves(moved)) < 0.01  # one update away from where it started


@pytest.mark.slow
def test_a_run_on_an_object_is_loaded_without_it(tmp_path: Path) -> None:
    spaces = gymnasium.spaces
    run_dir = make_run(tmp_path / "run", env=lambda: Counter(length=4, action_space=spaces.MultiDiscrete([3, 2])))
    policy = trxl_jax.load(run_dir)
    assert policy.agent.spec.action.nvec == (3, 2)
    env = Counter(length=4, action_space=spaces.MultiDiscrete([3, 2]))
    obs, _ = env.reset()
    memory = policy.init()
    for t in range(4):
        action, memory = policy.step(obs, memory, jax.random.key(t))
        assert env.action_space.contains(np.asarray(action))
        obs, _, _, ended, _ = env.step(action)
    assert ended


@pytest.mark.parametrize("kind", ["numbers", "both"])
def test_a_step_with_numbers_is_a_step_of_a_rollout(kind: str) -> None:
    """The policy clips what it returns; what it remembers of an action is what the rollout did."""
    box = gymnax_spaces.Box(-0.5, 0.5, (2,))
    space = box if kind == "numbers" else gymnax_spaces.Tuple([gymnax_spaces.Discrete(3), box])
    config = Config(core="gru", previous_action=True, **SIZES)
    policy, rollouts, keys = collect(config, Cued(space))
    native = trxl_jax.NativeActions.read(space)
    memory, passed = policy.init(3), 0
    for rollout, key in zip(rollouts, keys, strict=True):
        for t, action_key in enumerate(jax.random.split(key, STEPS)):
            steps = jax.tree.map(lambda x, t=t: x[t], rollout.transitions)
            output, _ = policy.decide(rollout.observations.obs[t], memory)
            action, memory = policy.step(rollout.observations.obs[t], memory, action_key)
            np.testing.assert_allclose(memory.previous.action, steps.action, atol=1e-5)
            np.testing.assert_allclose(output.policy.log_prob(steps.action), steps.log_prob, atol=1e-4)
            np.testing.assert_allclose(action[:, -2:], steps.action[:, -2:].clip(-0.5, 0.5), atol=1e-5)
            jax.tree.map(np.testing.assert_array_equal, native.unpack(action), native.unpack(memory.previous.action))
            passed += int((abs(steps.action[:, -2:]) > 0.5).sum())
            memory = policy.reset(memory, steps.done)
    assert passed > 20
    alone, _ = policy.step(rollouts[0].observations.obs[0, 0], policy.init(), jax.random.key(0))
    assert (alone.shape, alone.dtype) == ((native.space.num_columns,), np.float32)


def test_a_task_with_other_bounds_is_another_task() -> None:
    spec = make_env(Config(**SIZES), Cued(gymnax_spaces.Box(-1.0, 1.0, (1,)))).spec
    policy = untrained(Config(**SIZES), spec)
    policy.require(spec)
    other = spec._replace(action=BoxActions((-2.0,), (1.0,)))
    with pytest.raises(ConfigError, match=r"actions 1 numbers \(-1 to 1\); this task has .* 1 numbers \(-2 to 1\)"):
        policy.require(other)


@pytest.mark.slow
def test_a_file_of_the_original_is_loaded_and_plays_as_well(caplog: pytest.LogCaptureFixture) -> None:
    """It was trained to 1.2 by the original."""
    policy = trxl_jax.load(GOLDEN / "ProofofMemory-v0_seed1.nn")
    assert not caplog.records  # nothing was missing or changed
    assert trxl_jax.evaluate(policy, 200, num_envs=50).means["r"] > 1.1


def test_what_can_not_be_loaded_gets_a_line(proof_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run"):
        trxl_jax.load(tmp_path / "nothing")
    run_dir = tmp_path / "run"
    shutil.copytree(proof_run, run_dir)
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps(config | {"trxl_dim": 32}))
    with pytest.raises(CheckpointError, match="other sizes"):
        trxl_jax.load(run_dir)
    (run_dir / "config.json").write_text(json.dumps(config))
    trxl_jax.load(run_dir)
    for file in (run_dir / "checkpoints" / "1" / "state").rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="can't read"):
        trxl_jax.load(run_dir)
    shutil.rmtree(run_dir / "checkpoints" / "1" / "state")
    with pytest.raises(CheckpointError, match="not a complete"):
        trxl_jax.load(run_dir)
    shutil.rmtree(run_dir / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        trxl_jax.load(run_dir)
