"""MiniGrid: as the original presents it, or with the package's own observations.

The original shows the three cells in front of the agent as a picture, 28 pixels a cell.
"""

import itertools
from typing import Any

from trxl_jax.errors import ConfigError, brief

VIEW, TILE, MAX_STEPS = 3, 28, 96
"""Cells that the agent sees along each side, pixels along a cell's side, and the limit of an episode."""

SYMBOLS = (11, 6, 3)
"""Numbers of kinds of objects, of colours and of states that MiniGrid's symbols of a cell may have."""

SYMBOLIC_VIEW, SYMBOLIC_VIEWS = 7, (3, 5, 7, 9, 11)
"""Cells along a side of a view of symbols: the package's default, and those that tasks offer."""

_MAX_MISSIONS = 1024


def is_minigrid(env_id: str) -> bool:
    """Whether an id, without a module or a namespace before it, begins like those of MiniGrid's tasks."""
    return env_id.replace(":", "/").rpartition("/")[2].startswith(("MiniGrid-", "BabyAI-"))


def make_minigrid(
    env_id: str,
    view: str = "original",
    mission: bool = False,
    num_actions: int | None = None,
    symbolic: bool = False,
    **kwargs: Any,
) -> Any:
    """A MiniGrid task.

    Args:
        env_id: its id.
        view: "original": observations u8[84, 84, 3] and at most 96 steps. "symbolic": the package's own, a dict of the
            cells in sight, choices [7, 7, 3] (object, colour and state by their numbers), and the agent's direction.
            "pixels": the same with a picture of these cells, u8[56, 56, 3].
        mission: whether the observations tell which of the task's missions it is, as a choice.
        num_actions: offer only its first actions: with 3 turn left, turn right and forward, which is all that moves
            the agent; None: all 7.
        symbolic: with the view "original", show the cells by their numbers instead of a picture, choices
            [size, size, 3], and `agent_view_size` of them along a side: 3, 5, 7, 9 or 11.
        kwargs: arguments of MiniGrid's constructor.

    Raises:
        ConfigError: a mission that can't be observed.
        ValueError: it has no such number of actions, or there is no such view.
    """
    import gymnasium

    if type(symbolic) is not bool:
        raise ValueError(f"symbolic must be true or false, not {brief(symbolic)}")
    if view != "original":
        if symbolic:
            raise ValueError(f"symbolic and --minigrid_view {view} exclude each other; leave one of them out")
        return _with_actions(_with_own_observations(env_id, view, mission, kwargs), num_actions)
    if mission:
        raise ConfigError("--minigrid_mission: the view original has none; add --minigrid_view symbolic or pixels")
    size = view_size(kwargs.pop("agent_view_size", None), symbolic)
    from minigrid.wrappers import ImgObsWrapper, RGBImgPartialObsWrapper

    env = gymnasium.make(env_id, agent_view_size=size, tile_size=TILE, disable_env_checker=True, **kwargs)
    env = _as_choices(ImgObsWrapper(env)) if symbolic else ImgObsWrapper(RGBImgPartialObsWrapper(env, tile_size=TILE))
    return gymnasium.wrappers.TimeLimit(_with_actions(env, num_actions), MAX_STEPS)


def view_size(given: Any, symbolic: bool) -> int:
    """Cells along a side of the view that the options `agent_view_size` and `symbolic` ask for.

    Raises:
        ValueError: there is no such view.
    """
    if given is None:
        return SYMBOLIC_VIEW if symbolic else VIEW
    if given not in (SYMBOLIC_VIEWS if symbolic else (VIEW,)):
        sizes = "3, 5, 7, 9 or 11" if symbolic else f'{VIEW} without "symbolic": true'
        raise ValueError(f"agent_view_size must be {sizes}, not {brief(given)}")
    return int(given)


def _as_choices(env: Any) -> Any:
    """The numbers of a cell's object, colour and state, which name things, as choices."""
    import gymnasium

    choices = _choices(env.observation_space.shape)
    return gymnasium.wrappers.TransformObservation(env, lambda obs: obs.astype(choices.dtype), choices)


def _choices(shape: tuple[int, ...]) -> Any:
    """The space of symbols, of a shape whose last axis is object, colour and state."""
    import numpy as np
    from gymnasium.spaces import MultiDiscrete

    return MultiDiscrete(np.broadcast_to(SYMBOLS, shape))


def _with_actions(env: Any, num_actions: int | None) -> Any:
    import gymnasium

    if num_actions is None:
        return env
    most = int(env.action_space.n)
    if type(num_actions) is not int or not 1 <= num_actions <= most:
        raise ValueError(f"num_actions must be a whole number from 1 to {most}, not {num_actions!r}")
    # The rest needs no wrapper: an action is passed on as it is.
    return gymnasium.wrappers.TransformAction(env, lambda action: action, gymnasium.spaces.Discrete(num_actions))


def _with_own_observations(env_id: str, view: str, mission: bool, kwargs: dict[str, Any]) -> Any:
    import gymnasium
    from minigrid.wrappers import RGBImgPartialObsWrapper

    env = gymnasium.make(env_id, disable_env_checker=True, **kwargs)
    own: Any = env.unwrapped
    env = gymnasium.wrappers.TimeLimit(env, own.max_steps)  # its own limit, which Gymnasium doesn't know
    return _in_arrays(RGBImgPartialObsWrapper(env) if view == "pixels" else env, env_id, view, mission)


def _in_arrays(env: Any, env_id: str, view: str, mission: bool) -> Any:
    """Observations without text."""
    import gymnasium
    from gymnasium.spaces import Dict, Discrete

    own: Any = env.observation_space
    image = own["image"]
    if view == "symbolic":
        image = _choices(image.shape)
    missions = _missions(env_id, own["mission"]) if mission else []
    spaces = {"image": image, "direction": own["direction"]} | ({"mission": Discrete(len(missions))} if mission else {})

    def in_arrays(obs: dict[str, Any]) -> dict[str, Any]:
        seen = {"image": obs["image"].astype(image.dtype), "direction": obs["direction"]}
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
