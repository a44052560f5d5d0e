"""The agent over slots in order of time: its cache encoded, and queries that see what they are told."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from trxl_jax.agent.actor_critic import ActorCritic, AgentOutput
from trxl_jax.agent.cores.visibility import Visibility


def encode_slots(agent: ActorCritic, params: Any, cached: Any) -> Any:
    """Cached hidden states, of a carry or a rollout, as keys and values."""
    return nn.apply(lambda bound: bound.core.encode_slots(cached.hidden, cached.position), agent)(params)


def seeing(visible: jax.Array) -> tuple[Visibility, jax.Array]:
    """What queries that see slots bool[N, Q, S] need to be told if their positions don't matter; and their steps."""
    steps = jnp.zeros(visible.shape[:2], jnp.int32)
    return Visibility(visible, steps, jnp.arange(visible.shape[2])), steps


def look(agent: ActorCritic, params: Any, obs: jax.Array, slots: Any, visible: jax.Array, **kwargs: Any) -> Any:
    """The output for observations [N, Q, ...] that see slots bool[N, Q, S]; `kwargs` are those of Flax's apply."""

    def forward(bound: ActorCritic) -> AgentOutput:
        return bound.heads(bound.core(bound.encode(obs), slots, *seeing(visible))[0])

    return nn.apply(forward, agent, **kwargs)(params)
