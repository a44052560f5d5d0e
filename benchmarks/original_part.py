"""Runs the original through its first rollout and a few minibatches only, for configurations whose iteration is long.

    PYTHON benchmarks/original_part.py MINIBATCHES path/to/ppo_trxl.py [--flags of the original]

PYTHON is an interpreter that can run the original. Nothing of the original changes: the steps of its optimiser and the
first reset of its environments are timed, and it ends after MINIBATCHES + 1 of them. Prints one line of JSON: seconds
of the rollout (from that reset to the first minibatch) and the median of a minibatch. What the first minibatch takes
more than the median falls to the rollout.
"""

import itertools
import json
import os
import runpy
import statistics
import sys
import time
from pathlib import Path
from typing import Any


def main(minibatches: int, script: str, flags: list[str]) -> None:
    """Replaces the arguments by the original's and starts it with timed methods."""
    import gymnasium  # of the original's environment; this project needs no torch
    import torch

    ends: list[float] = []
    started: list[float] = []
    step, reset = torch.optim.AdamW.step, gymnasium.vector.SyncVectorEnv.reset

    def timed_reset(*args: Any, **kwargs: Any) -> Any:
        started.append(time.perf_counter())
        return reset(*args, **kwargs)

    def timed_step(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        ends.append(time.perf_counter())
        if len(ends) > minibatches:
            seconds = statistics.median(later - earlier for earlier, later in itertools.pairwise(ends))
            rollout = ends[0] - started[0] - seconds
            print(json.dumps({"rollout_seconds": rollout, "minibatch_seconds": seconds}), flush=True)
            os._exit(0)  # the rest of the iteration is what this program exists to avoid
        return result

    torch.optim.AdamW.step = timed_step
    gymnasium.vector.SyncVectorEnv.reset = timed_reset  # type: ignore[method-assign]
    sys.path[0] = str(Path(script).parent)  # as when the script itself is started
    sys.argv = [script, *flags]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    if len(sys.argv) < 3:  # --help among others
        print(__doc__)
        sys.exit(0 if "--help" in sys.argv else 2)
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
