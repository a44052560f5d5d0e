"""Signals that end a process: at once while there is nothing to save, and otherwise between two updates."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a scheduler's request to end, and a terminal that was closed."""

_Handler = Callable[[int, FrameType | None], None]


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
    """Records the first signal of each kind in `STOPPING`; a second one has the effect that it had before."""
    stop = StopSignals()
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

    sys.unraisablehook = be_silent
    handlers = _install(receive)
    try:
        yield stop
    finally:
        sys.unraisablehook = hook
        _restore(handlers)


@contextmanager
def exit_at_once() -> Iterator[None]:
    """Ends the process with one line when a signal arrives.

    An exception, which Python raises by default, may be swallowed by a library that is being imported, or end in its
    traceback. Where files are being written that must not be left half done, `interrupts_raise` brings the exception
    back. Exit status: 128 plus the signal's number.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        # Without Python's streams, in which the process may just be writing. The first bytes show a terminal's cursor,
        # which a progress line hides.
        cursor = b"\x1b[?25h" if os.isatty(2) else b""
        line = b"error: interrupted\n"
        try:
            os.write(2, cursor + line)
        finally:
            os._exit(128 + number)

    handlers = _install(leave)
    try:
        yield
    finally:
        _restore(handlers)


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Lets Ctrl-C raise KeyboardInterrupt within `exit_at_once`."""
    handlers = _install(signal.default_int_handler, signal.SIGINT)
    try:
        yield
    finally:
        _restore(handlers)


def _install(handler: _Handler, *signals: signal.Signals) -> dict[int, Any]:
    """Installs a handler for the signals, by default `STOPPING`; returns those that were there before, by signal."""
    handlers: dict[int, Any] = {}
    for number in signals or STOPPING:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue  # nohup
        try:
            handlers[number] = signal.getsignal(number)
            signal.signal(number, handler)
        except ValueError:  # not in the main thread, whose code handles signals itself
            return {}
    return handlers


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
