"""The losses and metrics of a minibatch, from the agent's output and what acting left."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trxl_jax.agent.distributions import ActionDistribution, MultiCategorical
from trxl_jax.config import Config
from trxl_jax.ppo.losses import policy_loss, value_loss

Metrics = dict[str, jax.Array]


class Targets(NamedTuple):
    """What the output is compared with, arrays [M, Q, ...]; fields as in `minibatch.Minibatch`."""

    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    returns: jax.Array


def losses(
    policy: ActionDistribution, value: jax.Array, targets: Targets, config: Config, ent_coef: jax.Array
) -> tuple[jax.Array, Metrics]:
    """The loss f32[] without the reconstruction's, and metrics f32[] by name.

    Args:
        policy: distributions over actions, [M, Q].
        value: f32[M, Q].
        targets: of the same samples.
        config: coefficients.
        ent_coef: f32[], the entropy coefficient.
    """
    log_prob = policy.log_prob(targets.action)
    of_policy = policy_loss(log_prob, targets.log_prob, targets.advantage, config.clip_coef)
    clip = config.clip_coef if config.clip_vloss else None
    of_value = value_loss(value, targets.value, targets.returns, clip)
    entropy = policy.entropy().mean()
    loss = of_policy - ent_coef * entropy + config.vf_coef * of_value

    log_ratio = log_prob - targets.log_prob
    ratio = jnp.exp(log_ratio)
    return loss, {
        "losses/policy_loss": of_policy,
        "losses/value_loss": of_value,
        "losses/entropy": entropy,
        # The estimators k1 and k3 of http://joschu.net/blog/kl-approx.html
        "losses/old_approx_kl": -log_ratio.mean(),
        "losses/approx_kl": ((ratio - 1) - log_ratio).mean(),
        "losses/clipfrac": (jnp.abs(ratio - 1) > config.clip_coef).mean(),
    }


def losses_in_few_kernels(
    policy: ActionDistribution, value: jax.Array, targets: Targets, config: Config, ent_coef: jax.Array
) -> tuple[jax.Array, Metrics]:
    """`losses` for accelerators, arrays [M, Q]; they differ in the order of sums.

    The loss is a mean over samples. Here all numbers of a sample, its gradient among them, are computed from numbers of
    the sample, and logits are an array each: for XLA arrays of one shape, which one kernel can compute. Then one sum is
    left.
    """
    apart = policy.by_column() if isinstance(policy, MultiCategorical) else policy
    samples = jax.tree.map(lambda x: x.reshape(-1, *x.shape[value.ndim :]), (apart, value, targets))
    outputs, structure = jax.tree.flatten(samples[:2])
    treedef: Any = structure
    is_learned = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in outputs]  # masks aren't
    learned = [leaf for leaf, of_numbers in zip(outputs, is_learned, strict=True) if of_numbers]
    fixed = [leaf for leaf, of_numbers in zip(outputs, is_learned, strict=True) if not of_numbers]

    def of_samples(learned: list[jax.Array], others: Any) -> tuple[jax.Array, Metrics]:
        """`losses` of each sample by itself, f32[M * Q]."""
        fixed, targets, ent_coef = others
        numbers, rest = iter(learned), iter(fixed)
        leaves = [next(numbers if of_numbers else rest) for of_numbers in is_learned]
        policy, value = jax.tree.unflatten(treedef, leaves)
        return jax.vmap(lambda *sample: losses(*sample, config, ent_coef))(policy, value, targets)  # type: ignore[call-arg]

    return _means(of_samples, learned, (fixed, samples[2], ent_coef))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _means(of_samples: Any, learned: Any, others: Any) -> tuple[jax.Array, Metrics]:
    return _means_forward(of_samples, learned, others)[0]


def _means_forward(of_samples: Any, learned: Any, others: Any) -> Any:
    def total(learned: Any) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
        loss, metrics = of_samples(learned, others)
        return loss.mean(), (loss, metrics)

    gradient, (loss, metrics) = jax.grad(total, has_aux=True)(learned)
    gradient, terms = jax.lax.optimization_barrier((gradient, [loss, *metrics.values()]))
    means = jnp.stack(terms).mean(axis=1)
    return (means[0], dict(zip(metrics, means[1:], strict=True))), gradient


def _means_backward(of_samples: Any, gradient: Any, cotangents: Any) -> Any:
    to_loss, _ = cotangents
    return jax.tree.map(lambda each: to_loss * each, gradient), None


_means.defvjp(_means_forward, _means_backward)
