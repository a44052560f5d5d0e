"""What the page knows of tasks by their id: which way round frames are, and what numbers stand for."""

from collections.abc import Sequence

_MEMORY_GYM = ("MortarMayhem", "MysteryPath", "SearingSpotlights")

_MOVE = (("horizontal", ("stay", "left", "right")), ("vertical", ("stay", "up", "down")))
_TURN = (("action", ("stay", "turn left", "turn right", "forward")),)
_PATH = (("action", ("stay", "right", "up", "down")),)
_MINIGRID = (("action", ("turn left", "turn right", "forward", "pick up", "drop", "toggle", "done")),)
_CORRIDOR = (("action", ("left", "right")),)

Branches = tuple[tuple[str, tuple[str, ...]], ...]


def frames_are_x_first(env_id: str) -> bool:
    """Whether observations are stored [x, y, colour]: Memory Gym's, which agents see as they are."""
    return any(name in env_id for name in _MEMORY_GYM)


def branches(env_id: str, action_nvec: Sequence[int]) -> Branches:
    """The name and the choices' names of each action branch; numbers where they are not known."""
    if "Endless-MysteryPath" in env_id:
        known: Branches = _PATH
    elif frames_are_x_first(env_id):
        known = _MOVE if len(action_nvec) == 2 else _TURN
    elif "MiniGrid" in env_id:
        known = _MINIGRID
    elif "ProofofMemory" in env_id:
        known = _CORRIDOR
    else:
        known = ()
    if [len(choices) for _, choices in known] == list(action_nvec):
        return known
    return tuple((f"branch {i}", tuple(str(choice) for choice in range(n))) for i, n in enumerate(action_nvec))


def observation_names(env_id: str, size: int) -> tuple[str, ...]:
    """The names of a vector observation's elements; numbers where they are not known."""
    if "ProofofMemory" in env_id and size == 3:
        return ("left goal", "position", "right goal")
    return tuple(str(i) for i in range(size))
