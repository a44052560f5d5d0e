"""A trained agent as a pure function: an observation and a memory to an action and the next memory."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax.agent.actor_critic import ActorCritic, AgentOutput
from trxl_jax.agent.cores import cache as episodic
from trxl_jax.agent.cores.attention import Slots
from trxl_jax.config import Config
from trxl_jax.envs.base import EnvSpec
from trxl_jax.errors import ConfigError
from trxl_jax.ppo.acting import act


@struct.dataclass
class PolicyMemory:
    """What an agent remembers between two steps of N environments; of a single one, without the leading N.

    Fields:
        ring: for each layer f32[N, H, W, D / H], the W newest slots as queries see them; slot s has place s modulo W.
        slot: i32[], the slot that is written next, the same everywhere; at least W.
        episode_step: i32[N], the episode step that comes next.
    """

    ring: Slots
    slot: jax.Array
    episode_step: jax.Array


@struct.dataclass
class Policy:
    """An agent with its parameters. Acting is what `collect_rollout` does; all methods are pure and may be jitted.

    Fields:
        params: the agent's variables.
        agent: the model.
        config: the configuration with which it was trained.
    """

    params: Any
    agent: ActorCritic = struct.field(pytree_node=False)
    config: Config = struct.field(pytree_node=False)

    @partial(jax.jit, static_argnames="num_envs")
    def init(self, num_envs: int | None = None) -> PolicyMemory:
        """The memory at the start of an episode: of one environment, or of N, whose arrays have a leading N."""
        agent = self.agent
        blank = episodic.init(
            num_envs or 1, agent.window, agent.num_layers, agent.dim, jnp.dtype(self.config.memory_dtype)
        )
        ring = self._encode_slots(blank.hidden, blank.position)
        memory = PolicyMemory(ring=ring, slot=jnp.int32(agent.window), episode_step=blank.episode_step)
        return memory if num_envs is not None else _single(memory)

    @partial(jax.jit, static_argnames="deterministic")
    def step(
        self, obs: Any, memory: PolicyMemory, key: jax.Array | None = None, *, deterministic: bool = False
    ) -> tuple[jax.Array, PolicyMemory]:
        """Acts.

        Args:
            obs: [*obs_shape] for the memory of one environment, or [N, *obs_shape] for that of N.
            memory: as the last call returned it.
            key: source of the action; not needed if deterministic.
            deterministic: the most probable action in place of a sampled one.

        Returns:
            The action, i32[] if the task's actions are Discrete (counted from 0) and i32[A] if MultiDiscrete, with a
            leading N for N environments; and the next memory.
        """
        output, memory = self.decide(obs, memory)
        action = choose(output, key, deterministic=deterministic)
        return action if len(self.agent.spec.action_nvec) > 1 else jnp.squeeze(action, axis=-1), memory

    def reset(self, memory: PolicyMemory, done: Any) -> PolicyMemory:
        """Starts new episodes where bool[N] `done`: nothing from before is seen again."""
        return dataclasses.replace(memory, episode_step=jnp.where(done, 0, memory.episode_step))

    @jax.jit
    def decide(self, obs: Any, memory: PolicyMemory) -> tuple[AgentOutput, PolicyMemory]:
        """What `step` chooses from, and the memory after this step, whatever is chosen; arguments as for `step`.

        Returns:
            The output without the query axis, as of `act`, for one environment without the leading N either.
        """
        if memory.episode_step.ndim == 0:
            output, memory = self.decide(jnp.asarray(obs)[None], _batch_of_one(memory))
            return jax.tree.map(lambda x: jnp.squeeze(x, axis=0), output), _single(memory)
        slot, episode_step = memory.slot, memory.episode_step
        output = act(self.agent, self.params, self._encode(obs), memory.ring, slot, episode_step)
        # Rounded as in the memory of a rollout.
        hidden = output.hidden[:, None].astype(jnp.dtype(self.config.memory_dtype))
        entry = self._encode_slots(hidden, episode_step[:, None])
        place = slot % self.agent.window
        ring = [
            jax.lax.dynamic_update_slice_in_dim(layer, new, place, axis=2)
            for layer, new in zip(memory.ring, entry, strict=True)
        ]
        return output, PolicyMemory(ring=ring, slot=slot + 1, episode_step=episode_step + 1)

    @jax.jit
    def attention(self, obs: Any, memory: PolicyMemory) -> jax.Array:
        """Weights with which a step attends to those before it; arguments as for `step`.

        Returns:
            f32[N, L, H, W - 1], of one environment without N: `[..., j]` is the weight of the step j + 1 ago. A row
            sums to 1; an episode's first step sees nothing, and its rows are zero.
        """
        if memory.episode_step.ndim == 0:
            return self.attention(jnp.asarray(obs)[None], _batch_of_one(memory))[0]
        window = self.agent.window
        query_slot = jnp.broadcast_to(memory.slot, (memory.episode_step.shape[0], 1))
        slots = episodic.ring_slots(memory.slot, window)
        visible = episodic.visible_slots(query_slot, memory.episode_step[:, None], slots, window)
        agent, encoded = self.agent, self._encode(obs)[:, None]
        _, sown = agent.apply(self.params, encoded, memory.ring, visible, method="decide", mutable="intermediates")
        layers = sown["intermediates"]["transformer"]
        weights = jnp.stack([layers[f"layers_{i}"]["attention"]["weights"][0] for i in range(agent.num_layers)], axis=1)
        ages = jnp.arange(1, window)
        return jnp.squeeze(weights, axis=3)[..., (memory.slot - ages) % window]

    def require(self, spec: EnvSpec) -> None:
        """Checks that a task has the observations and actions that the agent knows.

        Raises:
            ConfigError: it has others.
        """
        known = self.agent.spec
        if (spec.obs_shape, spec.action_nvec) != (known.obs_shape, known.action_nvec):
            raise ConfigError(
                f"the agent was trained on observations {known.obs_shape} and actions {known.action_nvec}; "
                f"this task has {spec.obs_shape} and {spec.action_nvec}"
            )

    def _encode(self, obs: Any) -> jax.Array:
        return self.agent.apply(self.params, jnp.asarray(obs), method="encode")

    def _encode_slots(self, hidden: jax.Array, position: jax.Array) -> Slots:
        return self.agent.apply(self.params, hidden, position, method="encode_slots")


def choose(output: AgentOutput, key: jax.Array | None, *, deterministic: bool) -> jax.Array:
    """The most probable action or a sampled one, i32[..., A]."""
    if deterministic:
        return output.policy.mode()
    if key is None:
        raise ValueError("a sampled action needs a key; or ask for deterministic=True")
    return output.policy.sample(key)


def _single(memory: PolicyMemory) -> PolicyMemory:
    ring = [jnp.squeeze(layer, axis=0) for layer in memory.ring]
    return dataclasses.replace(memory, ring=ring, episode_step=jnp.squeeze(memory.episode_step, axis=0))


def _batch_of_one(memory: PolicyMemory) -> PolicyMemory:
    return dataclasses.replace(
        memory, ring=[layer[None] for layer in memory.ring], episode_step=memory.episode_step[None]
    )
