"""Makes single Gymnasium environments from ids. Worker processes import this module, hence nothing here uses JAX."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from trxl_jax.envs.near_names import near_names
from trxl_jax.envs.tasks.minigrid import is_minigrid, make_minigrid
from trxl_jax.errors import ConfigError


def find_gymnasium(env_id: str) -> Callable[..., Any]:
    """A function that makes the environment of an id.

    Raises:
        ConfigError: an unknown id.
    """
    # Memory Gym opens an SDL display and mixer; the dummy drivers serve machines that have neither.
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    import gymnasium
    import memory_gym  # noqa: F401 - registers its tasks
    import minigrid  # noqa: F401 - registers its tasks

    import trxl_jax.envs.tasks.proof_of_memory.host  # noqa: F401 - registers its task

    # Gymnasium's module:id imports the module first.
    if ":" not in env_id and env_id not in gymnasium.registry:
        raise ConfigError(f"--env_id: unknown environment {env_id}; {near_names(env_id, list(gymnasium.registry))}")
    return partial(_make, env_id)


def _make(env_id: str, **kwargs: Any) -> Any:
    import gymnasium

    find_gymnasium(env_id)  # again in each worker process, whose registry starts empty
    try:
        if is_minigrid(env_id):
            return make_minigrid(env_id, **kwargs)
        return gymnasium.make(env_id, disable_env_checker=True, **kwargs)
    except Exception as error:  # a constructor may raise anything
        raise ConfigError(f"--env_id {env_id} can't be made: {' '.join(str(error).split())}") from error
