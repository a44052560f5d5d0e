"""Every digit that can be compared with the original agrees with it.

One case for each reference file in `tests/golden/` and in the directory that TRXL_GOLDEN_DIR names. A file holds
consecutive rollouts of one batch of environments, with episode ends, and one optimisation step on the last of them.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.paths import GOLDEN
from trxl_jax.agent.actor_critic import ActorCritic, make_agent
from trxl_jax.agent.cores import cache as episodic
from trxl_jax.agent.cores.cache import EpisodicMemory
from trxl_jax.agent.cores.ring import RingBuffer
from trxl_jax.config import Config
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.spaces import DiscreteActions
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.ppo.acting import act
from trxl_jax.ppo.advantages import gae
from trxl_jax.ppo.minibatch import forward_minibatch, take_minibatch
from trxl_jax.ppo.observations import PlainObservations, SharedFrames
from trxl_jax.ppo.rollout import Rollout, Transition
from trxl_jax.ppo.update import apply_gradients, make_optimizer, normalise_advantage, ppo_loss
from trxl_jax.torch_import.weights import params_from_torch

DIRECTORIES = [GOLDEN, *map(Path, filter(None, [os.environ.get("TRXL_GOLDEN_DIR")]))]
MISSING = [str(directory) for directory in DIRECTORIES if not directory.is_dir()]
if MISSING:
    raise FileNotFoundError(f"no reference files: {MISSING}")
FILES = [path for directory in DIRECTORIES for path in sorted(directory.glob("*.npz"))]

FLOAT32 = 1e-5
# bfloat16 keeps 8 significant bits, so an entry of the cache is off by at most 2^-9 of itself. It passes a layer norm
# (which keeps relative errors) and an average over slots (which shrinks independent ones), then L residual layers:
# outputs stay within some 2^-7 of the largest. Losses average over samples and do better still.
BFLOAT16 = 2**-7


class Golden:
    """One reference file and the agent it was made with."""

    def __init__(self, path: Path, memory_dtype: str = "float32") -> None:
        self.data = dict(np.load(path))
        self.meta = json.loads(bytes(self.data.pop("meta")).decode())
        meta = self.meta
        self.config = Config(
            num_envs=meta["num_envs"],
            num_steps=meta["num_steps"],
            num_minibatches=1,
            total_timesteps=meta["num_envs"] * meta["num_steps"],
            trxl_positional_encoding=meta["trxl_positional_encoding"] or "none",
            memory_dtype=memory_dtype,  # type: ignore[arg-type]
            **{
                name: meta[name]
                for name in ("trxl_dim", "trxl_num_heads", "trxl_num_layers", "trxl_memory_length", "clip_coef",
                             "vf_coef", "norm_adv", "max_grad_norm", "reconstruction_coef", "gamma", "gae_lambda")
            },
        )  # fmt: skip
        dtype = np.dtype(np.uint8 if len(meta["obs_shape"]) == 3 else np.float32)
        self.spec = EnvSpec(
            tuple(meta["obs_shape"]), dtype, DiscreteActions(tuple(meta["actions"])), meta["max_episode_steps"]
        )
        self.agent: ActorCritic = make_agent(self.config, self.spec)
        self.params = self.tree("params")

    def tree(self, prefix: str) -> Any:
        """Arrays `prefix/NAME` as our variables."""
        return params_from_torch(
            {k.removeprefix(f"{prefix}/"): v for k, v in self.data.items() if k.startswith(f"{prefix}/")},
            self.agent,
        )

    def rollout(self, index: int) -> dict[str, np.ndarray]:
        prefix = f"rollout{index}/"
        return {k.removeprefix(prefix): v for k, v in self.data.items() if k.startswith(prefix)}

    def replay(self) -> list[dict[str, Any]]:
        """Acts through all rollouts with the file's actions; per rollout the outputs [T, N, ...] and the memory."""
        config, agent = self.config, self.agent
        memory = episodic.init(
            config.num_envs, agent.window, config.trxl_num_layers, config.trxl_dim, jnp.dtype(config.memory_dtype)
        )
        encode = jax.jit(lambda m: agent.apply(self.params, m.hidden, m.position, method="encode_slots"))

        @jax.jit
        def step(obs: jax.Array, slots: Any, slot: jax.Array, k: jax.Array) -> Any:
            encoded = agent.apply(self.params, obs, method="encode")
            return act(agent, self.params, encoded, RingBuffer(slots), slot, k)

        replayed = []
        for index in range(self.meta["rollouts"]):
            data = self.rollout(index)
            ring = encode(memory)
            memory = episodic.start_rollout(memory, config.num_steps)
            outputs = []
            for t in range(config.num_steps):
                assert_close("episode_step", memory.episode_step, data["episode_step"][t], 0)
                slot = jnp.int32(agent.window + t)
                out = step(data["obs"][t], ring, slot, memory.episode_step)
                outputs.append(out)
                memory = episodic.append(memory, slot, out.hidden)
                newest = np.argsort(np.arange(t + 1, slot + 1) % agent.window) + t + 1
                ring = [layer[:, :, newest] for layer in encode(memory)]
                memory = episodic.advance(memory, data["done"][t])
            last = step(data["next_obs"], ring, jnp.int32(agent.window + config.num_steps), memory.episode_step)
            stacked = jax.tree.map(lambda *x: jnp.stack(x), *outputs)
            replayed.append({"output": stacked, "last_value": last.value, "memory": memory, "data": data})
            memory = episodic.end_rollout(memory, agent.window)
        return replayed


