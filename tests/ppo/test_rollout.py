"""Collecting and learning see the same; truncated episodes bootstrap; endless ones go on."""

import itertools
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.attention import encode_slots, look
from tests.support.device_probes import Counting
from tests.support.probes import Counter, Paying, Pictures
from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.agent.cores import transformer_xl
from trxl_jax.agent.cores.visibility import visible_slots
from trxl_jax.config import Config
from trxl_jax.envs.host.environment import HostEnvironment
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import ConfigError
from trxl_jax.ppo.minibatch import Segments, forward_minibatch, minibatch_segments, take_minibatch
from trxl_jax.ppo.rollout import Rollout, RolloutState, collect_rollout, init_rollout_state
from trxl_jax.ppo.train_step import init_states, make_train_step
from trxl_jax.ppo.update import ppo_loss
from trxl_jax.runs.debug import check_rollout

SIZES = {"num_envs": 4, "num_steps": 24, "num_minibatches": 4, "total_timesteps": 10_000, "trxl_dim": 16,
         "trxl_num_heads": 2, "trxl_num_layers": 2, "trxl_memory_length": 6}  # fmt: skip


def collect(config: Config, env: Any = None, rollouts: int = 2) -> tuple[Any, Any, RolloutState, Rollout]:
    """Several rollouts under fresh parameters; the last one is returned."""
    batch = make_env(config, env)
    agent = make_agent(config, batch.spec)
    params = agent.init_params(jax.random.key(0))
    state = init_rollout_state(batch, agent, jax.random.key(1))
    step = jax.jit(
        lambda state, key: collect_rollout(
            agent,
            params,
            batch,
            state,
            key,
            config.num_steps,
            gamma=0.9,
            bootstrap_truncated=config.bootstrap_truncated,
        )
    )
    for i in range(rollouts):
        state, rollout = step(state, jax.random.key(2 + i))
    return agent, params, state, rollout


