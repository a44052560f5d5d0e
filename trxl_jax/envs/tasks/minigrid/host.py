"""MiniGrid as the original presents it: the three cells in front of the agent as a picture, 28 pixels a cell."""

from typing import Any

VIEW, TILE, MAX_STEPS = 3, 28, 96
"""Cells that the agent sees along each side, pixels along a cell's side, and the limit of an episode."""


def is_minigrid(env_id: str) -> bool:
    """Whether an id is that of a MiniGrid task."""
    return "MiniGrid" in env_id


def make_minigrid(env_id: str, num_actions: int | None = None, **kwargs: Any) -> Any:
    """A MiniGrid task with observations u8[84, 84, 3] and at most 96 steps.

    Args:
        env_id: the task.
        num_actions: offer only its first actions: with 3 turn left, turn right and forward, which is all that moves
            the agent; None: all 7.
        kwargs: arguments of MiniGrid's constructor.

    Raises:
        ValueError: it has no such number of actions.
    """
    import gymnasium
    from minigrid.wrappers import ImgObsWrapper, RGBImgPartialObsWrapper

    env = gymnasium.make(env_id, agent_view_size=VIEW, tile_size=TILE, disable_env_checker=True, **kwargs)
    env = ImgObsWrapper(RGBImgPartialObsWrapper(env, tile_size=TILE))
    if num_actions is not None:
        most = int(env.action_space.n)
        if type(num_actions) is not int or not 1 <= num_actions <= most:
            raise ValueError(f"num_actions must be a whole number from 1 to {most}, not {num_actions!r}")
        # The rest needs no wrapper: an action is passed on as it is.
        env = gymnasium.wrappers.TransformAction(env, lambda action: action, gymnasium.spaces.Discrete(num_actions))
    return gymnasium.wrappers.TimeLimit(env, MAX_STEPS)
