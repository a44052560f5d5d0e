"""The agent as it plays: what it decides in one step of some environments, and what it makes of the outcome."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from trxl_jax.agent.actor_critic import ActorCritic, AgentOutput
from trxl_jax.agent.cores import cache as episodic
from trxl_jax.agent.cores.attention import Slots
from trxl_jax.agent.cores.cache import EpisodicMemory, ring_slots, visible_slots
from trxl_jax.agent.cpu.frames import FrameTable, add_step
from trxl_jax.envs.base import EpisodeStats, TimeStep

_NEW_FRAMES_A_CHUNK = 16


class Part(NamedTuple):
    """Some of the environments, n, between two of their steps.

    Fields:
        obs: [n, *obs_shape], the next observations.
        memory: S slots.
        ring: [n, H, W, D / H] a layer: the newest slots as queries see them, encoded once, when written.
    """

    obs: jax.Array
    memory: EpisodicMemory
    ring: Slots


class Decision(NamedTuple):
    """What the agent did in a step; fields as in `rollout.Transition`."""

    obs: jax.Array | None
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    episode_step: jax.Array


class Outcome(NamedTuple):
    """What the environments made of it; fields as in `rollout.Transition`, `episode` as in `TimeStep`."""

    reward: jax.Array
    done: jax.Array
    episode: EpisodeStats


def act(
    agent: ActorCritic, params: Any, encoded: jax.Array, ring: Slots, slot: jax.Array, episode_step: jax.Array
) -> AgentOutput:
    """One step in every environment: Q = 1 on the W slots before `slot`.

    Args:
        agent: the model.
        params: its parameters.
        encoded: f32[N, D], from `ActorCritic.encode`.
        ring: [N, H, W, D / H] a layer; slot s has place s modulo W.
        slot: i32[], the slot in which this step is, or would be, written; at least W.
        episode_step: i32[N].

    Returns:
        The output without the query axis: logits f32[N, ...], value f32[N], hidden f32[N, L, D].
    """
    window = agent.window
    query_slot = jnp.broadcast_to(slot, (encoded.shape[0], 1))
    visible = visible_slots(query_slot, episode_step[:, None], ring_slots(slot, window), window)
    output = agent.apply(params, encoded[:, None], ring, visible, method="decide")
    return jax.tree.map(lambda x: jnp.squeeze(x, axis=1), output)


@dataclasses.dataclass(frozen=True)
class Player:
    """The agent under the parameters of one rollout.

    Fields:
        agent: the model.
        params: its parameters.
        gamma: discount of the bootstrap of truncated episodes.
        bootstrap_truncated: whether a truncated episode's last reward gets one.
    """

    agent: ActorCritic
    params: Any
    gamma: float
    bootstrap_truncated: bool

    def encode_slots(self, hidden: jax.Array, position: jax.Array) -> Slots:
        """Memory to what queries attend to; see `ActorCritic.encode_slots`."""
        return self.agent.apply(self.params, hidden, position, method="encode_slots")

    def _encode(self, obs: jax.Array) -> jax.Array:
        return self.agent.apply(self.params, obs, method="encode")

    def _encode_some(self, frames: jax.Array, count: jax.Array) -> jax.Array:
        places = jnp.arange(frames.shape[0])
        return self.agent.apply(self.params, frames, places, count, _NEW_FRAMES_A_CHUNK, method="encode_places")

    def decide(
        self, part: Part, table: FrameTable | None, place: jax.Array, slot: jax.Array, noise: jax.Array
    ) -> tuple[Part, FrameTable | None, Decision]:
        """Acts on the observations and writes the step to the memory; their frames begin at `place` in the table."""
        obs, memory, ring = part
        episode_step = memory.episode_step
        if table is None:
            encoded = self._encode(obs)
        else:
            table, encoded = add_step(table, place, obs, self._encode_some)
        output = act(self.agent, self.params, encoded, ring, slot, episode_step)
        action = output.policy.choose(noise)

        # Hidden states don't depend on the last layer's read of the ring. If the write didn't wait for it either, XLA
        # would copy the ring in every step, 12 ms in place of 7 at the defaults.
        hidden = output.hidden + 0.0 * output.value[:, None, None]
        memory = episodic.append(memory, slot, hidden)
        # Rounded as in the memory, so that acting sees what learning will see.
        entry = self.encode_slots(hidden[:, None].astype(memory.hidden.dtype), episode_step[:, None])
        ring = [
            jax.lax.dynamic_update_slice_in_dim(layer, new, slot % self.agent.window, axis=2)
            for layer, new in zip(ring, entry, strict=True)
        ]
        decision = Decision(
            obs=obs if table is None else None,  # the table keeps them
            action=action,
            log_prob=output.policy.log_prob(action),
            value=output.value,
            episode_step=episode_step,
        )
        return Part(obs, memory, ring), table, decision

    def observe(self, part: Part, step: TimeStep, slot: jax.Array, is_new: ArrayLike) -> tuple[Part, Outcome]:
        """Takes the outcome of the step in `slot`; if it isn't new, only its observations, which are the same."""
        done = step.terminated | step.truncated
        reward = step.reward
        if self.bootstrap_truncated:
            reward = reward + self._bootstrap(part, step, slot)
        memory = episodic.advance(part.memory, done)
        episode_step = jnp.where(is_new, memory.episode_step, part.memory.episode_step)
        memory = dataclasses.replace(memory, episode_step=episode_step)
        return part._replace(obs=step.obs, memory=memory), Outcome(reward, done, step.episode)

    def value(self, part: Part, slot: jax.Array) -> jax.Array:
        """f32[n], of the present observations, before their step is written to `slot`."""
        encoded = self._encode(part.obs)
        return act(self.agent, self.params, encoded, part.ring, slot, part.memory.episode_step).value

    def _bootstrap(self, part: Part, step: TimeStep, slot: jax.Array) -> jax.Array:
        def value() -> jax.Array:
            assert step.final_obs is not None, "the environment was built without send_final_obs"
            memory = episodic.advance(part.memory, jnp.zeros_like(step.truncated))
            return self.value(Part(step.final_obs, memory, part.ring), slot + 1)

        values = jax.lax.cond(step.truncated.any(), value, lambda: jnp.zeros_like(step.reward))
        # An episode that terminated and was truncated in the same step has no value left.
        return self.gamma * jnp.where(step.truncated & ~step.terminated, values, 0.0)
