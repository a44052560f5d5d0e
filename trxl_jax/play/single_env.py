"""One environment that is stepped from Python and can be shown to a person."""

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.config import Config
from trxl_jax.envs.base import Environment, EnvSpec
from trxl_jax.envs.device.environment import DeviceEnvironment
from trxl_jax.envs.host.episode import RESULT, EpisodeRules, EpisodeWrapper, is_memory_gym, make_wrapped
from trxl_jax.envs.registry import episode_rules, find_env, make_env
from trxl_jax.envs.results import results_from_stats
from trxl_jax.errors import ConfigError
from trxl_jax.play.obs_pictures import pictures_of
from trxl_jax.play.record import ActionNames

_DEFAULT_FPS = 10
# Memory Gym's first mode also draws what the agent can't see, which is what a person should see.
_PICTURE_MODES = ("debug_rgb_array", "rgb_array")


class SingleEnv(Protocol):
    """One environment between two steps.

    Fields:
        env_id: the task.
        seed: determines, together with an episode's number, everything random in that episode.
        spec: observations, actions and episode limit.
        fps: frames per second for people.
        action_names: names of the choices in each action branch that has choices, where the environment gives them.
        column_names: names of an action's columns, where the environment gives them.
        obs: the current observation, [*obs_shape].
        picture: u8[height, width, 3], the whole task (ground truth); None if the task draws none.
    """

    env_id: str
    seed: int
    spec: EnvSpec
    fps: float
    action_names: ActionNames | None
    column_names: tuple[str, ...] | None
    obs: Any
    picture: np.ndarray | None

    def reset(self, episode: int) -> None:
        """Starts an episode by its number."""
        ...

    def step(self, action: np.ndarray) -> tuple[float, dict[str, float] | None]:
        """Steps with an action [C]; returns the reward and, if the episode ended, its results."""
        ...

    def pictures_of(self, obs: Any) -> list[np.ndarray]:
        """The pictures in an observation [*obs_shape], each u8[height, width, 3] with rows first."""
        ...

    def close(self) -> None:
        """Closes the environment."""
        ...


def make_single_env(config: Config, env: Any = None, *, pictures: bool = False) -> SingleEnv:
    """The environment that a configuration names.

    Args:
        config: env_id, env_kwargs, env_options, max_episode_steps, trxl_num_positions, seed and seed_bits matter.
        env: an object to use instead, as for `make_env`, but no batch of environments.
        pictures: whether `SingleEnv.picture` is wanted.

    Raises:
        ConfigError: as for `make_env`.
    """
    if isinstance(env, Environment):
        raise ConfigError("a single environment can't be made from a batch; pass a function that makes one as `env`")
    batch = make_env(config.replace(async_envs=False), env)
    if isinstance(batch, DeviceEnvironment):
        return DeviceSingleEnv(config.env_id, batch, config.seed, pictures=pictures)
    found = find_env(config, env)
    assert callable(found)
    make = _drawing(found) if pictures and env is None else found
    return HostSingleEnv(config.env_id, batch.spec, make, episode_rules(config, passed=env is not None))


