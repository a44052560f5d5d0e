"""The update: epochs of minibatches over one rollout, one optimiser step each."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from trxl_jax.agent.accelerator.splitting import one
from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.config import Config
from trxl_jax.errors import ConfigError, brief
from trxl_jax.ppo.flat import AdamW, AsTree, Elementwise, Flat
from trxl_jax.ppo.groups import Grouping, Whole
from trxl_jax.ppo.minibatch import (
    Minibatch,
    MinibatchSteps,
    Segments,
    assemble,
    forward_minibatch,
    minibatch_segments,
    take_steps,
)
from trxl_jax.ppo.minibatch_losses import losses, losses_in_few_kernels
from trxl_jax.ppo.moments import split
from trxl_jax.ppo.packing import scan_stacked
from trxl_jax.ppo.refresh import recompute_memory
from trxl_jax.ppo.rollout import Rollout

WHOLE = Whole()
Metrics = dict[str, jax.Array]
LossFn = Callable[[ActorCritic, Any, Minibatch, Any, Config, jax.Array], tuple[jax.Array, Metrics]]
"""A loss of a minibatch, and metrics; arguments as for `ppo_loss`."""


@struct.dataclass
class TrainState:
    """What is carried from one update to the next.

    Fields:
        params: the agent's variables.
        opt_state: the optimiser's state, of those that are learned.
        iteration: i32[], updates done.
    """

    params: Any
    opt_state: Any
    iteration: jax.Array


def make_optimizer() -> optax.GradientTransformation:
    """AdamW with PyTorch's defaults and decay on every parameter; `update` multiplies its steps by -learning rate."""
    return AdamW.make()


