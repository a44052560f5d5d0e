"""Statistics of the episodes that end, as arrays."""

from typing import NamedTuple

import jax


class EpisodeStats(NamedTuple):
    """Statistics of the episodes that ended in a step; the numbers are valid where `done`.

    Fields:
        done: bool[N].
        episode_return: f32[N], undiscounted sum of rewards.
        episode_length: i32[N], steps.
        others: f32[N] by name, the task's own numbers; None where it has none, or reports them on the host.
    """

    done: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array
    others: dict[str, jax.Array] | None = None
