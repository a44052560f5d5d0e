"""Calls that may hang: a thread that can be abandoned, and waiting for it."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any

_A_MOMENT = 1.0  # seconds


class DaemonThread:
    """Makes calls one after the other, and doesn't keep a process alive that wants to end: what hangs can't be ended.

    (Threads of `concurrent.futures` are waited for.)

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Its result, to come."""
        future: Future[Any] = Future()
        self._calls.put((future, call))
        return future

    def stop(self) -> None:
        """Ends the thread after the calls that it has."""
        self._calls.put(None)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            try:
                future.set_result(call())
            except BaseException as error:  # is raised again by whoever waits
                future.set_exception(error)


def is_done(future: Future[Any], seconds: float | None, progress: Callable[[], Any] = lambda: None) -> bool:
    """Waits for a call; returns whether it has ended.

    Args:
        future: the call's.
        seconds: how long; None: until it has ended.
        progress: as long as its value differs from that of `seconds` ago, waiting goes on.
    """
    while True:
        before = progress()
        # Twice, because a process that was stopped and continued sees that time has passed.
        for wait in (seconds, _A_MOMENT):
            with suppress(TimeoutError):  # of the waiting; one that the call raised is returned
                future.exception(wait)
                return True
        if progress() == before:
            return False
