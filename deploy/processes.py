"""Processes that a command starts beside itself: they end with it, and all their descendants too.

Here belongs what is the same for a server that is operated (`deploy.serve`) and for one that lasts as long as a run
(`deploy.api`): start, wait until it answers, end.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import psutil

from deploy.deployments import CHECKOUT
from schemas.errors import ExecutionError

STOP_SECONDS = 20.0
"""How long a process may take to end before it is killed."""
_POLL_SECONDS = 0.2

Start = Callable[[list[str], Mapping[str, str], Path | None], subprocess.Popen[bytes]]
"""Starts a command with an environment; its output goes to the end of a file, or where that of this process goes."""


@contextmanager
def processes(patience_seconds: float = STOP_SECONDS) -> Iterator[Start]:
    """Give a function that starts processes; all that it has started, and their children, end with the context.

    Each has a session of its own: a Ctrl-C in the terminal is for the command alone, which then ends them in order.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(command: list[str], variables: Mapping[str, str], log: Path | None) -> subprocess.Popen[bytes]:
        with nullcontext() if log is None else log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if log is None else subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in reversed(started):
            _end(process, patience_seconds)


def await_health(api: str, seconds: float, still_running: Callable[[], None], wait: Callable[[float], bool]) -> None:
    """Wait until a Prefect server answers.

    Parameters
    ----------
    api : str
        URL of its API.
    seconds : float
        How long it may take.
    still_running : callable
        Raises if it has ended by itself.
    wait : callable
        Waits so many seconds; true if nobody is interested any more.

    Raises
    ------
    ExecutionError
        If it does not answer in time.
    """
    import httpx  # costs a quarter of a second, and most commands start nothing

    deadline = time.monotonic() + seconds
    with httpx.Client(verify=False, timeout=5.0) as client:  # noqa: S501  # loopback without TLS: no certificates to load
        while True:
            still_running()
            with suppress(httpx.HTTPError):
                if client.get(f"{api}/health").is_success:
                    return
            if time.monotonic() > deadline:
                raise ExecutionError(f"the Prefect server did not answer within {seconds:g} s")
            if wait(_POLL_SECONDS):
                return


def kill_descendants() -> None:
    """Kill all that this process has started, at once."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _end(process: subprocess.Popen[bytes], patience_seconds: float) -> None:
    """End a process and all its descendants, the descendants first: they are the runs, and report their end."""
    try:
        parent = psutil.Process(process.pid)
        children = parent.children(recursive=True)
    except psutil.NoSuchProcess:
        process.wait()
        return
    _terminate(children, patience_seconds)
    _terminate([parent], patience_seconds)
    process.wait()


def _terminate(running: list[psutil.Process], patience_seconds: float) -> None:
    for process in running:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(running, timeout=patience_seconds)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=patience_seconds)
