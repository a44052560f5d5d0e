"""SIGINT and SIGTERM, remembered for whoever looks between two updates."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopSignals:
    """What arrived.

    Fields:
        received: numbers of the signals, in order.
        deferred: whether a first signal does nothing else than to be remembered. If not, it has its usual effect too,
            and is remembered because an exception that is raised just anywhere may be swallowed by a library.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self.deferred = False

    def __bool__(self) -> bool:
        return bool(self.received)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Remembers the first SIGINT and SIGTERM; a second one has its usual effect."""
    stop = StopSignals()
    handlers: dict[int, Any] = {}
    hook = sys.unraisablehook

    def receive(number: int, frame: FrameType | None) -> None:
        stop.received.append(number)
        signal.signal(number, handlers[number])
        if not stop.deferred:
            signal.raise_signal(number)

    def be_silent(dropped: Any) -> None:
        # Raised inside of JAX's callback of the garbage collector, for example; it is remembered.
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            hook(dropped)

    try:
        sys.unraisablehook = be_silent
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, receive)
    except ValueError:  # not in the main thread: whoever runs it there handles signals
        handlers.clear()
    try:
        yield stop
    finally:
        sys.unraisablehook = hook
        for installed, handler in handlers.items():
            signal.signal(installed, handler)
