"""The actor-critic: encoder, core, heads. Acting and learning use the same forward pass."""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.agent.accelerator import folding
from trxl_jax.agent.accelerator.heads import FoldedHeads, apply_heads, fold_heads, post_features, split_heads
from trxl_jax.agent.accelerator.layer_weights import Following
from trxl_jax.agent.cores.base import Core, Queries
from trxl_jax.agent.cores.registry import make_core, require_refreshable
from trxl_jax.agent.decoder import PixelDecoder, require_reconstructable
from trxl_jax.agent.distributions import ActionDistribution, make_distribution, make_heads
from trxl_jax.agent.encoders import PixelEncoder
from trxl_jax.agent.initializers import CRITIC_GAIN, HIDDEN_GAIN, orthogonal_dense
from trxl_jax.agent.normalization import (
    COLLECTION,
    Normalization,
    fresh_moments,
    fresh_observation_moments,
    make_normalization,
    normalise,
)
from trxl_jax.agent.numerics import Numerics
from trxl_jax.agent.observation_encoder import DictEncoder, flat_features, make_encoder
from trxl_jax.agent.previous import Previous, PreviousEncoder, PreviousInputs
from trxl_jax.config import Config
from trxl_jax.envs.base import EnvSpec, require_settings
from trxl_jax.envs.observations import arrays_of


class AgentOutput(NamedTuple):
    """Output of the agent for a batch of steps.

    Fields:
        policy: distributions over actions, [...].
        value: f32[...].
        features: f32[..., D], the input of `ActorCritic.reconstruct`.
    """

    policy: ActionDistribution
    value: jax.Array
    features: jax.Array


