"""How a command ends when it is told to: by one Ctrl-C, in seconds, whole, with a line that says how to go on.

What is under way is unwound first: Prefect hears of it, staging is removed, Dask workers and the embedded server end.
What cannot be unwound in time (a thread in the middle of a fit, a library that does not listen) ends with the process:
nothing half-written is visible then, as after any SIGKILL, and all descendants end with it. SIGTERM and SIGHUP are
treated alike.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from deploy.processes import kill_descendants

GRACE_SECONDS = 10.0
"""How long unwinding may take; a second signal ends it at once."""
GO_ON = "run the same command again to go on; finished fits are kept"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """End the process with its exit handlers, and without taking apart what it has loaded.

    With torch and Prefect loaded that takes seconds, and changes nothing outside the process. A process that ends by
    an error that nobody foresaw is taken apart as usual.
    """
    status: int | None = None

    def leave() -> None:
        if status is not None:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    atexit.register(leave)  # before all other handlers, and so after them: the last comes first
    try:
        yield
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    status = 0


@contextmanager
def told_to_end(advice: str) -> Iterator[None]:
    """End the process, with the status that shells expect (130 for Ctrl-C), if it is told to inside.

    Parameters
    ----------
    advice : str
        How to go on: the end of the line that is printed.
    """
    watcher = _Watcher(advice)
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as SIGHUP is under nohup
            signal.signal(number, watcher.unwind)
    woken = signal.set_wakeup_fd(watcher.writing, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    except BaseException:  # whatever the signal has become on its way through Prefect and Dask
        watcher.leave_if_told()
        raise
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        watcher.stop()


class _Watcher(threading.Thread):
    """Notices signals through Python's wake-up pipe: also while the main thread is busy in C code."""

    def __init__(self, advice: str) -> None:
        super().__init__(name="told-to-end", daemon=True)
        self._advice = advice
        self._reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)
        self._told: int | None = None
        self._unwinding = False
        self._leaving = threading.Lock()

    def unwind(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal in the main thread; what has begun to unwind is left alone."""
        del frame
        self._told = self._told or number
        if not self._unwinding:
            self._unwinding = True
            raise KeyboardInterrupt

    def run(self) -> None:
        """Wait for a signal, then for the end of the grace or another signal, and leave."""
        number = self._next(None)
        if number is not None:
            self._told = self._told or number
            self._next(GRACE_SECONDS)
            self.leave_if_told()

    def leave_if_told(self) -> None:
        """End the process and all its descendants, if a signal has asked for it."""
        if self._told is None:
            return
        with self._leaving:  # the first of two threads does it; the other waits here for the end
            kill_descendants()
            name = "Ctrl-C" if self._told == signal.SIGINT else signal.Signals(self._told).name
            os.write(2, f"stopped by {name}; nothing is half-written: {self._advice}\n".encode())
            os._exit(128 + self._told)

    def stop(self) -> None:
        """Let the thread end, and close the pipe."""
        os.close(self.writing)  # the thread reads its end
        self.join()
        os.close(self._reading)

    def _next(self, seconds: float | None) -> int | None:
        """Return the next of our signals; None once the time is over or the pipe is closed."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not select.select([self._reading], [], [], left)[0]:
                return None
            byte = os.read(self._reading, 1)
            if not byte:
                return None
            if byte[0] in _SIGNALS:
                return byte[0]
