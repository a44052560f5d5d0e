"""What a worker process of asynchronous environments does. Doesn't use JAX, which workers don't need."""

import fcntl
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from gymnasium.vector.async_vector_env import _async_worker

from trxl_jax.errors import UserError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals on which a run stops; workers and their server ignore them."""


def run_worker(
    index: int, make: Callable[[], Any], pipe: Any, parent_pipe: Any, memory: Any, errors: Any, mode: Any
) -> None:
    """Gymnasium's worker, in a process that ignores `STOP_SIGNALS` and ends with the training process.

    An environment that can't be made is reported as its other failures are. Arguments are those of Gymnasium's worker.
    """
    _follow(multiprocessing.parent_process())
    try:
        _work(index, make, pipe, parent_pipe, memory, errors, mode)
    except (BrokenPipeError, ConnectionResetError, EOFError):
        # The training process has ended. When a process ends, its files are closed one by one: a worker that is about
        # to answer may find this pipe closed before the kernel ends it. (Errors of environments don't come this far.)
        return


def _work(
    index: int, make: Callable[[], Any], pipe: Any, parent_pipe: Any, memory: Any, errors: Any, mode: Any
) -> None:
    try:
        env = make()
    except UserError as error:
        errors.put((index, type(error), str(error), ""))
        pipe.recv()
        pipe.send((None, False))
        return
    _async_worker(index, lambda: env, pipe, parent_pipe, memory, errors, mode)


def _follow(parent: Any) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # an environment's own processes would inherit the mask
    if sys.platform == "linux":
        # The kernel ends the worker when the training process's end of this pipe is closed, even while an environment
        # holds Python's lock.
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    else:
        threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
