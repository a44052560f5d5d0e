"""Every digit that can be compared with the original agrees with it.

One case for each reference file in `tests/golden/` and in the directory that TRXL_GOLDEN_DIR names. A file holds
consecutive rollouts of one batch of environments, with episode ends, and one optimisation step on the last of them.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.golden import BFLOAT16, FILES, FLOAT32, Golden, assert_close
from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.agent.cores.cache import CachedStates
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.ppo.advantages import gae
from trxl_jax.ppo.losses import normalise_advantage
from trxl_jax.ppo.minibatch import Segments, forward_minibatch, take_minibatch
from trxl_jax.ppo.observations import PlainArray, RolloutObservations, SharedFrames
from trxl_jax.ppo.rollout import Rollout, Transition
from trxl_jax.ppo.update import apply_gradients, make_optimizer, ppo_loss

pytestmark = pytest.mark.compiled_as_for_users


def as_rollout(
    agent: ActorCritic, replayed: dict[str, Any], old_log_prob: np.ndarray, old_value: np.ndarray
) -> Rollout:
    data = replayed["data"]
    shape, obs = data["reward"].shape, jnp.asarray(data["obs"])
    first_index = jnp.arange(shape[0] * shape[1]).reshape(shape)
    array = SharedFrames(obs, first_index) if agent.shares_frames() else PlainArray(obs)
    return Rollout(
        observations=RolloutObservations({"": array}),
        transitions=Transition(
            action=jnp.asarray(data["action"], jnp.int32),
            log_prob=jnp.asarray(old_log_prob),
            value=jnp.asarray(old_value),
            reward=jnp.asarray(data["reward"]),
            done=jnp.asarray(data["done"]),
            episode_step=jnp.asarray(data["episode_step"], jnp.int32),
        ),
        memory=replayed["memory"],
        last_value=replayed["last_value"],
        episode=EpisodeStats(jnp.zeros(shape, bool), jnp.zeros(shape), jnp.zeros(shape, jnp.int32)),
    )


def loss_and_gradients(golden: Golden, replayed: dict[str, Any]) -> tuple[Any, Any]:
    """The file's optimisation step: all T x N samples of the last rollout as one minibatch."""
    data, agent, config = golden.data, golden.agent, golden.config
    rollout = as_rollout(agent, replayed, data["update/old_log_prob"], data["update/old_value"])
    advantage, returns = jnp.asarray(replayed["data"]["advantage"]), jnp.asarray(replayed["data"]["return"])
    index = jnp.tile(jnp.arange(config.num_steps), (config.num_envs, 1))
    batch = take_minibatch(rollout, advantage, returns, Segments(index))
    if config.norm_adv:
        batch = batch._replace(advantage=normalise_advantage(batch.advantage))
    memory: CachedStates = rollout.memory

    def loss(params: Any) -> Any:
        slots = agent.apply(params, memory, method="prepare")
        return ppo_loss(agent, params, batch, slots, config, jnp.float32(golden.meta["ent_coef"]))

    grads, metrics = jax.jit(jax.grad(loss, has_aux=True))(golden.params)
    return grads, metrics


# Every day one file with pictures and one with vectors is enough.
SLOW = {"pixels_discrete_absolute", "vector_multidiscrete_absolute", "vector_discrete_none"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW)) for path in FILES],
)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_reference_files() -> None:
    assert FILES


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_forward_advantages_and_update(path: Path, platform: str) -> None:
    for_accelerators = platform != "cpu"
    golden = Golden(path, platform=platform)
    replay = golden.act() if for_accelerators else golden.replay()
    for index, replayed in enumerate(replay):
        data, output = replayed["data"], replayed["output"]
        action = jnp.asarray(data["action"], jnp.int32)
        ours = {
            "logits": output.policy.logits,
            "value": output.value,
            "memory_out": replayed["hidden"],
            "log_prob": output.policy.log_prob(action),
            "entropy": output.policy.entropy(),
            "next_value": replayed["last_value"],
        }
        advantage, returns = gae(
            data["reward"],
            output.value,
            data["done"],
            replayed["last_value"],
            golden.config.gamma,
            golden.config.gae_lambda,
            in_parallel=for_accelerators,
        )
        for name, value in (ours | {"advantage": advantage, "return": returns}).items():
            assert_close(f"rollout{index}/{name}", value, data[name], FLOAT32)

    grads, metrics = loss_and_gradients(golden, replay[-1])
    data = replay[-1]["data"]
    terms = {
        "policy_loss": data["advantage"],
        "old_approx_kl": data["log_prob"] - golden.data["update/old_log_prob"],
    }
    for name in ("policy_loss", "value_loss", "entropy", "reconstruction_loss", "loss", "old_approx_kl", "approx_kl",
                 "clipfrac"):  # fmt: skip
        expected = golden.data[f"update/{name}"]
        assert_close(name, metrics[f"losses/{name}"], expected, FLOAT32, terms.get(name, 0.0))
    check_tree("grad", grads, golden.tree("grad"), FLOAT32)

    optimizer = make_optimizer()
    params, _, norm = apply_gradients(
        optimizer,
        golden.config,
        golden.params,
        optimizer.init(golden.params),
        grads,
        jnp.float32(golden.meta["learning_rate"]),
    )
    assert_close("grad_norm", norm, golden.data["update/grad_norm"], FLOAT32)
    if any(name.startswith("params_after/") for name in golden.data):
        check_step(golden, grads, params)


