"""A trained agent as a pure function: from an observation and a memory to an action and the next memory."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from trxl_jax.agent.actor_critic import ActorCritic, AgentOutput
from trxl_jax.agent.distributions import sampling_noise
from trxl_jax.agent.previous import Previous
from trxl_jax.config import Config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.envs.base import EnvSpec
from trxl_jax.envs.observations import ArraySpace
from trxl_jax.errors import ConfigError


@struct.dataclass
class PolicyMemory:
    """The memory of N environments between two steps; of a single environment, without the leading N.

    Fields:
        core: the core's state.
        steps: i32[], steps taken since `Policy.init`.
        episode_step: i32[N], the number of the next step in its episode.
        previous: what the last step did, if the agent reads it.
    """

    core: Any
    steps: jax.Array
    episode_step: jax.Array
    previous: Previous | None = None

    @property
    def is_single(self) -> bool:
        """Whether there is no axis N."""
        return self.episode_step.ndim == 0

    def squeeze(self) -> "PolicyMemory":
        """Without the axis N, which must be 1."""
        return self._map(partial(jnp.squeeze, axis=0))

    def unsqueeze(self) -> "PolicyMemory":
        """Inverse of `squeeze`."""
        return self._map(lambda x: x[None])

    def _map(self, function: Callable[[jax.Array], jax.Array]) -> "PolicyMemory":
        parts = (self.core, self.episode_step, self.previous)
        core, episode_step, previous = jax.tree.map(function, parts)
        return PolicyMemory(core, self.steps, episode_step, previous)


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
        memory = PolicyMemory(core, jnp.int32(0), carry.episode_step, self.agent.init_previous(num_envs or 1))
        return memory if num_envs is not None else memory.squeeze()

    @partial(jax.jit, static_argnames="deterministic")
    def step(
        self,
        obs: Any,
        memory: PolicyMemory,
        key: jax.Array | None = None,
        *,
        deterministic: bool = False,
        reward: Any = None,
    ) -> tuple[jax.Array, PolicyMemory]:
        """Acts.

        Args:
            obs: [*obs_shape] for the memory of one environment, or [N, *obs_shape] for that of N: an array, or a dict
                by the names of `agent.spec.obs.arrays`. `ObservationReader.read` makes it of what a Gymnasium
                environment with nested spaces returns.
            memory: as returned by the last call.
            key: source of the action's randomness; not needed if deterministic.
            deterministic: take the most probable action instead of sampling.
            reward: f32[] or f32[N], of the step before, anything in an episode's first; needed by agents that were
                trained with --previous_reward.

        Raises:
            ValueError: a key or a reward that is needed wasn't given.

        Returns:
            The action, i32[] if the environment's are Discrete (counted from 0), i32[A] if they are MultiDiscrete or
            MultiBinary, f32[K] if a Box, clipped to its bounds; arrays with several axes are flattened. Of Tuple and
            Dict spaces f32[C], the columns of one part after the other. With a leading N for N environments.
            `trxl_jax.NativeActions.read(action_space).unpack` makes of any of these but the first what an environment
            takes. And the next memory.
        """
        output, memory = self.decide(obs, memory, reward)
        action = choose(self.agent.spec, output, key, deterministic=deterministic)
        space = self.agent.spec.action
        is_single = isinstance(space, DiscreteActions) and space.num_columns == 1
        return action[..., 0] if is_single else space.clip(action), self.remember(memory, action)

    def remember(self, memory: PolicyMemory, action: jax.Array) -> PolicyMemory:
        """The memory that `decide` returned, after the action [C] or [N, C] was chosen."""
        previous = memory.previous and memory.previous._replace(action=action)
        return dataclasses.replace(memory, previous=previous)

    def reset(self, memory: PolicyMemory, done: Any) -> PolicyMemory:
        """Starts new episodes where bool[N] `done`: nothing from before is visible any more."""
        return dataclasses.replace(memory, episode_step=jnp.where(done, 0, memory.episode_step))

    @jax.jit
    def decide(self, obs: Any, memory: PolicyMemory, reward: Any = None) -> tuple[AgentOutput, PolicyMemory]:
        """The output from which `step` chooses an action, and the next memory; arguments as for `step`.

        Returns:
            The output [N], for one environment without the leading N; and the memory, which does not know yet which
            action is chosen: see `remember`.
        """
        if memory.is_single:
            reward = None if reward is None else jnp.asarray(reward)[None]
            output, memory = self.decide(_batch_of_one(obs), memory.unsqueeze(), reward)
            return jax.tree.map(lambda x: jnp.squeeze(x, axis=0), output), memory.squeeze()
        time = memory.steps, memory.episode_step
        obs = self._own_arrays(obs)
        x, mask = self._read(obs, memory, reward), self.agent.mask_of(obs)
        output, entry = self.agent.apply(self.params, x, memory.core, *time, mask, method="decide")
        core = self.agent.apply(self.params, memory.core, entry, *time, method="write")
        return output, PolicyMemory(core, memory.steps + 1, memory.episode_step + 1, memory.previous)

    @jax.jit
    def attention(self, obs: Any, memory: PolicyMemory, reward: Any = None) -> jax.Array:
        """The weights with which a step attends to earlier steps; arguments as for `step`.

        Returns:
            f32[N, L, H, W - 1], for one environment without N: `[..., j]` is the weight of the step j + 1 steps ago.
            A row sums to 1, with --trxl_see_self to less: the weight of the step itself is left out. The first step of
            an episode has no earlier ones to attend to, and its rows are zero.

        Raises:
            ConfigError: the agent's core doesn't attend.
        """
        core = self.agent.core
        if not core.attends:
            raise ConfigError(f"the core {type(core).__name__} attends to nothing; ask `agent.core.attends` first")
        if memory.is_single:
            reward = None if reward is None else jnp.asarray(reward)[None]
            return self.attention(_batch_of_one(obs), memory.unsqueeze(), reward)[0]
        inputs = self._read(self._own_arrays(obs), memory, reward), memory.core, memory.steps, memory.episode_step
        _, sown = self.agent.apply(self.params, *inputs, method="decide", mutable="intermediates")
        return core.weights_by_age(sown["intermediates"], memory.steps)

    def require(self, spec: EnvSpec) -> None:
        """Checks that a task has the observations and actions for which the agent was trained.

        Raises:
            ConfigError: it has others.
        """
        known = self.agent.spec
        if (spec.obs, spec.action) != (known.obs, known.action):
            raise ConfigError(
                f"the agent was trained on observations {known.obs} and actions {known.action}; "
                f"this task has {spec.obs} and {spec.action}"
            )

    def _own_arrays(self, obs: Any) -> Any:
        """The arrays of an observation that the agent knows."""
        space = self.agent.spec.obs
        if isinstance(space, ArraySpace):
            return jnp.asarray(obs)
        missing = [name for name in space.arrays if name not in obs]
        if missing:
            raise ValueError(f"the observation lacks {', '.join(missing)}; it needs {', '.join(space.arrays)}")
        return {name: jnp.asarray(obs[name]) for name in space.arrays}

    def _read(self, obs: Any, memory: PolicyMemory, reward: Any) -> jax.Array:
        """What the core gets, f32[N, D], of the agent's own arrays."""
        previous, reads = memory.previous, self.agent.previous
        if reads is not None and reads.reward and reward is None:
            raise ValueError("this agent reads the reward of the step before; give it as `reward`")
        if previous is not None and reward is not None:
            previous = previous._replace(reward=jnp.asarray(reward, jnp.float32))
        encoded = self.agent.apply(self.params, obs, method="encode")
        return self.agent.apply(self.params, encoded, previous, memory.episode_step, method="join")


def _batch_of_one(obs: Any) -> Any:
    return jax.tree.map(lambda array: jnp.asarray(array)[None], obs)


def choose(spec: EnvSpec, output: AgentOutput, key: jax.Array | None, *, deterministic: bool) -> jax.Array:
    """The most probable action or a sampled one, [..., C], for an output over [...]."""
    if deterministic:
        return output.policy.mode()
    if key is None:
        raise ValueError("a sampled action needs a key; or ask for deterministic=True")
    return output.policy.sample(sampling_noise(spec.action, key, output.value.shape))
