"""Ends a process in which an environment holds Python's lock for too long.

While native code holds that lock, no thread of the process can act: neither a timeout nor a handler of signals. Hence
this module is also a small program (it imports nothing else of the package), run in a process of its own.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_INTERVAL = 0.2  # seconds between two looks
_BEGUN, _ENDED, _GOES_ON = b"1", b"0", b"."


class LockWatch:
    """Kills this process if a call lasts for much longer than `seconds` after it began or `go_on` was called.

    Args:
        seconds: the limit that the process itself imposes on calls.
        grace: seconds after which it would have noticed and called `stop`, if Python's lock were free.
    """

    def __init__(self, seconds: float, grace: float = 5.0) -> None:
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(seconds), str(grace)]
        # Not in the process group, so that no signal to the group ends it.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)

    def call(self, call: Callable[[], Any]) -> Any:
        """Makes a call that is watched."""
        self._tell(_BEGUN)
        try:
            return call()
        finally:
            self._tell(_ENDED)

    def go_on(self) -> None:
        """Starts the time anew for the call that is being made, if there is one. Calling it takes Python's lock."""
        self._tell(_GOES_ON)

    def stop(self) -> None:
        """Ends the other process; nothing is watched any more."""
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            with self._process:
                self._process.kill()

    def _tell(self, what: bytes) -> None:
        with suppress(OSError):  # the pipe is full or closed, or the other process was killed
            os.write(self._pipe, what)


def _watch(pid: int, seconds: float, grace: float) -> None:
    os.set_blocking(0, False)
    last, silent = _ENDED, 0.0
    while silent < seconds + grace:
        time.sleep(_INTERVAL)
        try:
            said = os.read(0, 2**16)
            if not said:
                return
            last, silent = (last + said.replace(_GOES_ON, b""))[-1:], 0.0
        except BlockingIOError:
            # Intervals are counted, not time: either process may be stopped and continued.
            silent = silent + _INTERVAL if last == _BEGUN and not _is_stopped(pid) else 0.0
    print(
        f"error: an environment holds Python's lock, so that --env_timeout {seconds:g} can't end it in this process, "
        "which is killed; --resume continues from the newest checkpoint, and with --async_envs environments have "
        "processes of their own",
        file=sys.stderr,
    )
    os.kill(pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
