"""Generalised advantage estimation and discounted returns, on pure arrays."""

import chex
import jax
import jax.numpy as jnp


def gae(
    reward: jax.Array,
    value: jax.Array,
    done: jax.Array,
    last_value: jax.Array,
    gamma: float,
    gae_lambda: float,
    *,
    in_parallel: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Advantages and returns of a rollout (Schulman et al. 2016, equations 11 to 16, cut at episode ends).

    Args:
        reward: f32[T, N]; with `bootstrap_truncated` those of truncated steps already include the bootstrap.
        value: f32[T, N], the critic's estimates before each step.
        done: bool[T, N], whether the step ended its episode.
        last_value: f32[N], the critic's estimate after the last step.
        gamma: discount factor.
        gae_lambda: decay of the mixture of n-step estimates.
        in_parallel: in log2(T) rounds over all steps, for accelerators, instead of T steps. Sums have another order:
            the two differ by some 1e-6 of the largest advantage.

    Returns:
        Advantages and returns (advantage + value), each f32[T, N].
    """
    chex.assert_rank(reward, 2)
    chex.assert_equal_shape([reward, value, done])
    chex.assert_shape(last_value, reward.shape[1:])
    next_value = jnp.concatenate([value[1:], last_value[None]])
    going_on = 1.0 - done.astype(jnp.float32)
    delta = reward + gamma * next_value * going_on - value
    if in_parallel:
        advantage = linear_recurrence(delta, gamma * gae_lambda * going_on, reverse=True)
        return advantage, advantage + value

    def step(following: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta_t, going_on_t = inputs
        advantage = delta_t + gamma * gae_lambda * going_on_t * following
        return advantage, advantage

    _, advantage = jax.lax.scan(step, jnp.zeros_like(last_value), (delta, going_on), reverse=True)
    return advantage, advantage + value


def linear_recurrence(addend: jax.Array, factor: jax.Array, *, reverse: bool = False) -> jax.Array:
    """x_t = addend_t + factor_t x_(t - 1), with x_(-1) = 0, or with t + 1 and x_T = 0; all f32[T, ...].

    In ceil(log2(T)) rounds, each of which doubles the number of steps that are summed (Hillis and Steele 1986): one
    kernel a round. `jax.lax.associative_scan` does fewer additions, but takes twice the rounds.
    """
    chex.assert_equal_shape([addend, factor])

    def before(x: jax.Array, steps: int) -> jax.Array:
        """Of each step the value so many steps before it (or after it), and 0 where there is none."""
        zeros = jnp.zeros_like(x[:steps])
        return jnp.concatenate([x[steps:], zeros] if reverse else [zeros, x[:-steps]])

    steps = 1
    while steps < len(addend):
        addend, factor = addend + factor * before(addend, steps), factor * before(factor, steps)
        steps *= 2
    return addend


def discounted_returns(
    reward: jax.Array, done: jax.Array, before: jax.Array, gamma: float, *, in_parallel: bool = False
) -> tuple[jax.Array, jax.Array]:
    """What each episode has earned up to each step, earlier rewards discounted: G_t = r_t + gamma G_(t - 1).

    NormalizeReward of Gymnasium 1.3 forgets an episode one step too early, before its last reward, which then counts in
    the next episode; and it doesn't forget truncated ones.

    Args:
        reward: f32[T, N], as environments gave them.
        done: bool[T, N], whether the step ended its episode.
        before: f32[N], G before the first step, 0 at the start of an episode.
        gamma: discount factor.
        in_parallel: as in `gae`.

    Returns:
        G f32[T, N], and `before` f32[N] of the next rollout.
    """
    chex.assert_equal_shape([reward, done])
    chex.assert_shape(before, reward.shape[1:])
    if in_parallel:
        ended = jnp.concatenate([jnp.zeros_like(done[:1]), done[:-1]])
        earned = linear_recurrence(reward.at[0].add(gamma * before), gamma * (1.0 - ended))
        return earned, jnp.where(done[-1], 0.0, earned[-1])

    def step(earlier: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward_t, done_t = inputs
        earned = reward_t + gamma * earlier
        return jnp.where(done_t, 0.0, earned), earned

    following, earned = jax.lax.scan(step, before, (reward, done))
    return earned, following
