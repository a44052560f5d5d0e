"""MiniGrid: as the original presents it, or with the package's own observations.

The original shows the three cells in front of the agent as a picture, 28 pixels a cell.
"""

import itertools
from typing import Any

from trxl_jax.errors import ConfigError

_VIEW, _TILE, _MAX_STEPS = 3, 28, 96
_MAX_MISSIONS = 1024


def is_minigrid(env_id: str) -> bool:
    """Whether an id is that of a MiniGrid task."""
    return "MiniGrid" in env_id or "BabyAI" in env_id


def make_minigrid(env_id: str, view: str = "original", mission: bool = False, **kwargs: Any) -> Any:
    """A MiniGrid task.

    Args:
        env_id: its id.
        view: "original": observations u8[84, 84, 3] and at most 96 steps. "symbolic": the package's own, a dict of the
            cells in sight, f32[7, 7, 3] (object, colour and state, each divided by its largest number), and the agent's
            direction. "pixels": the same with a picture of these cells, u8[56, 56, 3].
        mission: whether the observations tell which of the task's missions it is, as a choice.
        kwargs: arguments of its constructor.

    Raises:
        ConfigError: a mission that can't be observed.
    """
    import gymnasium
    from minigrid.wrappers import ImgObsWrapper, RGBImgPartialObsWrapper

    if view == "original":
        if mission:
            raise ConfigError("--minigrid_mission: the view original has none; add --minigrid_view symbolic or pixels")
        env = gymnasium.make(env_id, agent_view_size=_VIEW, tile_size=_TILE, disable_env_checker=True, **kwargs)
        env = ImgObsWrapper(RGBImgPartialObsWrapper(env, tile_size=_TILE))
        return gymnasium.wrappers.TimeLimit(env, _MAX_STEPS)
    env = gymnasium.make(env_id, disable_env_checker=True, **kwargs)
    own: Any = env.unwrapped
    env = gymnasium.wrappers.TimeLimit(env, own.max_steps)  # its own limit, which Gymnasium doesn't know
    return _in_arrays(RGBImgPartialObsWrapper(env) if view == "pixels" else env, env_id, view, mission)


def _in_arrays(env: Any, env_id: str, view: str, mission: bool) -> Any:
    """Observations without text."""
    import gymnasium
    import numpy as np
    from gymnasium.spaces import Box, Dict, Discrete
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

    own: Any = env.observation_space
    image = own["image"]
    largest = np.array([max(names.values()) for names in (OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX)], np.float32)
    if view == "symbolic":
        image = Box(0.0, 1.0, image.shape, np.float32)
    missions = _missions(env_id, own["mission"]) if mission else []
    spaces = {"image": image, "direction": own["direction"]} | ({"mission": Discrete(len(missions))} if mission else {})

    def in_arrays(obs: dict[str, Any]) -> dict[str, Any]:
        cells = obs["image"] / largest if view == "symbolic" else obs["image"]
        seen = {"image": cells.astype(image.dtype), "direction": obs["direction"]}
        return seen | ({"mission": missions.index(obs["mission"])} if mission else {})

    return gymnasium.wrappers.TransformObservation(env, in_arrays, Dict(spaces))


def _missions(env_id: str, space: Any) -> list[str]:
    """All missions of a task."""
    placeholders = space.ordered_placeholders or []
    count = 1
    for words in placeholders:
        count *= len(words)
    if count > _MAX_MISSIONS or "BabyAI" in env_id:
        raise ConfigError(f"--minigrid_mission: {env_id} has too many missions to number them; leave it out")
    return [space.mission_func(*words) for words in itertools.product(*placeholders)]
