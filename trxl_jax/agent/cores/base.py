"""The contract of cores: what may stand between encoder and heads, and how it remembers.

A core maps the encoded observation x of a step, and the past of its environment, to y, from which the heads choose.
It remembers in a *carry*. A rollout of T steps begins with `start`, calls `step` and `write` once a step, and ends with
`finish`, which returns the next carry and what learning needs of the rollout. Learning calls `prepare` on that, and
`learn` on minibatches. Nothing else in the project knows what the carry holds.

Two rules hold for every core:

- A step whose `episode_step` is 0 starts an episode: nothing from before may change its y, or that of the steps after
  it. Nobody clears the carry.
- With unchanged parameters `learn` gives what `step` gave: PPO's ratios are then 1.

A core of one's own:

1. Is its past a state, an array or several, that each step replaces? Then inherit from `recurrent.RecurrentCore`, which
   does everything else: write `initial_state` and `step_state`.
2. Otherwise inherit from `Core` and write its methods; `none.NoMemory` is the smallest, `transformer_xl` attends.
   If yours attends and its weights are to be shown, write `attends` and `weights_by_age` too.
3. Give the object to `make_agent(config, spec, core=...)`, or name what makes it to all commands: `--core module:name`
   calls `name(config, numerics)`.
4. Check both rules as `tests/agent/test_cores.py` does.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax import struct

from trxl_jax.agent.accelerator.layer_weights import Following


class Queries(NamedTuple):
    """The steps of a rollout that a learning pass computes: segments of G consecutive steps, one after the other.

    Fields:
        step: i32[M, Q], the number of each step in its rollout, counted from 0; Q is a multiple of G.
        episode_step: i32[M, Q], its step in its episode.
        env: i32[M], the environment of each row; None: row n is of environment n, and M = N.
    """

    step: jax.Array
    episode_step: jax.Array
    env: jax.Array | None = None


@struct.dataclass
class Carry:
    """What a core keeps of N environments from one rollout to the next; part of every checkpoint.

    Cores that remember add fields; every array has a leading N.

    Fields:
        episode_step: i32[N], the episode step that comes next.
    """

    episode_step: jax.Array


class Core(nn.Module):
    """What lies between encoder and heads. In all methods N environments come first, and D is the core's width.

    Fields:
        dim: D.
    """

    dim: int

    @property
    def prepares_with_parameters(self) -> bool:
        """Whether `prepare` depends on parameters: learning then calls it in every minibatch, with gradients."""
        return False

    @property
    def attends(self) -> bool:
        """Whether `weights_by_age` says what a step attends to."""
        return False

    def fold(self) -> Any:
        """What `step` needs of parameters alone; None: nothing worth it. Computed once a rollout: see `folding`."""
        return None

    @nn.nowrap
    def init_carry(self, num_envs: int) -> Any:
        """The `Carry` of N environments that start their first episodes; no parameters are needed."""
        raise NotImplementedError

    def start(self, carry: Any, num_steps: int, segment_length: int = 1) -> Any:
        """The state before a rollout.

        Args:
            carry: of N environments; `episode_step` is not for the core.
            num_steps: T; 0: nothing will be learned, so that nothing need be recorded, and there is no last step.
            segment_length: G, the number of consecutive steps through which learning's gradients will flow.

        Returns:
            A pytree of arrays [N, ...].
        """
        raise NotImplementedError

    def step(self, x: jax.Array, state: Any, t: jax.Array, episode_step: jax.Array) -> tuple[jax.Array, Any]:
        """One step of each environment; the state isn't changed.

        Args:
            x: f32[N, D], encoded observations.
            state: from `start` or `write`.
            t: i32[], the number of the step since `start`.
            episode_step: i32[N].

        Returns:
            y f32[N, D], and what `write` is to remember of the step, arrays f32[N, ...].
        """
        raise NotImplementedError

    def write(self, state: Any, entry: Any, t: jax.Array, episode_step: jax.Array) -> Any:
        """The state after a step; arguments and arrays [N, ...] as for `step`, and `entry`, which it returned."""
        raise NotImplementedError

    @nn.nowrap
    def finish(self, state: Any, episode_step: jax.Array) -> tuple[Any, Any]:
        """The carry after a rollout, with `episode_step` i32[N] in it, and the record from which it is learned."""
        raise NotImplementedError

    @nn.nowrap
    def carry_of(self, record: Any, episode_step: jax.Array) -> Any:
        """The carry with which a rollout began; cores that have it can recompute a rollout under other parameters.

        Args:
            record: from `finish`, arrays [N, K, ...]; what the rollout itself wrote are the last T of K, or all.
            episode_step: i32[N], of the rollout's first steps.
        """
        raise NotImplementedError

    def prepare(self, record: Any) -> Any:
        """What all minibatches of a rollout need of its record, arrays [N, ...]."""
        return record

    def learn(self, x: jax.Array, prepared: Any, queries: Queries, segment_length: int = 1) -> jax.Array:
        """The y of many steps at once.

        Args:
            x: f32[M, Q, D], encoded observations of the steps.
            prepared: from `prepare`.
            queries: which steps.
            segment_length: G: gradients flow from a step to the steps before it in its segment, and no further.

        Returns:
            f32[..., D], the M * Q steps in order, in whatever shape they were computed.
        """
        raise NotImplementedError

    def learn_through(
        self,
        x: jax.Array,
        prepared: Any,
        queries: Queries,
        segment_length: int,
        following: Following,
    ) -> tuple[jax.Array, jax.Array] | None:
        """`learn` and what follows, on accelerators; None: they are computed one after the other.

        Arguments as for `learn`, and the parameters of what follows. Returns what the heads get, f32[M, Q, D], and
        give, f32[M, Q, K].
        """
        return None

    @nn.nowrap
    def weights_by_age(self, sown: Any, t: jax.Array) -> jax.Array:
        """Attention weights of a call of `step`, from what its modules have sown; only for cores that attend.

        Args:
            sown: the collection "intermediates" of the agent.
            t: i32[], as given to `step`.

        Returns:
            f32[N, L, H, W - 1]: `[..., j]` is the weight of the step j + 1 steps before. The step's own is left out.
        """
        raise NotImplementedError
