"""Reference files of the original: what they hold, and the agent with which they were made."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.paths import GOLDEN
from trxl_jax.agent.actor_critic import ActorCritic, make_agent
from trxl_jax.agent.cores import cache as episodic
from trxl_jax.agent.cores.ring import RingBuffer
from trxl_jax.config import Config
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.spaces import DiscreteActions
from trxl_jax.ppo.acting import act
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
