"""Makes a batch of environments from an id or an environment object."""

from collections.abc import Callable
from functools import partial
from typing import Any

from trxl_jax.config import Config
from trxl_jax.envs.base import Environment
from trxl_jax.envs.host.episode import EpisodeRules
from trxl_jax.envs.host.factory import AS_IT_IS, Presentation, find_gymnasium, make_presented
from trxl_jax.envs.near_names import near_names
from trxl_jax.envs.tasks import memory_gym, minigrid, popgym, t_maze
from trxl_jax.errors import ConfigError, brief
from trxl_jax.values import like

DEVICE_PREFIX = "gymnax/"
JAX_PREFIX = "jax/"
"""Prefix of tasks that this project has on the device; without it an id is that of the package, on the host."""

POPGYM_PREFIX = "popgym/"
"""Prefix of POPGym's tasks on the device; the released package's ids begin with `popgym-`."""

_DEVICE_PREFIXES = (DEVICE_PREFIX, JAX_PREFIX, POPGYM_PREFIX)
_FAMILIES = (memory_gym, minigrid, t_maze)

CUSTOM_PREFIX = "custom/"
"""Prefix of the names that `train` gives to environments that are passed as objects."""


def make_env(config: Config, env: Any = None, first_env: int = 0) -> Environment:
    """The batch of environments that a configuration names.

    Args:
        config: num_envs, seed, seed_bits, env_id, env_kwargs, env_options, max_episode_steps, trxl_num_positions,
            async_envs, env_timeout, bootstrap_truncated, action_mask_key, wrapper, minigrid_view and minigrid_mission
            matter.
        env: an object to use instead of `config.env_id`: a function that makes one Gymnasium environment, a gymnax
            environment, or a gymnax environment with its parameters as a pair. A batch that fulfils
            `envs.base.Environment` is returned as it is: the settings of its task are those that it was made with.
        first_env: number of the first of them among all of the run, on which seeds on the host depend.

    Raises:
        ConfigError: an unknown id (the line lists near ones), spaces that the agent can't take, or options that
            the environment refuses.
    """
    if isinstance(env, Environment):
        if env.num_envs != config.num_envs:
            raise ConfigError(f"--num_envs {config.num_envs}: the environment passed in has {env.num_envs}")
        return env
    found = find_env(config, env)
    if isinstance(found, tuple):
        return _make_device(config, *found, passed=env is not None)
    from trxl_jax.envs.host.environment import HostEnvironment

    return HostEnvironment(
        found,
        config.num_envs,
        episode_rules(config, passed=env is not None),
        num_positions=config.trxl_num_positions,
        asynchronous=config.async_envs,
        timeout=config.env_timeout or None,
        send_final_obs=config.bootstrap_truncated,
        first_env=first_env,
    )


def episode_rules(config: Config, *, passed: bool = False) -> EpisodeRules:
    """What a configuration says of the episodes of host environments.

    Args:
        config: seed, env_id, env_options, max_episode_steps, seed_bits and action_mask_key matter.
        passed: whether the environment is an object of the user's, whose options are not looked at.

    Raises:
        ConfigError: an option that only the task's twin on the device has.
    """
    options = config.env_options if passed else _host_options(config.env_id, config.env_options)
    return EpisodeRules(config.seed, options, config.max_episode_steps, config.seed_bits, config.action_mask_key)


def find_env(config: Config, env: Any = None) -> Callable[..., Any] | tuple[Any, Any]:
    """A function that makes one Gymnasium environment, or a pair of a gymnax environment and its parameters.

    Args:
        config: env_id, env_kwargs, wrapper, minigrid_view and minigrid_mission matter.
        env: an object to use instead, as for `make_env`.

    Raises:
        ConfigError: an unknown id, an object that is neither, or flags that can't be used.
    """
    presentation = Presentation(config.wrapper, config.minigrid_view, config.minigrid_mission)
    found = _find_unwrapped(config, env, presentation)
    if isinstance(found, tuple) and presentation != AS_IT_IS:
        flag = "wrapper" if config.wrapper else "minigrid_view and --minigrid_mission"
        raise ConfigError(f"--{flag}: only tasks on the host have them; leave them out, or use --backend host")
    return found


