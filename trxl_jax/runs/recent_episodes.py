"""Results of the newest finished episodes, over which `episode/*_mean` are taken."""

from collections import deque
from collections.abc import Iterable

from trxl_jax.envs.results import Result, means

EPISODE_WINDOW = 100


class EpisodeWindow:
    """Results of the last 100 finished episodes, over which `episode/*_mean` are taken."""

    def __init__(self, results: Iterable[Result] = ()) -> None:
        self.results: deque[Result] = deque(results, maxlen=EPISODE_WINDOW)

    def means(self) -> dict[str, float]:
        """`episode/<name>_mean` of every number; empty before an episode ended."""
        return {f"episode/{name}_mean": value for name, value in means(self.results).items()}
