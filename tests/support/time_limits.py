"""Time limits of subprocesses, scaled to the speed of the machine and its current load."""

import time

_REFERENCE = 0.035  # seconds that the loop below takes on an idle core of a 2026 server
_LOOPS = 1_000_000


def time_limit(seconds: float) -> float:
    """Seconds to wait for what takes less than `seconds` on an idle machine."""
    started = time.perf_counter()
    for _ in range(_LOOPS):
        pass
    return seconds * max(1.0, 3 * (time.perf_counter() - started) / _REFERENCE)
