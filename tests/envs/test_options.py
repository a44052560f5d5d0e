"""Options and objects that can't be used get one line, and infos of any kind get through."""

import io
import json
import urllib.error
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control.cartpole import CartPole

from tests.support.probes import Counter
from trxl_jax import Config, make_env
from trxl_jax.envs.host.options import WatchedOptions
from trxl_jax.errors import ConfigError

SMALL = Config(num_envs=2, num_steps=16, num_minibatches=2, total_timesteps=64)


@pytest.mark.parametrize(
    ("env_id", "options", "words"),
    [
        ("gymnax/MemoryChain-bsuite", {"memory_length": -5}, "memory_length -5: must be a whole number from 0"),
        ("gymnax/MemoryChain-bsuite", {"memory_length": 2.5}, "memory_length 2.5: must be a whole number"),
        ("gymnax/MemoryChain-bsuite", {"memory_length": True}, "memory_length True: must be a whole number"),
        ("gymnax/MemoryChain-bsuite", {"memory_length": 10**12}, "from 0 to 2\\^31 - 1"),
        ("gymnax/CartPole-v1", {"gravity": "9.8"}, "gravity '9.8': must be a finite number"),
        ("gymnax/FourRooms-misc", {"resample_goal_pos": 1}, "resample_goal_pos 1: must be true or false"),
        ("gymnax/Acrobot-v1", {"available_torque": [1, 2]}, "available_torque .* must be numbers of shape \\(3,\\)"),
        ("gymnax/Acrobot-v1", {"available_torque": "x"}, "must be numbers of shape"),
        ("CartPole-v1", {"low": "x"}, "CartPole-v1 can't be reset with them \\(ValueError"),
    ],
)
def test_options_that_make_no_sense_are_refused(env_id: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"^--env_options.*{words}") as refusal:
        make_env(SMALL.replace(env_id=env_id, env_options=options))
    assert "\n" not in str(refusal.value)


def test_numbers_of_options_take_the_type_of_their_defaults() -> None:
    env: Any = make_env(SMALL.replace(env_id="gymnax/Acrobot-v1", env_options={"available_torque": [1, 2, 3], "dt": 1}))
    assert env._params.available_torque.dtype == np.float32
    env.reset(jax.random.key(0))
    assert type(env._params.dt) is float


def test_options_that_an_environment_does_not_read_get_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        make_env(SMALL.replace(env_id="CartPole-v1", env_options={"low": -0.01, "agent_view_size": 3}))
    assert capsys.readouterr().err == (
        "warning: --env_options: CartPole-v1 did not read agent_view_size in its reset; it may have no such option\n"
    )


@pytest.mark.parametrize(
    "read",
    [dict, list, json.dumps, lambda o: {**o}, lambda o: dict(**o), lambda o: {} | o, lambda o: [o["a"], o.get("b")],
     lambda o: o.copy(), lambda o: list(o.values()), lambda o: [k for k in "ab" if k in o],
     lambda o: [o.pop("a"), o.pop("b", 1)], lambda o: sorted(o.items())],
)  # fmt: skip
def test_every_way_of_reading_is_seen(read: Any) -> None:
    options = WatchedOptions({"a": 1, "b": 2})
    assert options.unread == {"a", "b"}
    read(options)
    assert options.unread == set()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (CartPole, "env is the class CartPole; pass an object of it, CartPole()"),
        ((CartPole, None), "env is the class CartPole"),
        ((CartPole(),), "env is a tuple"),
        ((1, 2), "env is a tuple"),
        ("CartPole-v1", "env must be a function"),
    ],
)
def test_objects_that_are_no_environment_get_one_line(env: Any, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_env(SMALL, env)
    assert words in str(refusal.value)


class _Unnamed(NamedTuple):
    gravity: float = 9.8


class _Parameterless(CartPole):
    """CartPole whose parameters are of another kind."""

    @property
    def default_params(self) -> Any:
        return _Unnamed()

    def observation_space(self, params: Any) -> Any:
        return super().observation_space(CartPole().default_params)


@pytest.mark.parametrize("params", [None, _Unnamed()])
def test_parameters_of_any_kind_are_taken_without_options(params: Any) -> None:
    env = make_env(SMALL, (_Parameterless(), params))
    assert env.spec.max_episode_steps == 1024
    with pytest.raises(ConfigError, match=r"^--env_options: .* has no parameters with names, but .*; leave it out$"):
        make_env(SMALL.replace(env_options={"gravity": 9.0}), (_Parameterless(), params))


def test_a_vector_of_nothing_is_refused() -> None:
    class Empty(Counter):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gymnasium.spaces.Box(-1, 1, (0,))

    with pytest.raises(ConfigError, match="Box\\(0, float32\\) are not supported"):
        make_env(SMALL, Empty)


def test_an_environment_that_needs_a_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any) -> None:
        raise urllib.error.URLError(OSError("Name or service\nnot known"))

    monkeypatch.setattr("gymnax.utils.load_mnist._download", no_network)
    with pytest.raises(ConfigError, match=r"--env_id gymnax/MNISTBandit-bsuite can't be made: URLError: .*not known"):
        make_env(SMALL.replace(env_id="gymnax/MNISTBandit-bsuite"))


def test_infos_whose_names_are_no_text_are_left_out() -> None:
    class Odd(Counter):
        def step(self, action: Any) -> tuple:
            infos = {5: 1.0, ("a", 1): 2.0, None: 3, "\ud800": 1, "\x1b[m": 2, "good": 7, "stream": io.StringIO()}
            return *super().step(action)[:4], infos

    env = make_env(SMALL, Odd)
    state, _ = env.reset(jax.random.key(0))
    for _ in range(3):
        state, step = env.step(state, jnp.zeros((2, 1), jnp.int32))
    jax.block_until_ready(step)
    results = env.pop_episode_results(step.episode)
    env.close()
    assert [set(result) - {"t"} for result in results] == [{"good", "r", "l"}] * 2
