"""The losses of PPO as functions of arrays; they know no model."""

import chex
import jax
import jax.numpy as jnp

_MAX_NEGATIVE_LOG = 100.0  # PyTorch's binary cross-entropy clamps its logarithms at -100


def normalise_advantage(advantage: jax.Array) -> jax.Array:
    """f32[...] with mean 0 and standard deviation 1 over all elements (n - 1 in the denominator, as in PyTorch)."""
    return (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-8)


def policy_loss(log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, clip_coef: float) -> jax.Array:
    """Clipped surrogate (Schulman et al. 2017, equation 7), one ratio a branch, mean over all; f32[].

    Args:
        log_prob: f32[..., A].
        old_log_prob: f32[..., A].
        advantage: f32[...].
        clip_coef: half-width of the ratio's range around 1.
    """
    chex.assert_equal_shape([log_prob, old_log_prob])
    chex.assert_shape(advantage, log_prob.shape[:-1])
    ratio = jnp.exp(log_prob - old_log_prob)
    clipped = jnp.clip(ratio, 1 - clip_coef, 1 + clip_coef)
    return -jnp.minimum(advantage[..., None] * ratio, advantage[..., None] * clipped).mean()


def value_loss(value: jax.Array, old_value: jax.Array, returns: jax.Array, clip_coef: float | None) -> jax.Array:
    """Squared error without a factor 1/2, the worse of clipped and unclipped; f32[]. All arguments f32[...].

    Args:
        value: the critic's estimates.
        old_value: the behaviour policy's.
        returns: the targets.
        clip_coef: how far a value may move from the old one; None doesn't clip.
    """
    chex.assert_equal_shape([value, old_value, returns])
    error = jnp.square(value - returns)
    if clip_coef is not None:
        clipped = old_value + jnp.clip(value - old_value, -clip_coef, clip_coef)
        error = jnp.maximum(error, jnp.square(clipped - returns))
    return error.mean()


def reconstruction_loss(logits: jax.Array, obs: jax.Array) -> jax.Array:
    """Binary cross-entropy of reconstructed pixels, logarithms clamped at -100; f32[].

    Args:
        logits: f32[..., *obs_shape], before the sigmoid.
        obs: u8[..., *obs_shape].
    """
    chex.assert_equal_shape([logits, obs])
    target = obs.astype(jnp.float32) / 255.0
    miss_one = jnp.minimum(jax.nn.softplus(-logits), _MAX_NEGATIVE_LOG)
    miss_zero = jnp.minimum(jax.nn.softplus(logits), _MAX_NEGATIVE_LOG)
    return (target * miss_one + (1.0 - target) * miss_zero).mean()