def assert_close(name: str, ours: Any, theirs: Any, bound: float, terms: Any = 0.0) -> None:
    """Largest difference within `bound` of the reference's largest magnitude.

    A mean whose terms cancel has no more digits than they have: for it, `terms` are what it is the mean of.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{name}: {ours.shape} against {theirs.shape}"
    error = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), np.abs(terms).mean(), 1e-8)
    assert error <= bound, f"{name}: off by {error:.2e} of the largest magnitude, {bound:.0e} allowed"


def as_rollout(
    agent: ActorCritic, replayed: dict[str, Any], old_log_prob: np.ndarray, old_value: np.ndarray
) -> Rollout:
    data = replayed["data"]
    shape, obs = data["reward"].shape, jnp.asarray(data["obs"])
    return Rollout(
        observations=SharedFrames(obs, jnp.arange(shape[0] * shape[1]).reshape(shape))
        if agent.shares_frames
        else PlainObservations(obs),
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
    batch = take_minibatch(rollout, advantage, returns, index, agent.window)
    if config.norm_adv:
        batch = batch._replace(advantage=normalise_advantage(batch.advantage))
    memory: EpisodicMemory = rollout.memory

    def loss(params: Any) -> Any:
        slots = agent.apply(params, memory.hidden, memory.position, method="encode_slots")
        return ppo_loss(agent, params, batch, slots, config, jnp.float32(golden.meta["ent_coef"]))

    grads, metrics = jax.jit(jax.grad(loss, has_aux=True))(golden.params)
    return grads, metrics


@pytest.fixture(scope="module", params=FILES, ids=[path.stem for path in FILES])
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_reference_files() -> None:
    assert FILES


def test_forward_advantages_and_update(path: Path) -> None:
    golden = Golden(path)
    replay = golden.replay()
    for index, replayed in enumerate(replay):
        data, output = replayed["data"], replayed["output"]
        action = jnp.asarray(data["action"], jnp.int32)
        ours = {
            "logits": output.policy.logits,
            "value": output.value,
            "memory_out": output.hidden,
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


def test_bfloat16_cache_stays_close(path: Path) -> None:
    golden = Golden(path, "bfloat16")
    replay = golden.replay()
    for index, replayed in enumerate(replay):
        assert replayed["memory"].hidden.dtype == jnp.bfloat16
        data, output = replayed["data"], replayed["output"]
        for name, value in {"logits": output.policy.logits, "value": output.value, "memory_out": output.hidden}.items():
            assert_close(f"rollout{index}/{name}", value, data[name], BFLOAT16)
        assert_close("next_value", replayed["last_value"], data["next_value"], BFLOAT16)
    _, metrics = loss_and_gradients(golden, replay[-1])
    for name in ("value_loss", "entropy", "reconstruction_loss"):
        assert_close(name, metrics[f"losses/{name}"], golden.data[f"update/{name}"], BFLOAT16)


def test_ratios_are_one_before_the_first_update(path: Path) -> None:
    """Learning recomputes what acting said, first steps of episodes included."""
    golden = Golden(path, "bfloat16")
    for replayed in golden.replay():
        output, memory = replayed["output"], replayed["memory"]
        action = jnp.asarray(replayed["data"]["action"], jnp.int32)
        acted = output.policy.log_prob(action)
        rollout = as_rollout(golden.agent, replayed, np.asarray(acted), np.asarray(output.value))
        index = jnp.tile(jnp.arange(golden.config.num_steps), (golden.config.num_envs, 1))
        batch = take_minibatch(rollout, output.value, output.value, index, golden.agent.window)
        slots = golden.agent.apply(golden.params, memory.hidden, memory.position, method="encode_slots")
        learned = forward_minibatch(golden.agent, golden.params, batch, slots).policy.log_prob(batch.action)
        np.testing.assert_allclose(np.exp(learned - batch.log_prob), 1.0, atol=1e-5)
