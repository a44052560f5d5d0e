"""Makes one wrapped environment, in this process or in a worker process. Doesn't use JAX, which workers don't need."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from trxl_jax.envs.host.episode import EpisodeWrapper

EnvFactory = Callable[[], gymnasium.Env[Any, Any]]


def make_wrapped(
    make: EnvFactory,
    pid: int,
    seed: int,
    options: dict[str, Any] | None,
    index: int,
    episode: int,
    replay: np.ndarray | None,
) -> EpisodeWrapper:
    """One environment in an `EpisodeWrapper`.

    Args:
        make: makes the environment.
        pid: of the training process.
        seed: the run's seed.
        options: reset options of every episode.
        index: of the environment in the batch.
        episode: number of its first episode.
        replay: actions [steps, A] to repeat after the first reset, or None.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and os.getpid() != pid:  # in a worker
        # Terminals and schedulers signal the whole process group; the training process ends its workers itself.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        # Otherwise a hanging worker would outlive a training process that was killed.
        threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    return EpisodeWrapper(make(), seed, index, options, episode, replay)


def _exit_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
