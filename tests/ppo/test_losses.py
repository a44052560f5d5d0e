"""Advantages, losses and the optimiser's step against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trxl_jax.agent.distributions import MultiCategorical, sampling_noise
from trxl_jax.config import Config
from trxl_jax.envs.actions import DiscreteActions
from trxl_jax.ppo.advantages import gae
from trxl_jax.ppo.losses import normalise_advantage, policy_loss, reconstruction_loss, value_loss
from trxl_jax.ppo.minibatch import minibatch_segments
from trxl_jax.ppo.update import annealed, apply_gradients, make_optimizer


def test_gae_by_hand() -> None:
    reward, value = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[0.5], [1.0], [1.5]])
    done = jnp.array([[False], [True], [False]])
    advantage, returns = gae(reward, value, done, jnp.array([2.0]), 0.5, 0.8)
    last = 3 + 0.5 * 2 - 1.5  # 2.5; the episode's end before it cuts both bootstrap and trace
    middle = 2 - 1.0
    first = 1 + 0.5 * 1.0 - 0.5 + 0.5 * 0.8 * middle
    np.testing.assert_allclose(advantage[:, 0], [first, middle, last], rtol=1e-6)
    np.testing.assert_allclose(returns, advantage + value, rtol=1e-6)


def test_gae_refuses_arrays_that_do_not_match() -> None:
    with pytest.raises(AssertionError):
        gae(jnp.zeros((3, 1)), jnp.zeros((3, 1)), jnp.zeros((3, 1), bool), jnp.zeros(3), 0.9, 0.9)


def test_policy_loss_clips_each_branch() -> None:
    ratio = jnp.array([[1.5, 0.5], [1.05, 1.0]])
    advantage = jnp.array([1.0, -2.0])
    # Sample 0: min(1.5, 1.1), min(0.5, 0.9). Sample 1: min(-2.1, -2.1), -2.
    expected = -np.mean([1.1, 0.5, -2.1, -2.0])
    loss = policy_loss(jnp.log(ratio), jnp.zeros((2, 2)), advantage, 0.1)
    assert loss == pytest.approx(expected, rel=1e-6)


def test_value_loss_has_no_half_and_takes_the_worse_of_clipped_and_not() -> None:
    value, old, returns = jnp.array([2.0, 1.05]), jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0])
    assert value_loss(value, old, returns, None) == pytest.approx((0 + 1.05**2) / 2)
    assert value_loss(value, old, returns, 0.1) == pytest.approx((0.9**2 + 1.05**2) / 2)


def test_advantages_are_normalised_with_n_minus_one() -> None:
    np.testing.assert_allclose(normalise_advantage(jnp.array([[1.0, 2.0, 3.0]])), [[-1, 0, 1]], rtol=1e-6)


def test_reconstruction_loss_clamps_and_its_gradient_stays_finite() -> None:
    obs = jnp.array([0, 255, 51], jnp.uint8)
    logits = jnp.array([0.0, -1000.0, 2.0])
    p = 1 / (1 + np.exp(-2.0))
    expected = (np.log(2) + 100 - 0.2 * np.log(p) - 0.8 * np.log(1 - p)) / 3
    assert reconstruction_loss(logits, obs) == pytest.approx(expected, rel=1e-6)
    assert jnp.isfinite(jax.grad(reconstruction_loss)(logits, obs)).all()


def test_multi_categorical() -> None:
    policy = MultiCategorical(jnp.log(jnp.array([[0.5, 0.5, 0.2, 0.3, 0.5]])), (2, 3))
    log_prob = policy.log_prob(jnp.array([[1, 2]]))
    np.testing.assert_allclose(jnp.exp(log_prob), [[0.5, 0.5]], rtol=1e-6)
    entropy = np.log(2) - 0.2 * np.log(0.2) - 0.3 * np.log(0.3) - 0.5 * np.log(0.5)
    np.testing.assert_allclose(policy.entropy(), [entropy], rtol=1e-6)
    np.testing.assert_array_equal(policy.mode()[0, 1], 2)
    noise = sampling_noise(DiscreteActions((2, 3)), jax.random.key(0), (4000, 1))
    draws = jax.vmap(policy.sample)(noise)
    np.testing.assert_allclose(np.bincount(draws[:, 0, 1]) / 4000, [0.2, 0.3, 0.5], atol=0.03)
    joint = (draws[:, 0, 0] == 0) & (draws[:, 0, 1] == 2)
    assert joint.mean() == pytest.approx(0.25, abs=0.03)  # branches are drawn independently


def test_minibatches_cover_each_environments_steps_once_in_its_own_order() -> None:
    segments = minibatch_segments(jax.random.key(0), 3, 12, 4)
    assert segments.env is None
    assert segments.step.shape == (4, 3, 3)
    by_env = np.moveaxis(np.asarray(segments.step), 1, 0).reshape(3, 12)
    np.testing.assert_array_equal(np.sort(by_env, axis=1), np.tile(np.arange(12), (3, 1)))
    assert (by_env[0] != by_env[1]).any()


@pytest.mark.parametrize(("num_minibatches", "segment_length"), [(2, 3), (4, 3), (3, 4), (6, 6), (3, 12)])
def test_segments_are_consecutive_and_each_step_is_learned_from_once(num_minibatches: int, segment_length: int) -> None:
    num_envs, num_steps = 3, 12
    dealt = minibatch_segments(jax.random.key(0), num_envs, num_steps, num_minibatches, segment_length)
    every_env = num_steps // segment_length % num_minibatches == 0
    assert (dealt.env is None) == every_env
    seen = []
    for i in range(num_minibatches):
        segments = jax.tree.map(lambda leaf, i=i: leaf[i], dealt)
        steps, envs = np.asarray(segments.step), np.asarray(segments.envs)
        assert steps.size == num_envs * num_steps // num_minibatches
        starts = steps.reshape(len(steps), -1, segment_length)[..., :1]
        assert (starts % segment_length == 0).all()
        np.testing.assert_array_equal(steps.reshape(len(steps), -1, segment_length), starts + np.arange(segment_length))
        seen += [(env, step) for env, row in zip(envs[:, 0], steps, strict=True) for step in row]
    assert sorted(seen) == [(env, step) for env in range(num_envs) for step in range(num_steps)]


def test_annealing() -> None:
    config = Config(num_envs=1, num_steps=8, anneal_steps=80, init_lr=1.0, final_lr=0.5, init_ent_coef=0.1,
                    final_ent_coef=0.0, total_timesteps=1000)  # fmt: skip
    assert annealed(config, jnp.int32(0)) == (1.0, pytest.approx(0.1))
    assert annealed(config, jnp.int32(5)) == (0.75, pytest.approx(0.05))
    assert annealed(config, jnp.int32(50)) == (0.5, 0.0)
    assert annealed(config.replace(anneal_steps=0), jnp.int32(50)) == (1.0, pytest.approx(0.1))


def test_one_adamw_step_by_hand() -> None:
    config = Config(max_grad_norm=1.0)
    params, grads = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([3.0, 4.0])}
    optimizer = make_optimizer()
    new, state, norm = apply_gradients(optimizer, config, params, optimizer.init(params), grads, jnp.float32(0.1))
    assert norm == pytest.approx(5.0)
    # The first step of Adam is the gradient's sign; the decay of 0.01 counts from the old parameters.
    np.testing.assert_allclose(new["w"], [1 - 0.1 * 1 - 0.001, -2 - 0.1 * 1 + 0.002], rtol=1e-5)
    _, moments, _ = apply_gradients(optimizer, config, new, state, grads, jnp.float32(0.1))
    clipped = np.array([0.6, 0.8])
    np.testing.assert_allclose(moments[0].mu["w"], clipped * (1 - 0.9**2), rtol=1e-4)
