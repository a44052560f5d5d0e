"""Names and settings of POPGym's control tasks."""

from typing import Any

_LENGTHS = {
    "PositionOnlyCartPole": ("PositionOnlyCartPole", (200, 400, 600)),
    "VelocityOnlyCartpole": ("VelocityOnlyCartPole", (200, 400, 600)),  # spelt so in the released package's ids
    "PositionOnlyPendulum": ("PositionOnlyPendulum", (200, 150, 100)),
}
_SIGMAS = {
    "NoisyPositionOnlyCartPole": ("PositionOnlyCartPole", (0.1, 0.2, 0.3)),
    "NoisyPositionOnlyPendulum": ("PositionOnlyPendulum", (0.1, 0.2, 0.3)),
}
_LEVELS = ("Easy", "Medium", "Hard")

CONTROL_TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{name}{level}-v0": (kind, {setting: value})
    for setting, families in (("max_episode_length", _LENGTHS), ("noise_sigma", _SIGMAS))
    for name, (kind, values) in families.items()
    for level, value in zip(_LEVELS, values, strict=True)
}
"""Class in `control.py` and arguments of its constructor, by name."""
