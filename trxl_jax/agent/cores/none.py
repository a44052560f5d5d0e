"""No memory: what can be had from the present observation alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from trxl_jax.agent.cores.base import Carry, Core, Queries


class NoMemory(Core):
    """y = x."""

    @nn.nowrap
    def init_carry(self, num_envs: int) -> Carry:
        """See `Core`."""
        return Carry(jnp.zeros(num_envs, jnp.int32))

    def start(self, carry: Carry, num_steps: int, segment_length: int = 1) -> None:
        """See `Core`."""
        return

    def step(self, x: jax.Array, state: None, t: jax.Array, episode_step: jax.Array) -> tuple[jax.Array, None]:
        """See `Core`."""
        return x, None

    def write(self, state: None, entry: None, t: jax.Array, episode_step: jax.Array) -> None:
        """See `Core`."""
        return

    @nn.nowrap
    def finish(self, state: None, episode_step: jax.Array) -> tuple[Carry, None]:
        """See `Core`."""
        return Carry(episode_step), None

    def learn(self, x: jax.Array, prepared: None, queries: Queries, segment_length: int = 1) -> jax.Array:
        """See `Core`."""
        return x
