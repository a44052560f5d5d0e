"""Invalid actions: where masks come from, that they are never taken, and that they are kept for learning."""

from pathlib import Path
from typing import Any

import gymnasium
import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnasium import spaces
from gymnax.environments import spaces as gymnax_spaces

from trxl_jax import Config, evaluate, load
from trxl_jax.envs.action_masks import read_mask
from trxl_jax.envs.device.environment import DeviceEnvironment
from trxl_jax.errors import ConfigError, EnvironmentFailure
from trxl_jax.runs.trainer import train

CHOICES, LENGTH = 4, 5


class Restricted(gymnasium.Env):
    """Two of four actions are valid in each step, at random; the lower one earns 1, an invalid one is an error.

    The mask is no input, but a policy that prefers lower actions always takes the lower valid one.

    Args:
        where: of the mask, "observation" or "info".
        empty: a step whose mask allows nothing.
    """

    def __init__(self, where: str, empty: int | None = None) -> None:
        self.where, self.empty = where, empty
        seen: dict[str, spaces.Space] = {"nothing": spaces.Box(0, 0, (1,), np.float32)}
        if where == "observation":
            seen["valid"] = spaces.MultiBinary(CHOICES)
        self.observation_space = spaces.Dict(seen)
        self.action_space = spaces.Discrete(CHOICES)
        self.time, self.mask = 0, np.zeros(CHOICES, np.int8)

    def _observe(self) -> tuple[Any, dict]:
        self.mask = np.zeros(CHOICES, np.int8)
        self.mask[self.np_random.choice(CHOICES, 2, replace=False)] = self.time != self.empty
        obs: dict[str, Any] = {"nothing": np.zeros(1, np.float32)}
        if self.where == "info":
            return obs, {"valid": self.mask}
        return obs | {"valid": self.mask}, {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self._observe()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.mask[action], "an invalid action"
        reward = float(action == np.flatnonzero(self.mask)[0])
        self.time += 1
        obs, info = self._observe()
        return obs, reward, self.time == LENGTH, False, info


@struct.dataclass
class RestrictedState(gymnax_environment.EnvState):
    """time i32[]; mask bool[4]."""

    time: Any
    mask: jax.Array


class DeviceRestricted(gymnax_environment.Environment[RestrictedState, gymnax_environment.EnvParams]):
    """`Restricted` on the device; an invalid action costs 100."""

    name = "Restricted"

    @property
    def default_params(self) -> gymnax_environment.EnvParams:
        return gymnax_environment.EnvParams(max_steps_in_episode=LENGTH)

    def valid(self, state: RestrictedState, params: Any) -> jax.Array:
        return state.mask

    def _draw(self, key: jax.Array) -> jax.Array:
        return jax.random.permutation(key, jnp.arange(CHOICES) < 2)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[Any, RestrictedState]:
        return jnp.zeros(1), RestrictedState(time=jnp.int32(0), mask=self._draw(key))

    def step_env(self, key: jax.Array, state: RestrictedState, action: Any, params: Any) -> tuple:
        lowest = jnp.argmax(state.mask)
        reward = jnp.where(state.mask[action], (action == lowest).astype(jnp.float32), -100.0)
        state = RestrictedState(time=state.time + 1, mask=self._draw(key))
        return jnp.zeros(1), state, reward, jnp.bool_(False), {}

    def observation_space(self, params: Any) -> gymnax_spaces.Box:
        return gymnax_spaces.Box(0.0, 0.0, (1,), jnp.float32)

    def action_space(self, params: Any = None) -> gymnax_spaces.Discrete:
        return gymnax_spaces.Discrete(CHOICES)


SIZES: dict[str, Any] = {
    "num_envs": 8, "num_steps": 32, "num_minibatches": 4, "update_epochs": 4, "init_lr": 3e-3, "final_lr": 3e-3,
    "gamma": 0.5, "trxl_num_layers": 1, "trxl_num_heads": 2, "trxl_dim": 16, "trxl_memory_length": 4,
    "norm_adv": True, "clip_coef": 0.2, "action_mask_key": "valid", "total_timesteps": 20 * 256,
    "init_ent_coef": 0.0, "final_ent_coef": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("where", ["observation", pytest.param("info", marks=pytest.mark.slow)])
def test_masks_on_the_host(where: str, tmp_path: Path) -> None:
    outcome = train(Config(**SIZES, run_dir=str(tmp_path / "run")), env=lambda: Restricted(where))
    assert outcome.metrics["episode/r_mean"] >= 0.9 * LENGTH
    policy = load(tmp_path / "run")
    assert evaluate(policy, 8, env=lambda: Restricted(where), deterministic=True).means["r"] == LENGTH


def test_masks_of_a_method_on_the_device(tmp_path: Path) -> None:
    changes = {"segment_length": 4, "core": "gru"}
    outcome = train(Config(**SIZES | changes, run_dir=str(tmp_path / "run")), env=DeviceRestricted())
    assert outcome.metrics["episode/r_mean"] >= 0.9 * LENGTH


def test_acting_and_learning_see_the_same_mask() -> None:
    """Ratios are 1 in the first minibatch, so that nothing is clipped and the estimate of KL is 0."""
    from trxl_jax import init_states, make_agent, make_train_step

    config = Config(**SIZES | {"num_minibatches": 1, "update_epochs": 1})
    env = DeviceEnvironment(DeviceRestricted(), num_envs=8, mask_key="valid")
    agent = make_agent(config, env.spec)
    states = init_states(config, env, agent, jax.random.key(0))
    _, _, output = jax.jit(make_train_step(config, env, agent))(*states, jax.random.key(1))
    assert abs(output.metrics["losses/approx_kl"]) < 1e-6
    assert 0 < output.metrics["losses/entropy"] <= np.log(2) + 1e-6


def test_a_mask_that_allows_nothing_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match=r"step 2\): the action mask allows nothing; a step must have"):
        train(Config(**SIZES, run_dir=str(tmp_path / "run")), env=lambda: Restricted("info", empty=3))


class Emptied(DeviceRestricted):
    """In an episode's third step nothing is valid."""

    def valid(self, state: RestrictedState, params: Any) -> jax.Array:
        return state.mask & (state.time != 2)


def test_a_mask_that_allows_nothing_on_the_device_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        EnvironmentFailure, match=r"allowed no action in \d+ of 256 steps of update 1; a mask must have"
    ):
        train(Config(**SIZES, run_dir=str(tmp_path / "run")), env=Emptied())


