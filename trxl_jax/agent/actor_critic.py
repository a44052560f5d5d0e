"""The actor-critic: encoder, memory transformer, heads. The same call acts and learns."""

from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from trxl_jax.agent.cores.attention import Slots
from trxl_jax.agent.cores.transformer_xl import TransformerXL
from trxl_jax.agent.decoder import PixelDecoder
from trxl_jax.agent.distributions import MultiCategorical
from trxl_jax.agent.encoders import PixelEncoder, VectorEncoder
from trxl_jax.agent.initializers import ACTOR_GAIN, CRITIC_GAIN, HIDDEN_GAIN, orthogonal_dense
from trxl_jax.config import Config
from trxl_jax.envs.base import EnvSpec
from trxl_jax.errors import ConfigError


class AgentOutput(NamedTuple):
    """What the agent says of Q steps in each of N environments.

    Fields:
        policy: distributions over [N, Q].
        value: f32[N, Q].
        hidden: f32[N, Q, L, D], detached; what the memory is to keep.
        features: f32[N, Q, D], from which `ActorCritic.reconstruct` draws the observation.
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
        platform: what it is compiled for: cpu, gpu or tpu.
        dtype: of the factors of products; parameters, sums, the heads and all results are float32.
    """

    spec: EnvSpec
    num_layers: int
    num_heads: int
    dim: int
    window: int
    positional_encoding: str
    reconstruction: bool = False
    platform: str = "cpu"
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        pixels = len(self.spec.obs_shape) > 1
        self.encoder = PixelEncoder(self.dim, self.platform, self.dtype) if pixels else VectorEncoder(self.dim)
        self.transformer = TransformerXL(
            self.num_layers,
            self.num_heads,
            self.dim,
            self.window,
            self.positional_encoding,
            self.spec.max_episode_steps,
            self.platform,
            self.dtype,
        )
        self.post_transformer = orthogonal_dense(self.dim, self.dim, HIDDEN_GAIN, dtype=self.dtype)
        self.actor = [orthogonal_dense(n, self.dim, ACTOR_GAIN) for n in self.spec.action_nvec]
        self.critic = orthogonal_dense(1, self.dim, CRITIC_GAIN)
        if self.reconstruction:
            self.decoder = PixelDecoder(self.dtype)

    def __call__(self, obs: jax.Array, slots: Slots, visible: jax.Array) -> AgentOutput:
        """Looks at Q observations per environment.

        Args:
            obs: [N, Q, *obs_shape].
            slots: for each layer [N, H, S, D / H], from `encode_slots`.
            visible: bool[N, Q, S], from `memory.visible_slots`.
        """
        chex.assert_shape(obs, (*visible.shape[:2], *self.spec.obs_shape))
        return self.decide(self.encode(obs), slots, visible)

    def encode(self, obs: jax.Array) -> jax.Array:
        """Observations [..., *obs_shape] to what `decide` takes, f32[..., D]."""
        return self.encoder(obs)

    def encode_places(self, pool: jax.Array, places: jax.Array, count: jax.Array, chunk: int = 32) -> jax.Array:
        """Frames picked from a pool to f32[B, D]; see `PixelEncoder.pick`."""
        return self.encoder.pick(pool, places, count, chunk)

    def decide(self, encoded: jax.Array, slots: Slots, visible: jax.Array) -> AgentOutput:
        """The agent behind its encoder: f32[N, Q, D], and the rest as in `__call__`."""
        x, hidden = self.transformer(encoded, slots, visible)
        features = nn.relu(self.post_transformer(x))
        logits = jnp.concatenate([branch(features) for branch in self.actor], axis=-1)
        value = jnp.squeeze(self.critic(features), axis=-1)
        return AgentOutput(MultiCategorical(logits, self.spec.action_nvec), value, hidden, features)

    def encode_slots(self, hidden: jax.Array, position: jax.Array) -> Slots:
        """Memory [N, S, L, D] with positions i32[N, S] to what queries attend to; see `TransformerXL`."""
        return self.transformer.encode_slots(hidden, position)

    def reconstruct(self, features: jax.Array) -> jax.Array:
        """f32[N, Q, D] to logits of the pixels, f32[N, Q, 84, 84, 3]."""
        return self.decoder(features)

    @property
    def shares_frames(self) -> bool:
        """Whether each distinct frame is encoded once: pixels, on a CPU, whose loops may run as often as needed."""
        return self.platform == "cpu" and len(self.spec.obs_shape) > 1

    @property
    def slots_have_parameters(self) -> bool:
        """Whether `encode_slots` depends on parameters, so that gradients flow through it."""
        return self.positional_encoding == "learned"

    def init_params(self, key: jax.Array) -> chex.ArrayTree:
        """Fresh parameters, of every part."""

        def everything(agent: "ActorCritic") -> None:
            slots = agent.encode_slots(jnp.zeros((1, 1, self.num_layers, self.dim)), jnp.zeros((1, 1), jnp.int32))
            obs = jnp.zeros((1, 1, *self.spec.obs_shape), self.spec.obs_dtype)
            output = agent(obs, slots, jnp.ones((1, 1, 1), bool))
            if self.reconstruction:
                agent.reconstruct(output.features)

        return {"params": nn.init(everything, self)(key)["params"]}


def make_agent(config: Config, spec: EnvSpec, platform: str | None = None) -> ActorCritic:
    """The agent that a configuration asks for.

    The window is cut to the task's longest episode, as in the original.

    Args:
        config: sizes.
        spec: the task's observations and actions.
        platform: what to compile for, cpu, gpu or tpu; None: what JAX runs on. It changes the order of sums, no more.
            bfloat16 on a CPU takes the formulation for gpu and tpu, which is slow there, but shows what they compute.

    Raises:
        ConfigError: a reconstruction loss for vector observations.
    """
    if config.reconstruction_coef > 0 and len(spec.obs_shape) == 1:
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
        window=min(config.trxl_memory_length, spec.max_episode_steps),
        positional_encoding=config.trxl_positional_encoding,
        reconstruction=config.reconstruction_coef > 0,
        platform=platform,
        dtype=jnp.dtype(config.compute_dtype),
    )