@pytest.mark.parametrize(
    ("memory_dtype", "compute_dtype", "tolerance"),
    [
        ("bfloat16", "float32", 1e-5),
        pytest.param("float32", "float32", 1e-5, marks=pytest.mark.slow),
        pytest.param("bfloat16", "bfloat16", 1e-2, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("encoding", ["absolute", "learned", "none"])
def test_learning_sees_what_acting_saw(encoding: str, memory_dtype: str, compute_dtype: str, tolerance: float) -> None:
    """With unchanged parameters every ratio is 1, in every step, first steps of episodes included."""
    config = Config(
        env_id="gymnax/ProofofMemory-v0",
        trxl_positional_encoding=encoding,
        memory_dtype=memory_dtype,
        compute_dtype=compute_dtype,
        **SIZES,
    )
    agent, params, _, rollout = collect(config)
    assert (rollout.transitions.episode_step == 0).any()
    slots = agent.apply(params, rollout.memory, method="prepare")
    zeros = jnp.zeros_like(rollout.transitions.reward)
    segments = minibatch_segments(jax.random.key(9), config.num_envs, config.num_steps, config.num_minibatches)
    for index in segments.step:
        batch = take_minibatch(rollout, zeros, zeros, Segments(index))
        output = forward_minibatch(agent, params, batch, slots)
        ratio = jnp.exp(output.policy.log_prob(batch.action) - batch.log_prob)
        np.testing.assert_allclose(ratio, 1.0, atol=tolerance)
        np.testing.assert_allclose(output.value, batch.value, atol=tolerance)
        _, metrics = ppo_loss(agent, params, batch, slots, config, jnp.float32(0))
        assert metrics["losses/clipfrac"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["absolute", "learned"])
def test_windows_of_their_own_and_all_slots_give_the_same(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small minibatches copy each query's window; values and gradients are those of products with all slots."""
    config = Config(env_id="gymnax/ProofofMemory-v0", trxl_positional_encoding=encoding, **SIZES)
    agent, params, _, rollout = collect(config)
    zeros = jnp.zeros_like(rollout.transitions.reward)
    segments = minibatch_segments(jax.random.key(9), config.num_envs, config.num_steps, config.num_minibatches)
    batch = take_minibatch(rollout, zeros, zeros, Segments(segments.step[0]))

    def loss(params: Any) -> tuple[jax.Array, Any]:
        slots = agent.apply(params, rollout.memory, method="prepare")
        output = forward_minibatch(agent, params, batch, slots)
        return jnp.square(output.policy.logits).sum() + jnp.square(output.value).sum(), output

    copied = jax.grad(loss, has_aux=True)(params)
    monkeypatch.setattr(transformer_xl, "_MAX_GATHERED", 0)
    dense = jax.grad(loss, has_aux=True)(params)
    chex.assert_trees_all_close(copied, dense, atol=1e-5)


def test_the_memory_matters() -> None:
    """The same observation with and without what came before gives another value."""
    config = Config(env_id="gymnax/ProofofMemory-v0", **SIZES)
    agent, params, _, rollout = collect(config)
    obs = rollout.observations.obs[10][:, None]
    slots, window = encode_slots(agent, params, rollout.memory), agent.core.window
    slot, every = jnp.full((4, 1), window + 10), jnp.arange(slots[0].shape[2])
    values = [
        look(agent, params, obs, slots, visible_slots(slot, jnp.full((4, 1), k), every, window)).value
        for k in (0, 1, 3, 5, 6)
    ]
    for fewer, more in itertools.pairwise(values[:4]):
        assert (jnp.abs(fewer - more) > 1e-7).all()
    np.testing.assert_array_equal(values[3], values[4])  # W - 1 = 5 slots are all there is


def test_truncated_episodes_bootstrap_with_their_final_observation() -> None:
    sizes = SIZES | {"num_steps": 8, "num_minibatches": 1}
    config = Config(bootstrap_truncated=True, **sizes)
    agent, params, _, rollout = collect(config, lambda: Counter(length=3), rollouts=1)
    plain = collect(config.replace(bootstrap_truncated=False), lambda: Counter(length=3), rollouts=1)[3]
    added = rollout.transitions.reward - plain.transitions.reward
    np.testing.assert_array_equal(added != 0, np.tile(np.array([0, 0, 1, 0, 0, 1, 0, 0], bool)[:, None], (1, 4)))

    # The value of observation [3] at episode step 3, seeing the slots of steps 0 to 2.
    slots, window = encode_slots(agent, params, rollout.memory), agent.core.window
    for t in (2, 5):
        slot, step = jnp.full((4, 1), window + t + 1), jnp.full((4, 1), 3)
        visible = visible_slots(slot, step, jnp.arange(slots[0].shape[2]), window)
        np.testing.assert_array_equal(visible.sum(axis=-1), 3)
        value = look(agent, params, jnp.full((4, 1, 1), 3.0), slots, visible).value[:, 0]
        np.testing.assert_allclose(added[t], 0.9 * value, rtol=1e-4)


def test_a_task_that_terminates_has_nothing_to_bootstrap() -> None:
    class Terminating(Counter):
        def step(self, action: Any) -> tuple:
            obs, reward, _, ended, info = super().step(action)
            return obs, reward, ended, ended, info

    config = Config(bootstrap_truncated=True, **SIZES)
    rollout = collect(config, lambda: Terminating(length=3), rollouts=1)[3]
    assert (rollout.transitions.reward == 1).all()


def test_a_batch_without_final_observations_has_nothing_to_bootstrap_from() -> None:
    env = HostEnvironment(lambda: Counter(length=3), 4)
    agent = make_agent(Config(**SIZES), env.spec)
    params = agent.init_params(jax.random.key(0))
    state = init_rollout_state(env, agent, jax.random.key(1))
    with pytest.raises(ConfigError, match=r"^--bootstrap_truncated: .* no final_obs; .*send_final_obs=True"):
        collect_rollout(agent, params, env, state, jax.random.key(2), 8, bootstrap_truncated=True)


class SingleBuffered:
    """A host environment without double buffering."""

    on_host = True
    failure = None

    def __init__(self, env: HostEnvironment) -> None:
        self.spec, self.num_envs, self.reset, self.step = env.spec, env.num_envs, env.reset, env.step
        self.pop_episode_results = env.pop_episode_results


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cpu", "gpu"])  # with a table of frames and without
def test_double_buffering_changes_nothing(platform: str) -> None:
    """Over two rollouts: the second one begins with the results of the first one's last step."""
    config = Config(bootstrap_truncated=True, normalize_rewards=True, **SIZES)
    whole, parted = (HostEnvironment(Pictures, 4, send_final_obs=True) for _ in range(2))
    assert parted.num_buffers == 2
    outcomes, results = [], []
    for env in (SingleBuffered(whole), parted):
        agent = make_agent(config, env.spec, platform)
        params = jax.jit(agent.init_params)(jax.random.key(0))
        state = init_rollout_state(env, agent, jax.random.key(1))
        step = jax.jit(partial(collect_rollout, agent, params, env, num_steps=24, gamma=0.9, bootstrap_truncated=True))
        rollouts = []
        for i in range(2):
            state, rollout = step(state=state, key=jax.random.key(2 + i))
            rollouts.append(rollout)
        outcomes.append((state.obs, state.memory, rollouts))
        results.append(env.pop_episode_results(rollout.episode))
    assert outcomes[0][2][1].transitions.done.any()
    assert (outcomes[0][2][1].transitions.reward >= 2).any()  # a value was added
    assert results[0] == results[1]
    for ours, theirs in zip(*(jax.tree.leaves(outcome) for outcome in outcomes), strict=True):
        if ours.dtype in (jnp.float32, jnp.bfloat16):
            np.testing.assert_allclose(ours.astype(float), theirs.astype(float), atol=1e-5 if ours.ndim < 4 else 1e-2)
        else:
            np.testing.assert_array_equal(ours, theirs)
    whole.close()
    parted.close()


@pytest.mark.slow
def test_double_buffered_environments_are_stepped_by_a_thread_whose_failure_is_reported() -> None:
    made = []

    class Crashing(Pictures):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def step(self, action: Any) -> tuple:
            if self is made[-1] and self.time == 2:
                raise RuntimeError("no more film")
            return super().step(action)

    env = HostEnvironment(Crashing, 4)
    with pytest.raises(Exception, match="no more film"):
        collect(Config(**SIZES), env)
    assert "index 3" in str(env.failure)
    assert [env.threads for env in made[1:]] == [{"environments"}] * 4
    env.close()


@pytest.mark.parametrize("encoding", ["absolute", "learned"])
def test_endless_episodes_run_past_1024_steps(encoding: str) -> None:
    sizes = SIZES | {"num_envs": 1, "num_steps": 400}
    config = Config(trxl_positional_encoding=encoding, **sizes)
    _, _, state, rollout = collect(config, lambda: Counter(length=10**6), rollouts=3)
    assert state.memory.episode_step.tolist() == [1200]
    assert rollout.transitions.episode_step[-1, 0] == 1199
    assert jnp.isfinite(rollout.transitions.value).all()
    assert state.memory.hidden.shape == (1, 6, 2, 16)


@pytest.mark.slow
def test_target_kl_ends_an_update_after_the_epoch_that_passes_it() -> None:
    config = Config(env_id="gymnax/ProofofMemory-v0", init_lr=0.01, update_epochs=4, **SIZES)
    env = make_env(config)
    agent = make_agent(config, env.spec)
    key = jax.random.key(3)
    states = init_states(config, env, agent, key)

    def after(**changes: Any) -> Any:
        return make_train_step(config.replace(**changes), env, agent)(*states, key)

    unlimited = after()
    stopped, patient = after(target_kl=1e-9), after(target_kl=1e9)
    assert stopped[0].opt_state[0].count == config.num_minibatches
    assert unlimited[0].opt_state[0].count == 4 * config.num_minibatches
    for ours, theirs in zip(jax.tree.leaves(patient[0]), jax.tree.leaves(unlimited[0]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert stopped[2].metrics["losses/approx_kl"] != unlimited[2].metrics["losses/approx_kl"]


@pytest.mark.slow
@pytest.mark.parametrize("normalised", [False, True])
def test_host_and_device_train_steps_are_the_same_algorithm(normalised: bool) -> None:
    """The same task behind callbacks and as JAX functions: the same actions, metrics, episodes and variables."""
    flags = {"normalize_observations": normalised, "normalize_rewards": normalised}
    config = Config(bootstrap_truncated=True, max_episode_steps=5, norm_adv=True, **SIZES, **flags)
    trained = []
    for task in (Paying, Counting()):
        env = make_env(config, task)
        agent = make_agent(config, env.spec)
        states = init_states(config, env, agent, jax.random.key(0))
        train_step = make_train_step(config, env, agent)
        outputs, results = [], []
        for _ in range(2):
            *states, output = train_step(*states, jax.random.key(1))
            outputs.append(jax.block_until_ready(output))
            results += [(r["r"], r["l"]) for r in env.pop_episode_results(output.episode)]
        assert env.on_host == (task is Paying)
        episodes = [(o.episode.done, o.episode.episode_return * o.episode.done) for o in outputs]
        trained.append((states[0], states[1].memory, [o.metrics for o in outputs], episodes, sorted(results)))
        env.close()
    host, device = trained
    assert len(host[-1]) == 4 * (48 // 5)
    for ours, theirs in zip(jax.tree.leaves(host), jax.tree.leaves(device), strict=True):
        np.testing.assert_allclose(np.asarray(ours, float), np.asarray(theirs, float), rtol=1e-4, atol=1e-6)


def test_what_debugging_checks_of_a_rollout_can_fail() -> None:
    agent, _, _, rollout = collect(Config(env_id="gymnax/ProofofMemory-v0", **SIZES))
    rollout = jax.device_get(rollout)
    check_rollout(rollout, agent.spec)
    steps = rollout.transitions
    for name, wrong in (("episode_step", steps.episode_step + 1), ("action", steps.action + 2),
                        ("log_prob", -steps.log_prob), ("value", steps.value * np.nan)):  # fmt: skip
        with pytest.raises(AssertionError):
            check_rollout(rollout._replace(transitions=steps._replace(**{name: wrong})), agent.spec)
