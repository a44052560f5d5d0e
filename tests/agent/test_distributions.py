"""Every distribution over actions against SciPy in float64, its samples, its mask and its gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from trxl_jax.agent.distributions import (
    ActionDistribution,
    Gaussian,
    MultiCategorical,
    make_distribution,
    make_heads,
    sampling_noise,
)
from trxl_jax.agent.initializers import ACTOR_GAIN
from trxl_jax.agent.numerics import Numerics
from trxl_jax.agent.previous import Previous, PreviousEncoder, PreviousInputs
from trxl_jax.envs.actions import ActionSpace, BoxActions, DiscreteActions, MixedActions

CHOICES, BOX = DiscreteActions((2, 4)), BoxActions((-1.0, -np.inf, 0.5), (1.0, np.inf, 0.5))
MIXED = MixedActions((DiscreteActions((3,)), BOX, DiscreteActions((2, 4)), BoxActions((0.0,), (9.0,))))
SPACES: dict[str, ActionSpace] = {"choices": CHOICES, "box": BOX, "mixed": MIXED}
EACH_SPACE = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
NUMERICS = Numerics("cpu", np.dtype(np.float32), "default")
BATCH = (5, 7)


def outputs_for(space: ActionSpace, seed: int) -> list[np.ndarray]:
    """Outputs f32[5, 7, ...] of each head."""
    rng = np.random.default_rng(seed)
    sizes = [
        size
        for part in space.parts
        for size in (part.nvec if isinstance(part, DiscreteActions) else (2 * part.num_columns,))
    ]
    return [rng.normal(0, 1, (*BATCH, size)).astype(np.float32) for size in sizes]


def made(space: ActionSpace, seed: int, mask: Any = None) -> tuple[ActionDistribution, list[Any]]:
    """A distribution, and of each branch log-probabilities f64[..., n] or SciPy's distributions of K numbers."""
    outputs = outputs_for(space, seed)
    theirs: list[Any] = []
    heads = iter(outputs)
    choice = 0
    for part in space.parts:
        if isinstance(part, BoxActions):
            mean, log_std = np.split(next(heads).astype(np.float64), 2, axis=-1)
            theirs.append(scipy.stats.norm(mean, np.exp(log_std)))
            continue
        for n in part.nvec:
            logits = next(heads).astype(np.float64)
            if mask is not None:
                logits = np.where(mask[..., choice : choice + n], logits, -np.inf)
            choice += n
            theirs.append(scipy.special.log_softmax(logits, axis=-1))
    return make_distribution(space, [jnp.asarray(x) for x in outputs], mask), theirs


def columns(space: ActionSpace, action: np.ndarray) -> list[np.ndarray]:
    """Those of each branch."""
    widths = [1 if isinstance(part, DiscreteActions) else part.num_columns
              for part in space.parts for _ in range(part.num_branches)]  # fmt: skip
    return np.split(action, np.cumsum(widths)[:-1], axis=-1)


def entropy(branch: Any) -> np.ndarray:
    """f64[...]."""
    if isinstance(branch, np.ndarray):
        return scipy.stats.entropy(np.exp(branch), axis=-1)
    return branch.entropy().sum(axis=-1)


def random_mask(space: ActionSpace, seed: int) -> np.ndarray:
    """bool[5, 7, sum(nvec)] with a valid choice in each branch at least."""
    rng = np.random.default_rng(seed)
    parts = []
    for n in space.nvec:
        part = rng.integers(0, 2, (*BATCH, n)).astype(bool)
        np.put_along_axis(part, rng.integers(0, n, (*BATCH, 1)), True, axis=-1)
        parts.append(part)
    return np.concatenate(parts, axis=-1)


def draws_from(space: ActionSpace, policy: ActionDistribution, count: int) -> np.ndarray:
    """Samples [count, 5, 7, C]."""
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: policy.sample(sampling_noise(space, key, BATCH))))(keys))


