"""Reference files of the original: what they hold, and the agent with which they were made."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.attention import encode_slots
from tests.support.paths import GOLDEN
from trxl_jax.agent.actor_critic import ActorCritic, make_agent
from trxl_jax.agent.cores import cache as episodic
from trxl_jax.agent.cores.ring import RingBuffer
from trxl_jax.agent.cores.transformer_xl import AttentionState
from trxl_jax.config import Config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.observations import numbers, picture
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
    """One reference file and the agent it was made with, in the formulation for a platform."""

    def __init__(self, path: Path, memory_dtype: str = "float32", platform: str | None = None) -> None:
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
        obs = (picture if len(meta["obs_shape"]) == 3 else numbers)(*meta["obs_shape"])
        self.spec = EnvSpec(obs, DiscreteActions(tuple(meta["actions"])), meta["max_episode_steps"])
        self.agent: ActorCritic = make_agent(self.config, self.spec, platform)
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

    def act(self) -> list[dict[str, Any]]:
        """`replay` as training acts: what the core remembers is the core's affair, and weights are folded."""
        config, agent = self.config, self.agent
        params = agent.with_folded(self.params)
        memory = agent.core.init_carry(config.num_envs)

        @jax.jit
        def step(obs: jax.Array, state: Any, t: int, k: jax.Array) -> Any:
            encoded = agent.apply(params, obs, method="encode")
            output, hidden = agent.apply(params, encoded, state, jnp.int32(t), k, method="decide")
            return output, hidden, agent.apply(params, state, hidden, jnp.int32(t), k, method="write")

        acted = []
        for index in range(self.meta["rollouts"]):
            data, k, outputs = self.rollout(index), memory.episode_step, []
            state = agent.apply(params, memory, config.num_steps, method="start")
            for t in range(config.num_steps):
                output, hidden, state = step(data["obs"][t], state, t, k)
                outputs.append((output, hidden))
                k = jnp.where(data["done"][t], 0, k + 1)
            last, _, _ = step(data["next_obs"], state, config.num_steps, k)
            memory, record = agent.core.finish(state, k)
            output, hidden = jax.tree.map(lambda *x: jnp.stack(x), *outputs)
            acted.append({"output": output, "hidden": hidden, "last_value": last.value, "memory": record, "data": data})
        return acted

    def replay(self) -> list[dict[str, Any]]:
        """Acts through all rollouts with the file's actions; per rollout the outputs [T, N, ...] and the memory."""
        config, agent = self.config, self.agent
        window = agent.core.window
        memory = agent.core.init_carry(config.num_envs)
        encode = jax.jit(partial(encode_slots, agent, self.params))

        @jax.jit
        def step(obs: jax.Array, slots: Any, t: int, k: jax.Array) -> Any:
            encoded = agent.apply(self.params, obs, method="encode")
            state = AttentionState(RingBuffer(slots), None)
            return agent.apply(self.params, encoded, state, jnp.int32(t), k, method="decide")

        replayed = []
        for index in range(self.meta["rollouts"]):
            data = self.rollout(index)
            ring = encode(memory)
            cached, k = episodic.start_rollout(memory, config.num_steps), memory.episode_step
            outputs = []
            for t in range(config.num_steps):
                assert_close("episode_step", k, data["episode_step"][t], 0)
                slot = window + t
                out, hidden = step(data["obs"][t], ring, t, k)
                outputs.append((out, hidden))
                cached = episodic.append(cached, slot, hidden, k)
                newest = np.argsort(np.arange(t + 1, slot + 1) % window) + t + 1
                ring = [layer[:, :, newest] for layer in encode(cached)]
                k = jnp.where(data["done"][t], 0, k + 1)
            last, _ = step(data["next_obs"], ring, config.num_steps, k)
            output, hidden = jax.tree.map(lambda *x: jnp.stack(x), *outputs)
            replayed.append(
                {"output": output, "hidden": hidden, "last_value": last.value, "memory": cached, "data": data}
            )
            memory = episodic.end_rollout(cached, window, k)
        return replayed


def assert_close(name: str, ours: Any, theirs: Any, bound: float, terms: Any = 0.0) -> None:
    """Largest difference within `bound` of the reference's largest magnitude.

    A mean whose terms cancel has no more digits than they have: for it, `terms` are what it is the mean of.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{name}: {ours.shape} against {theirs.shape}"
    error = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), np.abs(terms).mean(), 1e-8)
    assert error <= bound, f"{name}: off by {error:.2e} of the largest magnitude, {bound:.0e} allowed"
