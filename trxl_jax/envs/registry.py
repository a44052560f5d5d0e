"""From an id, or an environment object, to a batch of environments."""

import difflib
import os
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from trxl_jax.config import Config
from trxl_jax.envs.tasks import memory_gym
from trxl_jax.errors import ConfigError

if TYPE_CHECKING:
    from trxl_jax.envs.base import Environment

DEVICE_PREFIX = "gymnax/"
MEMORY_GYM_PREFIX = "jax/"
"""Memory Gym's tasks on the device; without it they are the released package's on the host."""

_MEMORY_GYM_INSTALL = "pip install --no-deps memory-gym==1.0.2"
_ONLY_ON_HOST = ("MortarMayhemB-v0", "MortarMayhemB-Grid-v0")

CUSTOM_PREFIX = "custom/"
"""What `train` calls a task that was passed as an object."""

# MiniGrid as the original presents it: the three cells in front of the agent, 28 pixels each.
_MINIGRID_VIEW, _MINIGRID_TILE, _MINIGRID_STEPS = 3, 28, 96


def make_env(config: Config, env: Any = None) -> "Environment":
    """The batch of environments that a configuration names.

    Args:
        config: num_envs, seed, env_id, env_options, max_episode_steps, async_envs, env_timeout and
            bootstrap_truncated matter.
        env: an object in place of `config.env_id`: a function that makes one Gymnasium environment, a gymnax
            environment, or a gymnax environment with its parameters as a pair. What fulfils
            `envs.base.Environment` already is returned as it is.

    Raises:
        ConfigError: an unknown id (the line lists near ones), spaces that the agent can't take, or options that
            the environment refuses.
    """
    if hasattr(env, "drain_results"):
        if env.num_envs != config.num_envs:
            raise ConfigError(f"--num_envs {config.num_envs}: the environment passed in has {env.num_envs}")
        return env
    found = find_env(config.env_id, env)
    if isinstance(found, tuple):
        return _make_device(config, *found, passed=env is not None)
    from trxl_jax.envs.host.environment import HostEnvironment

    return HostEnvironment(
        found,
        config.num_envs,
        seed=config.seed,
        options=config.env_options,
        max_episode_steps=config.max_episode_steps,
        asynchronous=config.async_envs,
        timeout=config.env_timeout or None,
        send_final_obs=config.bootstrap_truncated,
    )


def find_env(env_id: str, env: Any = None) -> Callable[..., Any] | tuple[Any, Any]:
    """What makes one Gymnasium environment, or a gymnax environment with its parameters; arguments as for `make_env`.

    Raises:
        ConfigError: an unknown id, or an object that is neither.
    """
    if env is None and env_id.startswith(CUSTOM_PREFIX):
        raise ConfigError(f"{env_id} was passed as an object when it was trained on; pass it again as `env`")
    if env is None and env_id.startswith(DEVICE_PREFIX):
        return _find_gymnax(env_id.removeprefix(DEVICE_PREFIX))
    if env is None and env_id.startswith(MEMORY_GYM_PREFIX):
        return _find_memory_gym(env_id.removeprefix(MEMORY_GYM_PREFIX))
    if env is None:
        return _find_gymnasium(env_id)
    if isinstance(env, tuple):
        return env
    if hasattr(env, "step_env") or hasattr(env, "default_params"):
        return env, env.default_params
    if not callable(env):
        raise ConfigError(f"env must be a function that makes a Gymnasium environment or a gymnax one, not {env!r}")
    return env


def on_backend(env_id: str, backend: str) -> str:
    """Id of the same task on the other side: `host` or `device`.

    Raises:
        ConfigError: it is only on one.
    """
    from trxl_jax.envs.tasks.proof_of_memory.host import ENV_ID

    twins = {ENV_ID: DEVICE_PREFIX + ENV_ID} | {name: MEMORY_GYM_PREFIX + name for name in memory_gym.NAMES}
    if backend == "host":
        twins = {device: host for host, device in twins.items()}
    if env_id in twins.values() or (backend == "host") != env_id.startswith((DEVICE_PREFIX, MEMORY_GYM_PREFIX)):
        return env_id
    if env_id not in twins:
        raise ConfigError(f"--backend {backend}: {env_id} has no twin there; these have: {', '.join(sorted(twins))}")
    return twins[env_id]


def make_single(env_id: str, **kwargs: Any) -> Any:
    """One Gymnasium environment as the agent is to see it; MiniGrid tasks as 84x84x3 images.

    Raises:
        ConfigError: an unknown id.
    """
    return _find_gymnasium(env_id)(**kwargs)


