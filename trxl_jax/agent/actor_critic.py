"""The actor-critic: encoder, memory transformer, heads. Acting and learning use the same forward pass."""

from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.agent.cores.attention import Slots
from trxl_jax.agent.cores.transformer_xl import TransformerXL
from trxl_jax.agent.decoder import PixelDecoder
from trxl_jax.agent.distributions import MultiCategorical, make_distribution, make_heads
from trxl_jax.agent.encoders import PixelEncoder, VectorEncoder
from trxl_jax.agent.initializers import CRITIC_GAIN, HIDDEN_GAIN, orthogonal_dense
from trxl_jax.agent.numerics import Numerics
from trxl_jax.config import Config
from trxl_jax.envs.base import EnvSpec, require_settings
from trxl_jax.errors import ConfigError


class AgentOutput(NamedTuple):
    """Output of the agent for Q steps in each of N environments.

    Fields:
        policy: distributions over actions, [N, Q].
        value: f32[N, Q].
        hidden: f32[N, Q, L, D], each layer's input, detached; what the memory stores.
        features: f32[N, Q, D], the input of `ActorCritic.reconstruct`.
    """

    policy: MultiCategorical
    value: jax.Array
    hidden: jax.Array
    features: jax.Array


class ActorCritic(nn.Module):
    """Policy and value from an observation and the episode's memory.

    Fields:
        spec: the task's observations and actions.
        num_layers: L.
        num_heads: H.
        dim: D.
        window: W.
        positional_encoding: absolute, learned or none.
        reconstruction: whether there is a decoder.
        numerics: platform and precision; the heads are always float32.
    """

    spec: EnvSpec
    num_layers: int
    num_heads: int
    dim: int
    window: int
    positional_encoding: str
    reconstruction: bool
    numerics: Numerics

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        encoder = PixelEncoder if self.spec.is_pixels else VectorEncoder
        self.encoder = encoder(self.dim, self.numerics)
        self.transformer = TransformerXL(
            self.num_layers,
            self.num_heads,
            self.dim,
            self.window,
            self.positional_encoding,
            self.spec.max_episode_steps,
            self.numerics,
        )
        self.post_transformer = orthogonal_dense(self.dim, self.dim, HIDDEN_GAIN, self.numerics)
        self.actor = make_heads(self.spec.action, self.dim, self.numerics.full_precision)
        self.critic = orthogonal_dense(1, self.dim, CRITIC_GAIN, self.numerics.full_precision)
        if self.reconstruction:
            self.decoder = PixelDecoder(self.numerics)

    def __call__(self, obs: jax.Array, slots: Slots, visible: jax.Array) -> AgentOutput:
        """Policy and value for Q observations per environment.

        Args:
            obs: [N, Q, *obs_shape].
            slots: for each layer [N, H, S, D / H], from `encode_slots`.
            visible: bool[N, Q, S], from `cores.visibility.visible_slots`.
        """
        chex.assert_shape(obs, (*visible.shape[:2], *self.spec.obs_shape))
        return self.decide(self.encode(obs), slots, visible)

    def encode(self, obs: jax.Array) -> jax.Array:
        """Observations [..., *obs_shape] to features f32[..., D]."""
        return self.encoder(obs)

    def encode_at(self, frames: jax.Array, indices: jax.Array, count: jax.Array, chunk: int = 32) -> jax.Array:
        """Features f32[B, D] of `frames[indices]`; see `PixelEncoder.encode_at`."""
        return self.encoder.encode_at(frames, indices, count, chunk)

    def decide(self, encoded: jax.Array, slots: Slots, visible: jax.Array) -> AgentOutput:
        """Everything after the encoder: encoded observations f32[N, Q, D], the rest as in `__call__`."""
        x, hidden = self.transformer(encoded, slots, visible)
        features = nn.relu(self.post_transformer(x))
        policy = make_distribution(self.spec.action, [head(features) for head in self.actor])
        value = jnp.squeeze(self.critic(features), axis=-1)
        return AgentOutput(policy, value, hidden, features)

    def encode_slots(self, hidden: jax.Array, position: jax.Array) -> Slots:
        """Cached hidden states [N, S, L, D] with positions i32[N, S] as keys and values; see `TransformerXL`."""
        return self.transformer.encode_slots(hidden, position)

    def reconstruct(self, features: jax.Array) -> jax.Array:
        """f32[N, Q, D] to logits of the pixels, f32[N, Q, 84, 84, 3]."""
        return self.decoder(features)

    def reconstruction_loss_at(self, features: jax.Array, frames: jax.Array, indices: jax.Array) -> jax.Array:
        """Loss f32[] of features f32[B, D] whose observations are `frames[indices]`; see `PixelDecoder`."""
        return self.decoder.reconstruction_loss_at(features, frames, indices)

    @nn.nowrap
    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Flax's `apply`, of arrays as for the method called, with products as precise as `numerics` says."""
        with self.numerics.precise():
            return super().apply(*args, **kwargs)

    @property
    def shares_frames(self) -> bool:
        """Whether each distinct frame is encoded once: images, on a CPU, where loops may run as often as needed."""
        return self.numerics.cpu_float32 and self.spec.is_pixels

    @property
    def slots_have_parameters(self) -> bool:
        """Whether `encode_slots` depends on parameters, so that gradients flow through it."""
        return self.positional_encoding == "learned"

    def init_params(self, key: jax.Array) -> chex.ArrayTree:
        """Fresh parameters f32 of every part, `{"params": ...}`, from a key[]."""

        def everything(agent: "ActorCritic") -> None:
            slots = agent.encode_slots(jnp.zeros((1, 1, self.num_layers, self.dim)), jnp.zeros((1, 1), jnp.int32))
            obs = jnp.zeros((1, 1, *self.spec.obs_shape), self.spec.obs_dtype)
            output = agent(obs, slots, jnp.ones((1, 1, 1), bool))
            if self.reconstruction:
                agent.reconstruct(output.features)

        return {"params": nn.init(everything, self)(key)["params"]}


def make_agent(config: Config, spec: EnvSpec, platform: str | None = None) -> ActorCritic:
    """The agent that a configuration describes.

    The window is cut to the task's longest episode, as in the original.

    Args:
        config: sizes and precision.
        spec: the task's observations and actions.
        platform: what to compile for, cpu, gpu or tpu; None: what JAX runs on. It changes the order of sums, no more.
            bfloat16 on a CPU takes the formulation for gpu and tpu, which is slow there but computes what they do.

    Raises:
        ConfigError: a reconstruction loss for vector observations, or settings of JAX that don't allow it.
    """
    require_settings()
    if config.reconstruction_coef > 0 and not spec.is_pixels:
        raise ConfigError(
            f"--reconstruction_coef {config.reconstruction_coef}: {config.env_id} has no pixels; set it to 0"
        )
    platform = platform or jax.default_backend()
    if platform == "cpu" and config.compute_dtype == "bfloat16":
        platform = "gpu"
    return ActorCritic(
        spec=spec,
        num_layers=config.trxl_num_layers,
        num_heads=config.trxl_num_heads,
        dim=config.trxl_dim,
        window=config.fitted_to(spec.max_episode_steps).trxl_memory_length,
        positional_encoding=config.trxl_positional_encoding,
        reconstruction=config.reconstruction_coef > 0,
        numerics=Numerics(platform, np.dtype(jnp.dtype(config.compute_dtype)), config.matmul_precision),
    )