def annealed(config: Config, iteration: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Learning rate and entropy coefficient at the start of an iteration, each f32[]."""
    init_lr, init_ent_coef = jnp.float32(config.init_lr), jnp.float32(config.init_ent_coef)
    if config.anneal_steps == 0:
        return init_lr, init_ent_coef
    global_step = iteration.astype(jnp.float32) * config.batch_size
    fraction = jnp.maximum(0.0, 1.0 - global_step / float(config.anneal_steps))
    learning_rate = config.final_lr + (init_lr - config.final_lr) * fraction
    ent_coef = config.final_ent_coef + (init_ent_coef - config.final_ent_coef) * fraction
    return learning_rate, ent_coef


def ppo_loss(
    agent: ActorCritic, params: Any, batch: Minibatch, prepared: Any, config: Config, ent_coef: jax.Array
) -> tuple[jax.Array, Metrics]:
    """The loss of a minibatch and its metrics.

    Args:
        agent: the model.
        params: its parameters.
        batch: its steps; advantages are taken as they are.
        prepared: from `ActorCritic.prepare`.
        config: coefficients.
        ent_coef: f32[], the entropy coefficient.

    Returns:
        The loss f32[], and metrics f32[] by name.
    """
    output = forward_minibatch(agent, params, batch, prepared, config.segment_length)
    if agent.numerics.accelerator:
        loss, metrics = losses_in_few_kernels(output.policy, output.value, batch.targets, config, ent_coef)
    else:
        loss, metrics = losses(output.policy, output.value, batch.targets, config, ent_coef)
    reconstruction = jnp.float32(0)
    if agent.reconstruction:
        reconstruction = batch.observations.reconstruction_loss(agent, params, output.features)
        loss = loss + config.reconstruction_coef * reconstruction
    return loss, metrics | {"losses/reconstruction_loss": reconstruction, "losses/loss": loss}


def apply_gradients(
    optimizer: optax.GradientTransformation,
    config: Config,
    params: Any,
    opt_state: Any,
    grads: Any,
    learning_rate: jax.Array,
) -> tuple[Any, Any, jax.Array]:
    """Clips the gradient's global norm and takes one optimiser step.

    Returns:
        Parameters, optimiser state, and the norm before clipping f32[].
    """
    grads, norm = clip(config, grads)
    direction, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, jax.tree.map(lambda d: -learning_rate * d, direction))
    return params, opt_state, norm


def clip(config: Config, grads: Any) -> tuple[Any, jax.Array]:
    """Gradients with their global norm clipped, and the norm before it, f32[]."""
    # As dot products: 4% less of an update of Proof of Memory than as sums of squares, which XLA splits on CPUs.
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
    # PyTorch's clip_grad_norm_ divides by the norm plus 1e-6.
    shrink = jnp.minimum(1.0, config.max_grad_norm / (norm + 1e-6))
    return jax.tree.map(lambda g: g * shrink, grads), norm


class _Learner(NamedTuple):
    params: Any
    opt_state: Any


class _Epoch(NamedTuple):
    key: jax.Array
    number: jax.Array | None  # None: the memory is not refreshed


def _formulation(agent: ActorCritic, optimizer: Any, learned: Any, learning_rate: jax.Array) -> tuple[Any, Any, Any]:
    """For the agent's platform: how the optimiser sees parameters, how minibatches are scanned, and a 1, see `one`."""
    if not agent.numerics.accelerator:
        return AsTree(), jax.lax.scan, 1.0
    form = Flat.of(learned) if isinstance(optimizer, Elementwise) else AsTree()
    return form, scan_stacked, one(jnp.asarray(learning_rate))


def _corrections(optimizer: Any, form: Any, learner: _Learner, num_steps: int) -> jax.Array | None:
    """What the next steps of AdamW on one array need, see `AdamW`; None: the optimiser's own steps are taken."""
    if isinstance(form, Flat) and isinstance(optimizer, AdamW):
        return optimizer.corrections(learner.opt_state, num_steps)
    return None


def _take_step(
    optimizer: Any, config: Config, learner: _Learner, grads: Any, learning_rate: jax.Array, correction: Any
) -> tuple[_Learner, jax.Array]:
    before = learner.params, learner.opt_state
    if correction is None:
        params, opt_state, norm = apply_gradients(optimizer, config, *before, grads, learning_rate)
    else:
        clipped, norm = clip(config, grads)
        params, opt_state = optimizer.step(*before, clipped, learning_rate, correction)
    return _Learner(params, opt_state), norm


def update(
    agent: ActorCritic,
    optimizer: optax.GradientTransformation,
    config: Config,
    train_state: TrainState,
    rollout: Rollout,
    advantage: jax.Array,
    returns: jax.Array,
    key: jax.Array,
    loss: LossFn = ppo_loss,
    groups: Grouping = WHOLE,
) -> tuple[TrainState, Metrics]:
    """Epochs of minibatches over one rollout.

    Args:
        agent: the model.
        optimizer: see `make_optimizer`.
        config: coefficients and sizes.
        train_state: what is updated.
        rollout: T steps of N environments.
        advantage: f32[T, N].
        returns: f32[T, N].
        key: source of the minibatches.
        loss: what is minimised; `target_kl` needs its metric `losses/approx_kl`.
        groups: of environments; `rollout`, `advantage` and `returns` are stacked.

    Returns:
        The train state one iteration on, with the moments that it had, and means over the minibatches that ran.
    """
    learning_rate, ent_coef = annealed(config, train_state.iteration)
    learned, fixed = split(train_state.params)
    memory_of = _Memory(agent, config, fixed)
    acted = groups.each(partial(memory_of.ready, learned), rollout.memory)
    form, scan, unit = _formulation(agent, optimizer, learned, learning_rate)

    def loss_fn(params: Any, batch: Minibatch, memory: Any) -> tuple[jax.Array, Metrics]:
        return loss(agent, params | fixed, batch, memory_of.in_minibatch(params, memory), config, ent_coef)

    def gradients(params: Any, rollout: Rollout, memory: Any, segments: Segments, steps: MinibatchSteps) -> Any:
        batch = assemble(rollout, segments, steps)
        grads, metrics = jax.grad(loss_fn, has_aux=True)(params, batch, memory)
        return form.flatten(grads), metrics

    def run_epoch(learner: _Learner, epoch: _Epoch) -> tuple[_Learner, Metrics]:
        memory = acted
        if epoch.number is not None:
            anew = partial(memory_of.refreshed, form.unflatten(learner.params))
            memory = jax.lax.cond(epoch.number == 0, lambda: acted, lambda: groups.each(anew, rollout))
        minibatches, take = _minibatches(agent, config, rollout, advantage, returns, epoch.key, groups)
        corrections = _corrections(optimizer, form, learner, config.num_minibatches)

        def minibatch_step(learner: _Learner, inputs: tuple[Any, Any]) -> tuple[_Learner, Metrics]:
            of_params = partial(gradients, form.unflatten(learner.params, unit))
            grads, metrics = groups.mean(of_params, rollout, memory, *take(inputs[0]))
            learner, norm = _take_step(optimizer, config, learner, grads, learning_rate, inputs[1])
            return learner, metrics | {"losses/grad_norm": norm}

        learner, metrics = scan(minibatch_step, learner, (minibatches, corrections))
        if corrections is not None:
            learner = learner._replace(opt_state=optimizer.count(learner.opt_state, config.num_minibatches))
        return learner, jax.tree.map(jnp.mean, metrics)

    start = _Learner(form.flatten(learned), form.flatten_state(train_state.opt_state))
    number = jnp.arange(config.update_epochs) if config.refresh_memory else None
    epochs = _Epoch(jax.random.split(key, config.update_epochs), number)
    learner, means = _run_epochs(run_epoch, start, epochs, config.target_kl)
    means |= {"charts/learning_rate": learning_rate, "charts/entropy_coefficient": ent_coef}
    opt_state = form.unflatten_state(learner.opt_state, train_state.opt_state)
    return TrainState(form.unflatten(learner.params) | fixed, opt_state, train_state.iteration + 1), means


class _Memory(NamedTuple):
    """How learning gets at the memory of a rollout.

    Fields:
        agent: the model.
        config: sizes.
        fixed: the agent's variables that aren't learned.
    """

    agent: ActorCritic
    config: Config
    fixed: Any

    def ready(self, params: Any, record: Any) -> Any:
        """What all minibatches share: the record, prepared unless that depends on parameters that they change."""
        return record if self.agent.core.prepares_with_parameters else self._prepared(params, record)

    def refreshed(self, params: Any, rollout: Rollout) -> Any:
        """The same of the record that acting would have left under these parameters."""
        return self.ready(params, recompute_memory(self.agent, params | self.fixed, rollout, self.config))

    def in_minibatch(self, params: Any, ready: Any) -> Any:
        """What `ActorCritic.prepare` makes of the record, under a minibatch's parameters."""
        return self._prepared(params, ready) if self.agent.core.prepares_with_parameters else ready

    def _prepared(self, params: Any, record: Any) -> Any:
        return self.agent.apply(params | self.fixed, record, method="prepare")


def _minibatches(
    agent: ActorCritic,
    config: Config,
    rollout: Rollout,
    advantage: jax.Array,
    returns: jax.Array,
    key: jax.Array,
    groups: Grouping,
) -> tuple[Any, Callable[[Any], tuple[Segments, MinibatchSteps]]]:
    """What an epoch scans over, arrays [num_minibatches, ...], and what makes a minibatch of one row of it."""
    num_steps, num_envs = rollout.transitions.reward.shape[-2:]
    sizes = num_envs, num_steps, config.num_minibatches, config.segment_length
    segments = groups.scanned(groups.each(lambda key: minibatch_segments(key, *sizes), groups.keys(key)))

    def steps(segments: Segments) -> MinibatchSteps:
        taken = groups.each(take_steps, rollout, advantage, returns, segments)
        if config.norm_adv:
            taken = taken._replace(advantage=groups.normalise(taken.advantage))
        return taken

    if agent.numerics.accelerator and groups is WHOLE:  # small arrays of all minibatches in few kernels
        return (segments, jax.vmap(steps)(segments)), lambda row: row
    return segments, lambda row: (row, steps(row))


def _run_epochs(
    run_epoch: Callable[[_Learner, _Epoch], tuple[_Learner, Metrics]],
    learner: _Learner,
    epochs: _Epoch,
    target_kl: float | None,
) -> tuple[_Learner, Metrics]:
    """Epochs up to the one that passes `target_kl`, and the means of their metrics."""

    def step(carry: tuple[_Learner, jax.Array], epoch: _Epoch) -> Any:
        learner, running = carry
        if target_kl is None:
            learner, metrics = run_epoch(learner, epoch)
            return (learner, running), (metrics, running)
        shapes = jax.eval_shape(run_epoch, learner, epoch)[1]
        if "losses/approx_kl" not in shapes:
            raise ConfigError(
                f"--target_kl {brief(target_kl)}: the loss returns no metric losses/approx_kl; let it return one, or "
                "leave the flag out"
            )
        skipped = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        learner, metrics = jax.lax.cond(running, run_epoch, lambda state, _: (state, skipped), learner, epoch)
        return (learner, running & (metrics["losses/approx_kl"] <= target_kl)), (metrics, running)

    (learner, _), (metrics, ran) = jax.lax.scan(step, (learner, jnp.bool_(True)), epochs)
    return learner, jax.tree.map(lambda m: (m * ran).sum() / ran.sum(), metrics)
