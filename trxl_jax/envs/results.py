"""Numbers of finished episodes: r (return), l (length), t (seconds) and whatever the environment tells."""

import math
from collections.abc import Iterable

import numpy as np

from trxl_jax.envs.base import EpisodeStats

Result = dict[str, float]


def means(results: Iterable[Result]) -> dict[str, float]:
    """The mean of every number over the results that hold it."""
    values: dict[str, list[float]] = {}
    for result in results:
        for name, value in result.items():
            if math.isfinite(value):
                values.setdefault(name, []).append(value)
    return {name: math.fsum(found) / len(found) for name, found in sorted(values.items())}


def from_stats(episode: EpisodeStats) -> list[Result]:
    """Numbers of the episodes that ended, in order of time, from statistics [T, N]."""
    numbers = {"r": episode.episode_return, "l": episode.episode_length} | (episode.others or {})
    arrays = {name: np.asarray(values) for name, values in numbers.items()}
    ended = zip(*np.nonzero(np.asarray(episode.done)), strict=True)
    return [{name: float(values[place]) for name, values in arrays.items()} for place in ended]