class ActorCritic(nn.Module):
    """Policy and value from an observation and what the core remembers.

    Fields:
        spec: the task's observations and actions.
        core: what lies between encoder and heads; its width D is that of all parts.
        previous: which parts of the step before are inputs; None: neither.
        reconstruction: whether there is a decoder.
        numerics: platform and precision; the heads are always float32.
        normalization: what running moments normalise; they are variables of the collection "normalization".
    """

    spec: EnvSpec
    core: Core
    previous: PreviousInputs | None
    reconstruction: bool
    numerics: Numerics
    normalization: Normalization = Normalization()

    # The parameters of TrXL are called "transformer", as in the first release; those of cores without a name "core".
    preserve_adopted_names: ClassVar[bool] = True

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        dim = self.core.dim
        self.encoder = make_encoder(self.spec.obs, dim, self.numerics)
        if self.previous is not None:
            self.previous_encoder = PreviousEncoder(self.previous, self.spec.action, dim, self.numerics)
        self.post_transformer = orthogonal_dense(dim, dim, HIDDEN_GAIN, self.numerics)
        self.actor = make_heads(self.spec.action, dim, self.numerics.full_precision)
        self.critic = orthogonal_dense(1, dim, CRITIC_GAIN, self.numerics.full_precision)
        if self.reconstruction:
            arrays = self.spec.obs.arrays
            decoders = {name: PixelDecoder(self.numerics, arrays[name].shape) for name in self.pictures}
            self.decoder = decoders.get("", decoders)
        if self.normalization.observations:
            self.moments = self.variable(COLLECTION, "observations", fresh_observation_moments, self.spec)
        if self.normalization.rewards:  # which are scaled where they are collected
            self.variable(COLLECTION, "rewards", fresh_moments)

    def encode(self, obs: Any) -> jax.Array:
        """Observations [..., *obs_shape] to features f32[..., D]."""
        arrays = self.spec.obs.arrays
        encoded = {name: x for name, x in arrays_of(obs).items() if arrays[name].kind != "mask"}
        return self.join_arrays({name: self.encode_array(x, name) for name, x in encoded.items()})

    def encode_array(self, array: jax.Array, name: str = "") -> jax.Array:
        """One array of the observations, [..., *shape], to features f32[..., D]."""
        space = self.spec.obs.arrays[name]
        if self.normalization.observations and space.kind == "numbers":
            moments = self.moments.value
            array = normalise(moments[name] if name else moments, array)
        return self._encoder_of(name)(array if space.kind == "picture" else flat_features(space, array))

    def encode_at(
        self, frames: jax.Array, indices: jax.Array, count: jax.Array, chunk: int = 32, name: str = ""
    ) -> jax.Array:
        """Features f32[B, D] of `frames[indices]`, [M, *shape] of one array; see `PixelEncoder.encode_at`."""
        return self._encoder_of(name).encode_at(frames, indices, count, chunk)

    def join_arrays(self, parts: dict[str, jax.Array]) -> jax.Array:
        """Features f32[..., D] of the observations from those of each array by name; a mask has none."""
        return self.encoder.join(parts) if isinstance(self.encoder, DictEncoder) else parts[""]

    @nn.nowrap
    def _encoder_of(self, name: str) -> Any:
        return self.encoder.parts[name] if isinstance(self.encoder, DictEncoder) else self.encoder

    def join(self, x: jax.Array, previous: Previous | None, episode_step: jax.Array) -> jax.Array:
        """Adds what the step before did, fields [...], to encoded observations f32[..., D] at steps i32[...]."""
        return x if previous is None else x + self.previous_encoder(previous, episode_step)

    @nn.nowrap
    def init_previous(self, num_envs: int) -> Previous | None:
        """What N environments did before their first step, arrays of zeros [N, ...]; None if it is no input."""
        if self.previous is None:
            return None
        return Previous(self.spec.action.zeros((num_envs,)), jnp.zeros(num_envs))

    def start(self, carry: Any, num_steps: int, segment_length: int = 1) -> Any:
        """The core's state before a rollout; see `Core.start`."""
        return self.core.start(carry, num_steps, segment_length)

    def decide(
        self, x: jax.Array, state: Any, t: jax.Array, episode_step: jax.Array, mask: jax.Array | None = None
    ) -> tuple[AgentOutput, Any]:
        """Output [N] for one step of each environment, and what the core is to remember of it; see `Core.step`.

        `mask`, bool[N, sum(nvec)], marks the valid actions.
        """
        y, entry = self.core.step(x, state, t, episode_step)
        return self.heads(y, mask), entry

    def write(self, state: Any, entry: Any, t: jax.Array, episode_step: jax.Array) -> Any:
        """The core's state after a step, arrays [N, ...]; see `Core.write`."""
        return self.core.write(state, entry, t, episode_step)

    def prepare(self, record: Any) -> Any:
        """What all minibatches of a rollout need of its record, arrays [N, ...]; see `Core.prepare`."""
        return self.core.prepare(record)

    def learn(
        self, x: jax.Array, prepared: Any, queries: Queries, segment_length: int = 1, mask: jax.Array | None = None
    ) -> AgentOutput:
        """Output [M, Q] for many steps at once; see `Core.learn`. `mask`, bool[M, Q, sum(nvec)]: the valid actions."""
        together = self._learn_through(x, prepared, queries, segment_length)
        if together is not None:
            features, outputs = together
            return self._output(features, *split_heads(folding.folded(self), outputs), mask)
        y = self.core.learn(x, prepared, queries, segment_length)
        output = self.heads(y, None if mask is None else mask.reshape(*y.shape[:-1], mask.shape[-1]))
        return jax.tree.map(lambda leaf: leaf.reshape(*x.shape[:-1], *leaf.shape[y.ndim - 1 :]), output)

    def heads(self, y: jax.Array, mask: jax.Array | None = None) -> AgentOutput:
        """Everything after the core: f32[..., D] to an output [...], with the valid actions bool[..., sum(nvec)]."""
        weights = None if self.is_initializing() else folding.folded(self)
        if weights is not None:
            features = post_features(weights, y)
            return self._output(features, *apply_heads(weights, features), mask)
        features = nn.relu(self.post_transformer(y))
        outputs = [head(features) for head in self.actor]
        return self._output(features, outputs, jnp.squeeze(self.critic(features), axis=-1), mask)

    @nn.nowrap
    def _output(
        self, features: jax.Array, outputs: list[jax.Array], value: jax.Array, mask: jax.Array | None
    ) -> AgentOutput:
        policy = make_distribution(self.spec.action, outputs, mask, one_by_one=self.numerics.accelerator)
        return AgentOutput(policy, value, features)

    def _learn_through(
        self, x: jax.Array, prepared: Any, queries: Queries, segment_length: int
    ) -> tuple[jax.Array, jax.Array] | None:
        """What the heads get, f32[M, Q, D], and give, where they are computed with the core; else None."""
        if not self._heads_fold:
            return None
        post, heads = self.post_transformer.variables["params"], folding.folded(self)
        following = Following(post["kernel"], post["bias"], heads.heads, heads.heads_bias)
        return self.core.learn_through(x, prepared, queries, segment_length, following)

    @property
    def _heads_fold(self) -> bool:
        return self.numerics.accelerator and all(isinstance(head, nn.Dense) for head in self.actor)

    def fold(self) -> FoldedHeads | None:
        """The heads' weights, on GPUs and TPUs; see `folding`."""
        if not self._heads_fold:
            return None
        post, *heads = (part.variables["params"] for part in (self.post_transformer, *self.actor, self.critic))
        return fold_heads(post, heads, self.numerics.dtype)

    def fold_all(self) -> dict[str, Any]:
        """The collection of what all parts fold."""
        parts = self.encoder.parts.values() if isinstance(self.encoder, DictEncoder) else [self.encoder]
        return folding.collect([self, self.core, *(part for part in parts if isinstance(part, PixelEncoder))])

    @nn.nowrap
    def with_folded(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The variables and what depends on them alone, computed once for many steps; on CPUs nothing is added."""
        if not self.numerics.accelerator:
            return variables
        return {**variables, folding.COLLECTION: self.apply(variables, method="fold_all")}

    def reconstruct(self, features: jax.Array, name: str = "") -> jax.Array:
        """f32[..., D] to logits of the pixels of one picture of the observations, f32[..., *shape]."""
        return self._decoder_of(name)(features)

    def reconstruction_loss_at(
        self, features: jax.Array, frames: jax.Array, indices: jax.Array, name: str = ""
    ) -> jax.Array:
        """Loss f32[] of features f32[B, D] whose pictures are `frames[indices]`; see `PixelDecoder`."""
        return self._decoder_of(name).reconstruction_loss_at(features, frames, indices)

    @nn.nowrap
    def _decoder_of(self, name: str) -> Any:
        return self.decoder[name] if name else self.decoder

    @nn.nowrap
    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Flax's `apply`, of arrays as for the method called, with products as precise as `numerics` says."""
        with self.numerics.precise():
            return super().apply(*args, **kwargs)

    @nn.nowrap
    def mask_of(self, obs: Any) -> jax.Array | None:
        """The mask of valid actions bool[..., sum(nvec)] in observations [..., *obs_shape]; None: there is none."""
        masks = [name for name, array in self.spec.obs.arrays.items() if array.kind == "mask"]
        return obs[masks[0]] > 0 if masks else None

    @property
    def pictures(self) -> list[str]:
        """Names of the pictures among the arrays of the observations."""
        return [name for name, array in self.spec.obs.arrays.items() if array.kind == "picture"]

    def shares_frames(self, name: str = "") -> bool:
        """Whether each distinct picture is encoded once: on a CPU, where loops may run as often as needed."""
        return self.numerics.cpu_float32 and name in self.pictures

    def init_params(self, key: jax.Array) -> dict[str, Any]:
        """Fresh variables f32 from a key[]: `{"params": ...}` of every part, and "normalization" if there is any."""

        def everything(agent: "ActorCritic") -> None:
            carry = agent.core.init_carry(1)
            state = agent.start(carry, 1)
            x = agent.encode(jax.tree.map(jnp.asarray, self.spec.zero_obs(1)))
            x = agent.join(x, self.init_previous(1), carry.episode_step)
            output, _ = agent.decide(x, state, jnp.int32(0), carry.episode_step)
            for name in self.pictures if self.reconstruction else ():
                agent.reconstruct(output.features[None], name)

        variables = nn.init(everything, self)(key)
        return {name: variables[name] for name in ("params", COLLECTION) if name in variables}


def make_agent(config: Config, spec: EnvSpec, platform: str | None = None, core: Core | None = None) -> ActorCritic:
    """The agent that a configuration describes.

    The window is cut to the number of positions (E), as in the original.

    Args:
        config: sizes and precision.
        spec: the task's observations and actions.
        platform: what to compile for, cpu, gpu or tpu; None: what JAX runs on. It changes the order of sums, no more.
            bfloat16 on a CPU takes the formulation for gpu and tpu, which is slow there but computes what they do.
        core: a core of one's own instead of the one that `config` names; see `cores.base`.

    Raises:
        ConfigError: a reconstruction loss of observations that no decoder gives, no observations to normalise, a memory
            to refresh that the core doesn't have, or settings of JAX that don't allow it.
    """
    require_settings()
    # A traced coefficient, as in a sweep within one program, may be anything.
    reconstruction = not isinstance(config.reconstruction_coef, int | float) or config.reconstruction_coef > 0
    if reconstruction:
        require_reconstructable(config, spec.obs)
    platform = platform or jax.default_backend()
    if platform == "cpu" and config.compute_dtype == "bfloat16":
        platform = "gpu"
    previous = PreviousInputs(action=config.previous_action, reward=config.previous_reward)
    numerics = Numerics(platform, np.dtype(jnp.dtype(config.compute_dtype)), config.matmul_precision)
    core = make_core(config.fitted_to(spec.max_episode_steps), numerics) if core is None else core
    require_refreshable(config, core)
    return ActorCritic(
        spec=spec,
        core=core,
        previous=previous if previous.action or previous.reward else None,
        reconstruction=reconstruction,
        numerics=numerics,
        normalization=make_normalization(config, spec),
    )