def _find_unwrapped(config: Config, env: Any, presentation: Presentation) -> Callable[..., Any] | tuple[Any, Any]:
    env_id, kwargs = config.env_id, config.env_kwargs
    if kwargs and (env is not None or env_id.startswith(_DEVICE_PREFIXES)):
        passed = "an environment that is passed as an object is made already"
        device = f"{env_id} runs on the device, where tasks are set by --env_options"
        raise ConfigError(f"--env_kwargs: {device if env is None else passed}; leave it out")
    if env is None and env_id.startswith(CUSTOM_PREFIX):
        raise ConfigError(f"{env_id} was passed as an object when it was trained on; pass it again as `env`")
    if env is None and env_id.startswith(DEVICE_PREFIX):
        return _find_gymnax(env_id.removeprefix(DEVICE_PREFIX))
    if env is None and env_id.startswith(JAX_PREFIX):
        return _find_own(env_id.removeprefix(JAX_PREFIX))
    if env is None and env_id.startswith(POPGYM_PREFIX):
        return _find_popgym(env_id.removeprefix(POPGYM_PREFIX))
    if env is None:
        return find_gymnasium(env_id, kwargs, presentation)
    inner = env[0] if isinstance(env, tuple) and env else env
    is_gymnax = hasattr(inner, "step_env") or hasattr(inner, "default_params")
    if is_gymnax and isinstance(inner, type):
        raise ConfigError(f"env is the class {inner.__name__}; pass an object of it, {inner.__name__}()")
    if isinstance(env, tuple):
        if len(env) != 2 or not (is_gymnax or hasattr(inner, "step")):
            raise ConfigError("env is a tuple, but not a gymnax environment and its parameters")
        return env
    if is_gymnax:
        return env, env.default_params
    if not callable(env):
        raise ConfigError(
            f"env must be a function that makes a Gymnasium environment or a gymnax one, not {brief(env)}"
        )
    if presentation[1:] != AS_IT_IS[1:]:
        flag = "minigrid_mission" if presentation.minigrid_view == AS_IT_IS.minigrid_view else "minigrid_view"
        raise ConfigError(f"--{flag}: an environment that is passed as an object has its own view; leave it out")
    return partial(make_presented, env, presentation) if presentation.wrapper else env


def is_on_device(env_id: str) -> bool:
    """Whether an id is that of a task on the device."""
    return env_id.startswith(_DEVICE_PREFIXES)


def on_backend(env_id: str, backend: str) -> str:
    """The id of the same task on a backend, `host` or `device`.

    Raises:
        ConfigError: it exists only on the other one.
    """
    twins = _twins()
    if backend == "host":
        twins = {device: host for host, device in twins.items()}
    if env_id in twins.values() or (backend == "host") != env_id.startswith(_DEVICE_PREFIXES):
        return env_id
    if env_id not in twins:
        raise ConfigError(f"--backend {backend}: {env_id} does not exist there; these do: {', '.join(sorted(twins))}")
    return twins[env_id]


def move_to_backend(config: Config, backend: str) -> Config:
    """The configuration with the same task on a backend, `host` or `device`.

    What a constructor takes on the host (MiniGrid, T-Maze), `env_kwargs`, are options on the device, `env_options`.

    Raises:
        ConfigError: the task, or an option that it is given, exists only on the other one.
    """
    env_id = on_backend(config.env_id, backend)
    moved = config.replace(env_id=env_id)
    name = (env_id if backend == "device" else config.env_id).removeprefix(JAX_PREFIX)
    if env_id == config.env_id:
        return moved
    if backend == "host":
        moved = moved.replace(env_options=_host_options(env_id, config.env_options))
    if name not in (*minigrid.NAMES, *t_maze.NAMES):
        return moved
    if backend == "device":
        return moved.replace(env_options=config.env_options | config.env_kwargs, env_kwargs={})
    return moved.replace(env_options={}, env_kwargs=config.env_kwargs | moved.env_options)