def check_tree(name: str, ours: Any, theirs: Any, bound: float) -> None:
    paths = jax.tree_util.tree_leaves_with_path(theirs)
    leaves = jax.tree.leaves(ours)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    # A gradient that vanishes but for rounding has no digits of its own: the bound is of its layer's largest at least.
    floor = max(float(np.abs(leaf).max()) for _, leaf in paths) * 1e-3
    for (key, expected), value in zip(paths, leaves, strict=True):
        error = np.abs(np.asarray(value) - expected).max() / max(np.abs(expected).max(), floor)
        assert error <= bound, f"{name}{jax.tree_util.keystr(key)}: off by {error:.2e}"


def check_step(golden: Golden, grads: Any, params: Any) -> None:
    """Parameters after one step: to 1e-5 where the gradient is more than noise, else within the first Adam step."""
    rate = golden.meta["learning_rate"]
    largest = max(float(np.abs(g).max()) for g in jax.tree.leaves(grads))

    def check(gradient: Any, ours: Any, theirs: Any) -> None:
        error = np.abs(np.asarray(ours, np.float64) - theirs)
        signal = np.abs(np.asarray(gradient)) > 1e-5 * largest
        assert (error[signal] <= 1e-5 * max(np.abs(theirs).max(), 1e-8)).all()
        assert (error <= 2.1 * rate).all()

    jax.tree.map(check, grads, params, golden.tree("params_after"))


@pytest.mark.slow
def test_bfloat16_cache_stays_close(path: Path) -> None:
    golden = Golden(path, "bfloat16")
    replay = golden.replay()
    for index, replayed in enumerate(replay):
        assert replayed["memory"].hidden.dtype == jnp.bfloat16
        data, output = replayed["data"], replayed["output"]
        for name, value in {
            "logits": output.policy.logits,
            "value": output.value,
            "memory_out": replayed["hidden"],
        }.items():
            assert_close(f"rollout{index}/{name}", value, data[name], BFLOAT16)
        assert_close("next_value", replayed["last_value"], data["next_value"], BFLOAT16)
    _, metrics = loss_and_gradients(golden, replay[-1])
    for name in ("value_loss", "entropy", "reconstruction_loss"):
        assert_close(name, metrics[f"losses/{name}"], golden.data[f"update/{name}"], BFLOAT16)


@pytest.mark.slow
def test_ratios_are_one_before_the_first_update(path: Path) -> None:
    """Learning recomputes what acting said, first steps of episodes included."""
    golden = Golden(path, "bfloat16")
    for replayed in golden.replay():
        output, memory = replayed["output"], replayed["memory"]
        action = jnp.asarray(replayed["data"]["action"], jnp.int32)
        acted = output.policy.log_prob(action)
        rollout = as_rollout(golden.agent, replayed, np.asarray(acted), np.asarray(output.value))
        index = jnp.tile(jnp.arange(golden.config.num_steps), (golden.config.num_envs, 1))
        batch = take_minibatch(rollout, output.value, output.value, Segments(index))
        slots = golden.agent.apply(golden.params, memory, method="prepare")
        learned = forward_minibatch(golden.agent, golden.params, batch, slots).policy.log_prob(batch.action)
        np.testing.assert_allclose(np.exp(learned - batch.log_prob), 1.0, atol=1e-5)
