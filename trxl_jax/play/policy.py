"""A trained agent as a pure function: from an observation and a memory to an action and the next memory."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax.agent.actor_critic import ActorCritic, AgentOutput
from trxl_jax.agent.distributions import sampling_noise
from trxl_jax.config import Config
from trxl_jax.envs.base import EnvSpec
from trxl_jax.errors import ConfigError


@struct.dataclass
class PolicyMemory:
    """The memory of N environments between two steps; of a single environment, without the leading N.

    Fields:
        core: the core's state.
        steps: i32[], steps taken since `Policy.init`.
        episode_step: i32[N], the number of the next step in its episode.
    """

    core: Any
    steps: jax.Array
    episode_step: jax.Array

    @property
    def is_single(self) -> bool:
        """Whether there is no axis N."""
        return self.episode_step.ndim == 0

    def squeeze(self) -> "PolicyMemory":
        """Without the axis N, which must be 1."""
        core, episode_step = jax.tree.map(lambda x: jnp.squeeze(x, axis=0), (self.core, self.episode_step))
        return PolicyMemory(core, self.steps, episode_step)

    def unsqueeze(self) -> "PolicyMemory":
        """Inverse of `squeeze`."""
        core, episode_step = jax.tree.map(lambda x: x[None], (self.core, self.episode_step))
        return PolicyMemory(core, self.steps, episode_step)


@struct.dataclass
class Policy:
    """An agent with its parameters. It acts exactly as in `collect_rollout`; all methods are pure and may be jitted.

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
        carry = self.agent.core.init_carry(num_envs or 1)
        core = self.agent.apply(self.params, carry, 0, method="start")
        memory = PolicyMemory(core, steps=jnp.int32(0), episode_step=carry.episode_step)
        return memory if num_envs is not None else memory.squeeze()

    @partial(jax.jit, static_argnames="deterministic")
    def step(
        self, obs: Any, memory: PolicyMemory, key: jax.Array | None = None, *, deterministic: bool = False
    ) -> tuple[jax.Array, PolicyMemory]:
        """Acts.

        Args:
            obs: [*obs_shape] for the memory of one environment, or [N, *obs_shape] for that of N.
            memory: as returned by the last call.
            key: source of the action's randomness; not needed if deterministic.
            deterministic: take the most probable action instead of sampling.

        Returns:
            The action as the environment takes it, i32[] if its actions are Discrete (counted from 0) and i32[A] if
            MultiDiscrete, with a leading N for N environments; and the next memory.
        """
        output, memory = self.decide(obs, memory)
        action = choose(self.agent.spec, output, key, deterministic=deterministic)
        return self.agent.spec.action.for_environment(action), memory

    def reset(self, memory: PolicyMemory, done: Any) -> PolicyMemory:
        """Starts new episodes where bool[N] `done`: nothing from before is visible any more."""
        return dataclasses.replace(memory, episode_step=jnp.where(done, 0, memory.episode_step))

    @jax.jit
    def decide(self, obs: Any, memory: PolicyMemory) -> tuple[AgentOutput, PolicyMemory]:
        """The output from which `step` chooses an action, and the next memory; arguments as for `step`.

        Returns:
            The output [N], for one environment without the leading N; and the memory.
        """
        if memory.is_single:
            output, memory = self.decide(jnp.asarray(obs)[None], memory.unsqueeze())
            return jax.tree.map(lambda x: jnp.squeeze(x, axis=0), output), memory.squeeze()
        time = memory.steps, memory.episode_step
        output, entry = self.agent.apply(self.params, self._encode(obs), memory.core, *time, method="decide")
        core = self.agent.apply(self.params, memory.core, entry, *time, method="write")
        return output, PolicyMemory(core, steps=memory.steps + 1, episode_step=memory.episode_step + 1)

    @jax.jit
    def attention(self, obs: Any, memory: PolicyMemory) -> jax.Array:
        """The weights with which a step attends to earlier steps; arguments as for `step`.

        Returns:
            f32[N, L, H, W - 1], for one environment without N: `[..., j]` is the weight of the step j + 1 steps ago.
            A row sums to 1; the first step of an episode has nothing to attend to, and its rows are zero.
        """
        if memory.is_single:
            return self.attention(jnp.asarray(obs)[None], memory.unsqueeze())[0]
        inputs = self._encode(obs), memory.core, memory.steps, memory.episode_step
        _, sown = self.agent.apply(self.params, *inputs, method="decide", mutable="intermediates")
        return self.agent.core.weights_by_age(sown["intermediates"], memory.steps)

    def require(self, spec: EnvSpec) -> None:
        """Checks that a task has the observations and actions for which the agent was trained.

        Raises:
            ConfigError: it has others.
        """
        known = self.agent.spec
        if (spec.obs_shape, spec.action) != (known.obs_shape, known.action):
            raise ConfigError(
                f"the agent was trained on observations {known.obs_shape} and actions {known.action}; "
                f"this task has {spec.obs_shape} and {spec.action}"
            )

    def _encode(self, obs: Any) -> jax.Array:
        return self.agent.apply(self.params, jnp.asarray(obs), method="encode")


def choose(spec: EnvSpec, output: AgentOutput, key: jax.Array | None, *, deterministic: bool) -> jax.Array:
    """The most probable action or a sampled one, [..., A], for an output over [...]."""
    if deterministic:
        return output.policy.mode()
    if key is None:
        raise ValueError("a sampled action needs a key; or ask for deterministic=True")
    return output.policy.sample(sampling_noise(spec.action, key, output.value.shape))