def test_masks_that_are_read() -> None:
    np.testing.assert_array_equal(read_mask(np.array([0, 1, 2]), (3,)), [False, True, True])
    several = (np.array([1, 0]), np.array([0, 1, 1]))
    np.testing.assert_array_equal(read_mask(several, (2, 3)), [True, False, False, True, True])
    np.testing.assert_array_equal(read_mask(np.concatenate(several), (2, 3)), [True, False, False, True, True])
    with pytest.raises(ValueError, match="2 elements for 3 choices"):
        read_mask([1, 0], (3,))
    with pytest.raises(ValueError, match="allows nothing in branch 1"):
        read_mask(([1, 0], [0, 0, 0]), (2, 3))


@pytest.mark.parametrize(
    ("env", "key", "words"),
    [
        (lambda: Restricted("info"), "other", "neither observations nor infos have the action mask other"),
        (lambda: gymnasium.make("Pendulum-v1"), "valid", "no discrete actions"),
        (DeviceRestricted(), "other", "no such observation or method"),
    ],
)
def test_masks_that_are_nowhere(env: Any, key: str, words: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, EnvironmentFailure)) as caught:
        train(Config(**SIZES | {"action_mask_key": key}, run_dir=str(tmp_path / "run")), env=env)
    assert words in str(caught.value)
