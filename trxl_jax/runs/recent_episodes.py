"""Results of the most recent finished episodes, over which `episode/*_mean` are taken."""

from collections import deque
from collections.abc import Iterable

from trxl_jax.envs.results import EpisodeResult, mean_results

NUM_EPISODES = 100


class RecentEpisodes:
    """Results of the last 100 finished episodes."""

    def __init__(self, results: Iterable[EpisodeResult] = ()) -> None:
        self.results: deque[EpisodeResult] = deque(results, maxlen=NUM_EPISODES)

    def means(self) -> dict[str, float]:
        """`episode/<name>_mean` of each number; empty before the first episode has ended."""
        return {f"episode/{name}_mean": value for name, value in mean_results(self.results).items()}
