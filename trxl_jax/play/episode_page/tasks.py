"""Task-specific knowledge of the page, by task id: axis order of frames, and names of actions and observations."""

from collections.abc import Sequence

from trxl_jax.play.record import ActionNames

_MEMORY_GYM = ("MortarMayhem", "MysteryPath", "SearingSpotlights")
_ASKING_FOR_SUITS = ("RepeatPrevious", "RepeatFirst", "Autoencode")

_MOVE = (("horizontal", ("stay", "left", "right")), ("vertical", ("stay", "up", "down")))
_TURN = (("action", ("stay", "turn left", "turn right", "forward")),)
_PATH = (("action", ("stay", "right", "up", "down")),)
_MINIGRID = (("action", ("turn left", "turn right", "forward", "pick up", "drop", "toggle", "done")),)
_CORRIDOR = (("action", ("left", "right")),)
_T_MAZE = (("action", ("right", "up", "left", "down")),)
_SUITS = (("suit", ("spade", "diamond", "club", "heart")),)
_GUESS = (("guess", ("higher", "lower")),)

Branches = tuple[tuple[str, tuple[str, ...]], ...]


def frames_are_x_first(env_id: str) -> bool:
    """Whether image observations are indexed [x, y, channel], as in Memory Gym, instead of [row, column, channel]."""
    return any(name in env_id for name in _MEMORY_GYM)


def branches(
    env_id: str, action_nvec: Sequence[int], names: ActionNames | None = None, titles: Sequence[str] | None = None
) -> Branches:
    """Name and names of the choices of each action branch.

    Args:
        env_id: the task.
        action_nvec: number of choices of each branch.
        names: names of the choices that the environment gives.
        titles: names of the branches that the environment gives.

    Returns:
        Names that are known here, else the environment's, else numbers.
    """
    if "Endless-MysteryPath" in env_id:
        known: Branches = _PATH
    elif frames_are_x_first(env_id):
        known = _MOVE if len(action_nvec) == 2 else _TURN
    elif "MiniGrid" in env_id:
        known = _first(_MINIGRID, action_nvec)
    elif "ProofofMemory" in env_id:
        known = _CORRIDOR
    elif "TMaze" in env_id:
        known = _T_MAZE
    elif any(name in env_id for name in _ASKING_FOR_SUITS):
        known = _SUITS
    elif "HigherLower" in env_id:
        known = _GUESS
    else:
        known = ()
    if [len(choices) for _, choices in known] == list(action_nvec):
        return known
    numbered = [f"branch {i}" for i in range(len(action_nvec))] if len(action_nvec) > 1 else ["action"]
    numbers = tuple(tuple(str(choice) for choice in range(n)) for n in action_nvec)
    return tuple(zip(titles or numbered[: len(action_nvec)], names or numbers, strict=True))


def observation_names(env_id: str, size: int) -> tuple[str, ...]:
    """Names of the elements of a vector observation; numbers for unknown tasks."""
    if "ProofofMemory" in env_id and size == 3:
        return ("left goal", "position", "right goal")
    if "MortarMayhem-Grid" in env_id and size == 5:
        return ("column", "row", "direction", "command", "safe tile")
    if "MysteryPath-Grid" in env_id and size in (4, 6, 8):
        ends = {4: (), 6: ("end column", "end row"), 8: ("goal column", "goal row", "start column", "start row")}
        return ("column", "row", "direction", "cross", *ends[size])
    if "TMaze" in env_id and size == 2:
        return ("junction", "goal or side")
    return tuple(str(i) for i in range(size))


def _first(known: Branches, action_nvec: Sequence[int]) -> Branches:
    """The first choices of one branch: MiniGrid may offer fewer than it has."""
    ((title, names),) = known
    return ((title, names[: action_nvec[0]]),)
