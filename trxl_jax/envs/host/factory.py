"""Makes single Gymnasium environments from ids. Worker processes import this module, hence nothing here uses JAX."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from trxl_jax.envs.host.episode import is_interrupt
from trxl_jax.envs.near_names import near_names
from trxl_jax.envs.tasks import memory_gym, popgym
from trxl_jax.envs.tasks.minigrid.host import is_minigrid, make_minigrid
from trxl_jax.envs.tasks.popgym.host import is_popgym, make_popgym, register_popgym
from trxl_jax.errors import ConfigError, brief
from trxl_jax.own_modules import import_own

_MEMORY_GYM_INSTALL = "pip install --no-deps memory-gym==1.0.2"
_MODULE_ID = "module:id first imports a module, which registers the id with gymnasium.register"


class Presentation(NamedTuple):
    """How Gymnasium environments are presented to the agent.

    Fields:
        wrapper: `module:name` of the user's own wrapper; None: there is none.
        minigrid_view: see `make_minigrid`.
        minigrid_mission: see `make_minigrid`.
    """

    wrapper: str | None = None
    minigrid_view: str = "original"
    minigrid_mission: bool = False


AS_IT_IS = Presentation()


def find_gymnasium(
    env_id: str, kwargs: Mapping[str, Any] | None = None, presentation: Presentation = AS_IT_IS
) -> Callable[..., Any]:
    """A function that makes the environment of an id.

    Args:
        env_id: a Gymnasium id, or `module:id`.
        kwargs: arguments of the environment's constructor.
        presentation: how it is presented.

    Raises:
        ConfigError: an unknown id, or a presentation that it can't have.
    """
    # Memory Gym opens an SDL display and mixer; the dummy drivers serve machines that have neither.
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    import gymnasium
    import minigrid  # noqa: F401 - registers its tasks

    import trxl_jax.envs.tasks.proof_of_memory.host
    import trxl_jax.envs.tasks.t_maze.host  # noqa: F401 - registers its task, as the other one does

    _register_memory_gym(env_id)
    if is_popgym(env_id):
        register_popgym(env_id)
    module, _, name = env_id.rpartition(":")
    if module:
        import_own(module, f"--env_id {env_id}", _MODULE_ID)
    if name not in gymnasium.registry:
        popgym_ids = (popgym.HOST_PREFIX + task for task in popgym.TASKS)
        near = near_names(name, sorted({*gymnasium.registry, *memory_gym.NAMES, *popgym_ids}))
        own = f"{module} does not register it" if module else _MODULE_ID
        raise ConfigError(f"--env_id: unknown environment {brief(env_id)}; {near}; {own}")
    if presentation[1:] != AS_IT_IS[1:] and not is_minigrid(env_id):
        raise ConfigError(f"--minigrid_view and --minigrid_mission: {env_id} is no task of MiniGrid; leave them out")
    made = partial(_make, env_id, presentation, **(kwargs or {}))
    return partial(make_presented, made, presentation) if presentation.wrapper else made


def make_presented(make: Callable[..., Any], presentation: Presentation, **kwargs: Any) -> Any:
    """An environment in the user's wrapper.

    Raises:
        ConfigError: there is no such wrapper, or it does not make a Gymnasium environment.
    """
    import gymnasium

    flag = f"--wrapper {presentation.wrapper}"
    module, _, name = (presentation.wrapper or "").rpartition(":")
    hint = "write module:name, a class or function that takes an environment and returns one"
    if not module:
        raise ConfigError(f"{flag}: {hint}")
    wrap = getattr(import_own(module, flag, hint), name, None)
    if not callable(wrap):
        raise ConfigError(f"{flag}: {module} has no {name}; {hint}")
    env = make(**kwargs)
    try:
        wrapped = wrap(env)
    except Exception as error:  # it may raise anything
        raise ConfigError(f"{flag} failed: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(wrapped, gymnasium.Env):
        raise ConfigError(f"{flag} returned an object of {type(wrapped).__name__}; {hint}")
    return wrapped


def _register_memory_gym(env_id: str) -> None:
    """Registers Memory Gym's tasks if its package is installed. It can't be a dependency; see pyproject.toml.

    Raises:
        ConfigError: it is not installed, and `env_id` is one of its tasks.
    """
    try:
        import memory_gym as _  # noqa: F401 - registers its tasks
    except ModuleNotFoundError as error:
        if error.name != "memory_gym":
            raise
        name = env_id.removeprefix("memory_gym:")
        if name in memory_gym.NAMES:
            raise ConfigError(
                f"--env_id {env_id} needs memory-gym: {_MEMORY_GYM_INSTALL}; "
                f"or step it on the device: --backend device, or --env_id jax/{name}"
            ) from None


def _make(env_id: str, presentation: Presentation, **kwargs: Any) -> Any:
    import gymnasium

    find_gymnasium(env_id)  # again in each worker process, whose registry starts empty
    try:
        if is_minigrid(env_id):
            return make_minigrid(env_id, presentation.minigrid_view, presentation.minigrid_mission, **kwargs)
        if is_popgym(env_id):
            return make_popgym(env_id, **kwargs)
        return gymnasium.make(env_id, disable_env_checker=True, **kwargs)
    except ConfigError:
        raise
    except BaseException as error:  # a constructor may raise anything, `SystemExit` included
        if is_interrupt(error):
            raise
        given = {name: value for name, value in kwargs.items() if name != "render_mode"}
        with_kwargs = f" with --env_kwargs {given}" if given else ""
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"--env_id {env_id} can't be made{with_kwargs}: {reason}") from error