class HostSingleEnv:
    """A Gymnasium environment; see `SingleEnv`.

    Args:
        env_id: the task.
        spec: what an agent must know of it.
        make: makes one environment. Pictures are drawn if it was made with such a render mode.
        rules: seed, options and limit of every episode.
    """

    def __init__(self, env_id: str, spec: EnvSpec, make: Callable[[], Any], rules: EpisodeRules) -> None:
        self.env_id, self.spec, self.seed = env_id, spec, rules.seed
        self._env = make_wrapped(make, rules)
        self._draws = self._env.render_mode in _PICTURE_MODES
        self._x_first = is_memory_gym(self._env)
        self.action_names = _action_names(self._env.unwrapped, spec.action.nvec)
        self.column_names = self._env.native_actions.names
        self.fps: float = self._env.metadata.get("render_fps") or _DEFAULT_FPS
        self.obs = spec.zero_obs()
        self.picture: np.ndarray | None = None

    def reset(self, episode: int) -> None:
        """Starts an episode by its number."""
        self._env.episode = episode
        self.obs, _ = self._env.reset()
        self._draw()

    def step(self, action: np.ndarray) -> tuple[float, dict[str, float] | None]:
        """Steps with an action [C]; returns the reward and, if the episode ended, its results."""
        self.obs, reward, _, _, info = self._env.step(action)
        self._draw()
        return reward, info.get(RESULT)

    def pictures_of(self, obs: Any) -> list[np.ndarray]:
        """The pictures in an observation [*obs_shape], each u8[height, width, 3] with rows first."""
        return pictures_of(self.spec.obs, obs, x_first=self._x_first)

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _draw(self) -> None:
        # Once a step and no more: Memory Gym's drawing counts the commands it has shown.
        if self._draws:
            self.picture = np.asarray(self._env.render(), np.uint8)


class DeviceSingleEnv:
    """A gymnax environment; see `SingleEnv`. After the last step `obs` and `picture` stay what they were.

    Args:
        env_id: the task.
        env: a batch of one.
        seed: of all episodes.
        pictures: whether to draw; most of gymnax's environments can't.
    """

    action_names: ActionNames | None = None

    def __init__(self, env_id: str, env: DeviceEnvironment, seed: int, *, pictures: bool = False) -> None:
        self.env_id, self.spec, self.seed = env_id, env.spec, seed
        self.column_names = env.native_actions.names
        self.fps: float = env.fps or _DEFAULT_FPS
        self._reset, self._step = jax.jit(env.reset), jax.jit(env.step)
        self._draw = jax.jit(env.draw) if pictures and env.draws else None
        self._x_first = env.x_first
        self._state: Any = None
        self.obs = env.spec.zero_obs()
        self.picture: np.ndarray | None = None

    def reset(self, episode: int) -> None:
        """Starts an episode by its number."""
        self._state, obs = self._reset(jax.random.fold_in(jax.random.key(self.seed), episode))
        self._look(obs)

    def step(self, action: np.ndarray) -> tuple[float, dict[str, float] | None]:
        """Steps with an action [C]; returns the reward and, if the episode ended, its results."""
        self._state, step = self._step(self._state, jnp.asarray(action)[None])
        ended = results_from_stats(jax.tree.map(lambda x: x[None], step.episode))
        if not ended:
            self._look(step.obs)
        return step.reward[0].item(), ended[0] if ended else None

    def pictures_of(self, obs: Any) -> list[np.ndarray]:
        """The pictures in an observation [*obs_shape], each u8[height, width, 3] with rows first."""
        return pictures_of(self.spec.obs, obs, x_first=self._x_first)

    def close(self) -> None:
        """Nothing to free."""

    def _look(self, obs: Any) -> None:
        self.obs = jax.tree.map(lambda array: np.asarray(array[0]), obs)
        if self._draw is not None:
            self.picture = np.asarray(self._draw(self._state)[0])


def _action_names(env: Any, nvec: tuple[int, ...]) -> ActionNames | None:
    """Names by the conventions of Atari (`get_action_meanings`) and MiniGrid (`actions`, an enumeration)."""
    kind = getattr(env, "actions", None)
    if hasattr(env, "get_action_meanings"):
        names = [str(name) for name in env.get_action_meanings()]
    elif isinstance(kind, type) and issubclass(kind, Enum):
        names = [choice.name for choice in kind]
    else:
        return None
    # A wrapper may have left some out.
    return (tuple(name.lower().replace("_", " ") for name in names),) if nvec == (len(names),) else None


def _drawing(make: Callable[..., Any]) -> Callable[[], Any]:
    """The same environment with the best of its render modes."""
    plain = make()
    known = plain.metadata.get("render_modes") or ()
    EpisodeWrapper(plain).close()
    mode = next((mode for mode in _PICTURE_MODES if mode in known), None)
    return make if mode is None else partial(make, render_mode=mode)
