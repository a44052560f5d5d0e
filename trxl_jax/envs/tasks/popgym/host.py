"""The released POPGym on the host. Worker processes import this module, hence it doesn't use JAX."""

from importlib.util import find_spec
from typing import Any

from trxl_jax.envs.tasks.popgym import HOST_PREFIX, TASKS
from trxl_jax.errors import ConfigError

INSTALL = "pip install popgym==1.0.7"
INSTALL_MAZES = "pip install mazelib==0.9.16"


def is_popgym(env_id: str) -> bool:
    """Whether an id is that of a task of the released package."""
    return env_id.startswith(HOST_PREFIX)


def register_popgym(env_id: str) -> None:
    """Registers the released package's tasks with Gymnasium.

    Raises:
        ConfigError: it is not installed, or mazelib isn't, which its mazes need.
    """
    name = env_id.removeprefix(HOST_PREFIX)
    device = f"; or step it on the device: --backend device, or --env_id popgym/{name}" if name in TASKS else ""
    try:
        import popgym as _  # noqa: F401 - registers its tasks
    except ModuleNotFoundError as error:
        if error.name != "popgym":
            raise
        raise ConfigError(f"--env_id {env_id} needs popgym: {INSTALL}{device}") from None
    if name.startswith("Labyrinth") and find_spec("mazelib") is None:
        raise ConfigError(f"--env_id {env_id} needs mazelib: {INSTALL_MAZES}{device}")


def make_popgym(env_id: str, **kwargs: Any) -> Any:
    """A task of the released package, which draws no pictures but tells its longest episode as `max_episode_steps`."""
    import gymnasium

    kwargs.pop("render_mode", None)
    env = gymnasium.make(env_id, disable_env_checker=True, **kwargs)
    task: Any = env.unwrapped
    task.max_episode_steps = _longest_episode(task)
    return env


def _longest_episode(task: Any) -> int | None:
    if hasattr(task, "maze_dims"):
        return int(task.max_episode_length) - 1
    for name in ("max_episode_length", "episode_length"):
        if hasattr(task, name):
            return int(getattr(task, name))
    return int(task.deck_size) - 1 if hasattr(task, "deck_size") else None