@EACH_SPACE
def test_log_probabilities_and_entropies_are_scipys(space: ActionSpace) -> None:
    policy, theirs = made(space, 0)
    action = draws_from(space, policy, 1)[0]
    assert action.dtype == space.dtype
    assert space.contains(action).all()
    expected = [
        np.take_along_axis(branch, own.astype(int), axis=-1)[..., 0]
        if isinstance(branch, np.ndarray)
        else branch.logpdf(own).sum(axis=-1)
        for branch, own in zip(theirs, columns(space, action), strict=True)
    ]
    assert policy.log_prob(action).shape == (*BATCH, space.num_branches)
    np.testing.assert_allclose(policy.log_prob(action), np.stack(expected, axis=-1), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(policy.entropy(), sum(map(entropy, theirs)), rtol=2e-5, atol=2e-5)


@EACH_SPACE
def test_divergences_are_those_of_the_definition(space: ActionSpace) -> None:
    (p, ours), (q, theirs) = made(space, 0), made(space, 1)
    expected = np.zeros(BATCH)
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(a, np.ndarray):
            expected += (np.exp(a) * (a - b)).sum(axis=-1)
        else:
            (m, s), (n, t) = a.args, b.args
            expected += (np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5).sum(axis=-1)
    np.testing.assert_allclose(p.kl_divergence(q), expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(p.kl_divergence(p), np.zeros(BATCH))


def test_small_divergences_of_numbers_are_not_lost() -> None:
    mean, log_std = jnp.full((1, 1), 3.0), jnp.full((1, 1), -1.0)
    divergence = Gaussian(mean, log_std).kl_divergence(Gaussian(mean, log_std + 1e-4))
    assert divergence[0] == pytest.approx(1e-8, rel=1e-2)


@EACH_SPACE
def test_samples_have_the_distribution_and_columns_are_independent(space: ActionSpace) -> None:
    policy, theirs = made(space, 0)
    count = 4000
    draws = draws_from(space, policy, count)[:, 0, 0]
    for branch, own in zip(theirs, columns(space, draws), strict=True):
        if isinstance(branch, np.ndarray):
            share = np.bincount(own[:, 0].astype(int), minlength=branch.shape[-1]) / count
            np.testing.assert_allclose(share, np.exp(branch[0, 0]), atol=0.035)
        else:
            mean, std = (np.asarray(x)[0, 0] for x in branch.args)
            np.testing.assert_allclose(own.mean(axis=0), mean, atol=0.1 * std.max())
            np.testing.assert_allclose(own.std(axis=0), std, rtol=0.08)
    varying = draws[:, draws.std(axis=0) > 0]
    correlation = np.corrcoef(varying.T) if varying.shape[1] > 1 else np.eye(1)
    assert abs(correlation - np.eye(len(correlation))).max() < 0.08


@EACH_SPACE
def test_the_mode_is_the_likeliest(space: ActionSpace) -> None:
    policy, _ = made(space, 0)
    best = policy.log_prob(policy.mode())
    assert policy.mode().dtype == space.dtype
    for draw in draws_from(space, policy, 50):
        assert (policy.log_prob(jnp.asarray(draw)) <= best).all()


@pytest.mark.parametrize("space", [CHOICES, MIXED], ids=["choices", "mixed"])
def test_invalid_choices_take_no_part(space: ActionSpace) -> None:
    mask = random_mask(space, 3)
    policy, theirs = made(space, 0, mask)
    other, others = made(space, 1, mask)
    for draw in [*draws_from(space, policy, 200), np.asarray(policy.mode())]:
        choices = np.concatenate([np.asarray(own) for part, own in zip(space.parts, space.split(draw), strict=True)
                                  if isinstance(part, DiscreteActions)], axis=-1)  # fmt: skip
        first = np.cumsum([0, *space.nvec])[:-1]
        assert np.take_along_axis(mask, choices + first, axis=-1).all()
    expected = np.zeros(BATCH)
    for a, b in zip(theirs, others, strict=True):
        if isinstance(a, np.ndarray):
            with np.errstate(invalid="ignore"):
                expected += np.nansum(np.exp(a) * (a - b), axis=-1)
        else:
            (m, s), (n, t) = a.args, b.args
            expected += (np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5).sum(axis=-1)
    np.testing.assert_allclose(policy.kl_divergence(other), expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(policy.entropy(), sum(map(entropy, theirs)), rtol=2e-5, atol=2e-5)
    action = policy.mode()
    logs = [np.take_along_axis(branch, own.astype(int), axis=-1)[..., 0] if isinstance(branch, np.ndarray)
            else branch.logpdf(own).sum(axis=-1)
            for branch, own in zip(theirs, columns(space, np.asarray(action)), strict=True)]  # fmt: skip
    np.testing.assert_allclose(policy.log_prob(action), np.stack(logs, axis=-1), rtol=2e-5, atol=2e-5)
    probabilities = np.concatenate(
        [np.asarray(part.probabilities()) for part in policy.parts if isinstance(part, MultiCategorical)], axis=-1
    )
    assert (probabilities[~mask] == 0).all()


@pytest.mark.parametrize("space", [CHOICES, MIXED], ids=["choices", "mixed"])
def test_a_mask_without_invalid_choices_changes_no_bit(space: ActionSpace) -> None:
    (plain, _), (masked, _) = made(space, 0), made(space, 0, np.ones((*BATCH, sum(space.nvec)), bool))
    other, _ = made(space, 1)
    action = plain.mode()
    for ours, theirs in (
        (masked.log_prob(action), plain.log_prob(action)),
        (masked.entropy(), plain.entropy()),
        (masked.kl_divergence(other), plain.kl_divergence(other)),
        (draws_from(space, masked, 5), draws_from(space, plain, 5)),
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_gradients_are_finite_and_none_reaches_an_invalid_choice() -> None:
    mask = random_mask(CHOICES, 3)
    mask[0, 0] = [True, False, False, True, False, False]  # one choice only: nothing is left to chance
    outputs = [jnp.asarray(10 * x) for x in outputs_for(CHOICES, 0)]
    far, _ = made(CHOICES, 1, ~mask | np.array([True, False, False, True, False, False]))  # the other way round

    def everything(outputs: list[jax.Array]) -> jax.Array:
        policy = make_distribution(CHOICES, outputs, mask)
        divergence = policy.kl_divergence(make_distribution(CHOICES, [0.5 * x for x in outputs], mask))
        return (policy.log_prob(policy.mode()).sum(axis=-1) + policy.entropy() + divergence).sum()

    value, gradients = jax.value_and_grad(everything)(outputs)
    assert jnp.isfinite(value)
    gradient = np.concatenate([np.asarray(x) for x in gradients], axis=-1)
    assert np.isfinite(gradient).all()
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).any()
    policy = make_distribution(CHOICES, outputs, mask)
    assert policy.entropy()[0, 0] == 0
    assert (policy.log_prob(policy.mode())[0, 0] == 0).all()
    # A choice that was valid and isn't any more makes the divergence large; one that wasn't adds nothing.
    assert jnp.isfinite(policy.kl_divergence(far)).all()
    assert jnp.isfinite(far.kl_divergence(policy)).all()


@EACH_SPACE
def test_heads_start_as_the_design_says(space: ActionSpace) -> None:
    dim = 64
    heads = make_heads(space, dim, NUMERICS)
    assert len(heads) == space.num_branches
    outputs = []
    for i, head in enumerate(heads):
        params = head.init(jax.random.key(i), jnp.zeros((1, dim)))["params"]
        outputs.append(head.apply({"params": params}, jnp.ones((3, dim))))
        if "log_std" in params:
            assert not params["log_std"].any()
            params = params["mean"]
        kernel = np.asarray(params["kernel"])
        np.testing.assert_allclose(kernel.T @ kernel, ACTOR_GAIN**2 * np.eye(kernel.shape[1]), atol=1e-6)
        assert 0 < abs(np.asarray(params["bias"])).max() <= 1 / np.sqrt(dim)
    policy = make_distribution(space, outputs)
    boxes = [part for part in policy.parts if isinstance(part, Gaussian)]
    assert all((part.std == 1).all() for part in boxes)
    assert policy.mode().shape == (3, space.num_columns)


def test_the_inputs_of_the_last_action() -> None:
    encoder = PreviousEncoder(PreviousInputs(action=True, reward=False), MIXED, 3, NUMERICS)
    action = jnp.array([[2, -5.0, 40.0, 0.7, 1, 3, 11]])
    params = encoder.init(jax.random.key(0), Previous(action, jnp.zeros(1)), jnp.ones(1))["params"]
    kernel, bias = params["Dense_0"]["kernel"], params["Dense_0"]["bias"]
    inputs = np.array([0, 0, 1, -1, 40, 0.5, 0, 1, 0, 0, 0, 1, 9.0])  # clipped where there are bounds
    out = encoder.apply({"params": params}, Previous(action, jnp.zeros(1)), jnp.ones(1))
    np.testing.assert_allclose(out[0], inputs @ kernel + bias, rtol=1e-5)
    first = encoder.apply({"params": params}, Previous(action, jnp.zeros(1)), jnp.zeros(1))
    np.testing.assert_array_equal(first[0], bias)
