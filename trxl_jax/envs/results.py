"""Results of finished episodes as Python numbers."""

import math
from collections.abc import Iterable

import numpy as np

from trxl_jax.envs.stats import EpisodeStats

EpisodeResult = dict[str, float]
"""Numbers of a finished episode: r (return), l (length), t (seconds, where it is known) and the task's own."""


def mean_results(results: Iterable[EpisodeResult]) -> dict[str, float]:
    """The mean of each number over the results that contain it."""
    values: dict[str, list[float]] = {}
    for result in results:
        for name, value in result.items():
            if math.isfinite(value):
                values.setdefault(name, []).append(value)
    return {name: math.fsum(found) / len(found) for name, found in sorted(values.items())}


def results_from_stats(episode: EpisodeStats) -> list[EpisodeResult]:
    """Results of the episodes that ended, in order of time, from statistics [T, N]."""
    numbers = {"r": episode.episode_return, "l": episode.episode_length} | (episode.others or {})
    arrays = {name: np.asarray(values) for name, values in numbers.items()}
    ended = zip(*np.nonzero(np.asarray(episode.done)), strict=True)
    return [{name: float(values[index]) for name, values in arrays.items()} for index in ended]
