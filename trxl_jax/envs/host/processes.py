"""Worker processes of asynchronous environments: how they start, and how they end."""

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.util import Finalize
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState

from trxl_jax.envs.host.worker import STOP_SIGNALS, run_worker

FOREVER = 1e6
"""Seconds. With a timeout, Gymnasium waits for all workers before it reads any answer, so that it is known which worker
gave none."""

_LEVEL_LOCK = threading.Lock()  # training and evaluation have a thread each


class WorkerEnvs(AsyncVectorEnv):
    """A vector environment with one process for each environment.

    Args:
        makers: make one environment each.
        started: called with this object when the processes run, before it waits for the environments, which may hang.
    """

    def __init__(
        self, makers: Sequence[Callable[[], gymnasium.Env[Any, Any]]], started: "Callable[[WorkerEnvs], None]"
    ) -> None:
        self._started = started
        start_fork_server()
        worker: Any = run_worker
        # Not copied here, because `VectorBatch` does it.
        super().__init__(
            makers, copy=False, context="forkserver", worker=worker, autoreset_mode=AutoresetMode.SAME_STEP
        )

    def _check_spaces(self) -> None:
        """The last step of Gymnasium's constructor, and the first that waits for the environments."""
        # At its end Python ends workers by SIGTERM, which they ignore, and waits for them.
        Finalize(self, kill, (self.processes,), exitpriority=0)
        self._started(self)
        self.call_async("index")
        self.call_wait(FOREVER)
        super()._check_spaces()

    def close_extras(self, timeout: float | None = None, terminate: bool = False, **kwargs: Any) -> None:
        """Ends the processes, by SIGKILL if `terminate` or if answers are missing: one that hangs gives none."""
        if terminate or self._state != AsyncState.DEFAULT:
            self._state, terminate = AsyncState.DEFAULT, True
            kill(self.processes)
        super().close_extras(timeout, terminate)

    def _raise_if_errors(self, successes: list[bool] | tuple[bool]) -> None:
        """Raises a worker's error, whose traceback Gymnasium would print before we report it."""
        if all(successes):
            return
        with _LEVEL_LOCK:
            before = gymnasium.logger.min_level
            gymnasium.logger.min_level = gymnasium.logger.ERROR + 1
            try:
                super()._raise_if_errors(successes)
            finally:
                gymnasium.logger.min_level = before


def kill(processes: Sequence[Any]) -> None:
    """Kills the processes that have not ended."""
    for process in processes:
        if process.is_alive():
            process.kill()


def start_fork_server() -> None:
    """Starts the process from which workers are forked, unless it runs.

    (A fork of a process with XLA's threads may hang; a fork server that has imported the wrapper forks fast.)

    Terminals and schedulers signal the whole process group, and the training process ends its workers itself. The
    server and its children inherit from the thread that starts it that these signals are blocked, from their first
    instruction on. The tracker removes what a process that was ended at once has left, and doesn't warn of it.
    """
    multiprocessing.set_forkserver_preload(["trxl_jax.envs.host.worker"])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")  # of the tracker's process
    try:
        multiprocessing.resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # again: starting the tracker unblocks them
        multiprocessing.forkserver.ensure_running()
    finally:
        sys.warnoptions.pop()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