def _make_device(config: Config, env: Any, params: Any, *, passed: bool) -> "Environment":
    from trxl_jax.envs.device.environment import DeviceEnvironment

    if not hasattr(env, "from_options"):
        params = _with_fields(env, params, config.env_options)
    elif config.env_options and passed:
        raise ConfigError(f"--env_options: {env.name} was passed as an object; give them to its `from_options`")
    elif config.env_options:
        env, params = env.from_options(config.env_options)
    return DeviceEnvironment(
        env,
        params,
        config.num_envs,
        max_episode_steps=config.max_episode_steps,
        send_final_obs=config.bootstrap_truncated,
    )


def _with_fields(env: Any, params: Any, fields: dict[str, Any]) -> Any:
    """Parameters of a gymnax environment with some of them changed."""
    known = vars(params)
    for name, value in fields.items():
        if name not in known:
            raise ConfigError(f"--env_options: {env.name} has no parameter {name!r}; it has {sorted(known)}")
        if isinstance(known[name], int | float) and not isinstance(value, int | float):
            raise ConfigError(f"--env_options: {name} must be a number like {known[name]}, not {value!r}")
    return params.replace(**fields) if fields else params


def _find_gymnax(name: str) -> tuple[Any, Any]:
    import gymnax

    from trxl_jax.envs.tasks.proof_of_memory.device import ProofOfMemory
    from trxl_jax.envs.tasks.proof_of_memory.host import ENV_ID

    if name == ENV_ID:
        env = ProofOfMemory()
        return env, env.default_params
    known = [*gymnax.registered_envs, ENV_ID]
    if name not in known:
        raise ConfigError(f"--env_id: unknown environment {DEVICE_PREFIX}{name}; {_near(name, known, DEVICE_PREFIX)}")
    return gymnax.make(name)


def _find_memory_gym(name: str) -> tuple[Any, Any]:
    if name not in memory_gym.NAMES:
        near = _near(name, list(memory_gym.NAMES), MEMORY_GYM_PREFIX)
        raise ConfigError(f"--env_id: unknown environment {MEMORY_GYM_PREFIX}{name}; {near}")
    return tuple(memory_gym.find_task(name).from_options({}))


def _find_gymnasium(env_id: str) -> Callable[..., Any]:
    # Memory Gym opens an SDL display and mixer; dummies serve where the machine has neither.
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    import gymnasium
    import minigrid  # noqa: F401 - registers its tasks

    import trxl_jax.envs.tasks.proof_of_memory.host  # noqa: F401 - registers its task

    _register_memory_gym(env_id)
    if ":" not in env_id and env_id not in gymnasium.registry:  # Gymnasium's module:id imports the module first
        near = _near(env_id, sorted({*gymnasium.registry, *memory_gym.NAMES}))
        raise ConfigError(f"--env_id: unknown environment {env_id}; {near}")
    return partial(_make_gymnasium, env_id)


def _register_memory_gym(env_id: str) -> None:
    """Registers Memory Gym's tasks, if its package is installed; it can't be a dependency, see pyproject.toml.

    Raises:
        ConfigError: it isn't, and `env_id` is one of them.
    """
    try:
        import memory_gym as _  # noqa: F401 - registers its tasks
    except ModuleNotFoundError as error:
        if error.name != "memory_gym":
            raise
        name = env_id.removeprefix("memory_gym:")
        if name in memory_gym.NAMES:
            twin = f"; or step it on the device: --backend device, or --env_id {MEMORY_GYM_PREFIX}{name}"
        elif name in _ONLY_ON_HOST:
            twin = ""
        else:
            return
        raise ConfigError(f"--env_id {env_id} needs memory-gym: {_MEMORY_GYM_INSTALL}{twin}") from None


def _make_gymnasium(env_id: str, **kwargs: Any) -> Any:
    import gymnasium

    # Again in each worker process, whose registry starts empty.
    _find_gymnasium(env_id)
    try:
        if "MiniGrid" not in env_id:
            return gymnasium.make(env_id, disable_env_checker=True, **kwargs)
        from minigrid.wrappers import ImgObsWrapper, RGBImgPartialObsWrapper

        env = gymnasium.make(
            env_id, agent_view_size=_MINIGRID_VIEW, tile_size=_MINIGRID_TILE, disable_env_checker=True, **kwargs
        )
        env = ImgObsWrapper(RGBImgPartialObsWrapper(env, tile_size=_MINIGRID_TILE))
        return gymnasium.wrappers.TimeLimit(env, _MINIGRID_STEPS)
    except Exception as error:  # a constructor may raise anything
        raise ConfigError(f"--env_id {env_id} can't be made: {' '.join(str(error).split())}") from error


def _near(name: str, known: list[str], prefix: str = "") -> str:
    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    by_plain = {plain(text): text for text in known}
    near = difflib.get_close_matches(plain(name), by_plain, n=3, cutoff=0.6)
    if not near:
        return f"known are {', '.join(prefix + text for text in sorted(known)[:40])}, ..."
    return "did you mean " + ", ".join(prefix + by_plain[text] for text in near) + "?"
