"""SIGINT and SIGTERM as a flag that the training loop reads between two updates."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopSignals:
    """The signals that arrived.

    Fields:
        received: numbers of the signals, in order.
        deferred: whether the first signal only sets the flag. If not, it also acts at once, for example by raising
            KeyboardInterrupt; the flag is set anyway, because a library may swallow that exception.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self.deferred = False

    def __bool__(self) -> bool:
        return bool(self.received)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Records the first SIGINT and SIGTERM; a second one has its usual effect."""
    stop = StopSignals()
    handlers: dict[int, Any] = {}
    hook = sys.unraisablehook

    def receive(number: int, frame: FrameType | None) -> None:
        stop.received.append(number)
        signal.signal(number, handlers[number])
        if not stop.deferred:
            signal.raise_signal(number)

    def be_silent(dropped: Any) -> None:
        # Raised inside JAX's callback of the garbage collector, for example; it has been recorded.
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            hook(dropped)

    try:
        sys.unraisablehook = be_silent
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, receive)
    except ValueError:  # not in the main thread, whose code handles signals itself
        handlers.clear()
    try:
        yield stop
    finally:
        sys.unraisablehook = hook
        for installed, handler in handlers.items():
            signal.signal(installed, handler)