def _host_options(env_id: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a task on the host, without those that only its twin on the device has, if these have defaults."""
    given = dict(options)
    if not given:
        return given
    for family in (memory_gym, minigrid, popgym):
        for option, default in family.device_options(env_id).items():
            if given.pop(option, default) != default:
                raise ConfigError(
                    f"--env_options: {env_id} has the option {option} on the device only; use --backend device"
                )
    return given


def _twins() -> dict[str, str]:
    """Ids on the device of the tasks that exist on both sides, by their ids on the host."""
    from trxl_jax.envs.tasks.proof_of_memory.host import ENV_ID
    from trxl_jax.envs.tasks.t_maze.host import ENV_ID as T_MAZE

    packages = {name: JAX_PREFIX + name for name in (*memory_gym.NAMES, *minigrid.NAMES)}
    packages |= {popgym.HOST_PREFIX + name: POPGYM_PREFIX + name for name in popgym.TASKS}
    return {ENV_ID: DEVICE_PREFIX + ENV_ID, T_MAZE: JAX_PREFIX + t_maze.NAMES[0]} | packages


def make_single(env_id: str, **kwargs: Any) -> Any:
    """One Gymnasium environment with the observations that the agent is trained on (MiniGrid's: `make_minigrid`).

    Raises:
        ConfigError: an unknown id.
    """
    return find_gymnasium(env_id)(**kwargs)


def require_no_import(config: Config, *, allow_import: bool) -> None:
    """Refuses a configuration from a file if making its environment or agent runs code that the file chooses.

    Args:
        config: from a run's `config.json`, which may be a stranger's.
        allow_import: whether the user trusts it.

    Raises:
        ConfigError: it names a module, which would be imported, and that isn't allowed.
    """
    if config.names_module and not allow_import:
        where = "env_kwargs name another task"
        named = (("core", config.core), ("wrapper", config.wrapper), ("environment", config.env_id))
        for name, value in named:
            where = f"{name} is {brief(value)}" if ":" in (value or "") else where
        raise ConfigError(
            f"this run's {where}, for which a module that it names is imported; if you trust it, add --allow_import "
            "(in Python: allow_import=True)"
        )


def _make_device(config: Config, env: Any, params: Any, *, passed: bool) -> Environment:
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
        num_positions=config.trxl_num_positions,
        send_final_obs=config.bootstrap_truncated,
        mask_key=config.action_mask_key,
    )


def _with_fields(env: Any, params: Any, fields: dict[str, Any]) -> Any:
    """Parameters of a gymnax environment with some fields changed."""
    if not fields:
        return params
    if not (hasattr(params, "__dict__") and hasattr(params, "replace")):
        raise ConfigError(f"--env_options: {env.name} has no parameters with names, but {brief(params)}; leave it out")
    known, changed = vars(params), {}
    for name, value in fields.items():
        if name not in known:
            raise ConfigError(f"--env_options: {env.name} has no parameter {brief(name)}; it has {sorted(known)}")
        try:
            changed[name] = like(known[name], value)
        except ValueError as error:
            raise ConfigError(f"--env_options: {name} {brief(value)}: {error}, like {brief(known[name])}") from None
    return params.replace(**changed)


def _find_gymnax(name: str) -> tuple[Any, Any]:
    import gymnax

    from trxl_jax.envs.tasks.proof_of_memory.device import ProofOfMemory
    from trxl_jax.envs.tasks.proof_of_memory.host import ENV_ID

    if name == ENV_ID:
        env = ProofOfMemory()
        return env, env.default_params
    known = [*gymnax.registered_envs, ENV_ID]
    if name not in known:
        raise ConfigError(
            f"--env_id: unknown environment {brief(DEVICE_PREFIX + name)}; {near_names(name, known, DEVICE_PREFIX)}"
        )
    try:
        return gymnax.make(name)
    except Exception as error:  # MNISTBandit downloads its pictures
        raise ConfigError(
            f"--env_id {DEVICE_PREFIX}{name} can't be made: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def _find_own(name: str) -> tuple[Any, Any]:
    for family in _FAMILIES:
        if name in family.NAMES:
            return tuple(family.find_task(name).from_options({}))
    near = near_names(name, [known for family in _FAMILIES for known in family.NAMES], JAX_PREFIX)
    raise ConfigError(f"--env_id: unknown environment {brief(JAX_PREFIX + name)}; {near}")


def _find_popgym(name: str) -> tuple[Any, Any]:
    if name not in popgym.TASKS:
        near = near_names(name, list(popgym.TASKS), POPGYM_PREFIX)
        raise ConfigError(f"--env_id: unknown environment {brief(POPGYM_PREFIX + name)}; {near}")
    task = popgym.TASKS[name]()
    return task, task.default_params
