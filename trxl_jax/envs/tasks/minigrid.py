"""MiniGrid as the original presents it: the three cells in front of the agent as a picture, 28 pixels a cell."""

from typing import Any

_VIEW, _TILE, _MAX_STEPS = 3, 28, 96


def is_minigrid(env_id: str) -> bool:
    """Whether an id is that of a MiniGrid task."""
    return "MiniGrid" in env_id


def make_minigrid(env_id: str, **kwargs: Any) -> Any:
    """A MiniGrid task with observations u8[84, 84, 3] and at most 96 steps."""
    import gymnasium
    from minigrid.wrappers import ImgObsWrapper, RGBImgPartialObsWrapper

    env = gymnasium.make(env_id, agent_view_size=_VIEW, tile_size=_TILE, disable_env_checker=True, **kwargs)
    env = ImgObsWrapper(RGBImgPartialObsWrapper(env, tile_size=_TILE))
    return gymnasium.wrappers.TimeLimit(env, _MAX_STEPS)
