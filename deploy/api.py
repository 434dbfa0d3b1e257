"""Prefect as the command line meets it: silent, with a server for the run, and what is lost or missing is one line.

Here belongs the server of one run. The one that is operated belongs in `deploy.serve`.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from deploy import doors
from deploy.processes import await_health, processes
from schemas.errors import ExecutionError, HeldError
from schemas.settings import load_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

SILENT = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "GX_ANALYTICS_ENABLED": "false"}
"""Environment in which Prefect and Great Expectations send no telemetry."""

START_SECONDS = 240.0
"""How long a server may take until it answers: the first start makes its database, and the machine may be busy."""
_STOP_SECONDS = 3.0
_PATIENCE = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"


def send_no_telemetry() -> None:
    """Set `SILENT` where nothing else is set; before Prefect or Great Expectations are imported."""
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)


def require_server() -> None:
    """Refuse to begin if there is a PREFECT_API_URL and its server does not answer, or not to this client.

    Raises
    ------
    ExecutionError
        If it does not answer, or does not take the password.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = PREFECT_API_URL.value()
    if url:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
            problem = client.api_healthcheck()
            refused = problem is None and _refuses(client)
        if problem is not None:
            raise ExecutionError(
                f"no Prefect server answers at {url} (PREFECT_API_URL): {_line(problem)}; start it, or unset "
                "PREFECT_API_URL to run with one of its own"
            )
        if refused:
            raise ExecutionError(doors.refusal(url, load_settings()))


@contextmanager
def prefect_server() -> Iterator[Callable[[], None]]:
    """Run flows inside: on the server of PREFECT_API_URL, or on one that lasts as long as the block.

    The block is given a function that waits until the server answers, to be called before the first flow: a server of
    its own takes seconds to start, in which the command can load and read what it needs. A server that goes away later
    is waited for by Prefect's own client, about a minute for each call.

    Raises
    ------
    ExecutionError
        If the server does not answer, cannot be started, or is lost.
    HeldError
        If another run holds what this one needs, or somebody has cancelled it.
    """
    from httpx import TransportError
    from prefect.exceptions import CancelledRun
    from prefect.settings import PREFECT_API_URL

    require_server()
    try:
        with nullcontext(_is_there) if PREFECT_API_URL.value() else _own_server() as serving:
            yield serving
    except TransportError as error:
        raise ExecutionError(
            f"the Prefect server was lost in the middle of the run ({_line(error)}); nothing is half-written: run "
            "again when it is back"
        ) from None
    except CancelledRun as error:
        raise HeldError(f"the run was cancelled: {error}") from None


def _refuses(client: SyncPrefectClient) -> bool:
    from httpx import HTTPStatusError

    try:
        client.api_version()
    except HTTPStatusError as error:
        return error.response.status_code in (401, 403)
    return False


def _is_there() -> None:
    """Wait for a server that has answered already."""


@contextmanager
def _own_server() -> Iterator[Callable[[], None]]:
    """Start a server on loopback, behind doors of its own, in a session of its own, and with time to start."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, get_current_settings, temporary_settings

    port, password = _free_port(), doors.new_password()
    api = f"http://{doors.HOST}:{port}/api"
    command, closed = doors.server(port, password, log_level="error")
    variables = {
        **os.environ,
        **get_current_settings().to_environment_variables(exclude_unset=True),
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        **closed,
    }
    with (
        tempfile.NamedTemporaryFile(prefix="factorcube-") as log,
        processes(_STOP_SECONDS) as start,
        ExitStack() as while_serving,
    ):
        server = start(command, variables, Path(log.name))

        def still_running() -> None:
            if server.poll() is not None:
                raise ExecutionError(f"it ended with status {server.returncode}")

        def serving() -> None:
            seconds = float(os.environ.get(_PATIENCE, START_SECONDS))
            try:
                await_health(api, seconds, still_running, threading.Event().wait)
            except ExecutionError as error:
                raise ExecutionError(
                    f"the run's own Prefect server could not be started: {error}{_last_line(Path(log.name))}; set "
                    f"{_PATIENCE} to give it more time, or PREFECT_API_URL to use a server that is there"
                ) from None
            while_serving.enter_context(temporary_settings({PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: password}))

        yield serving
        _drain()


def _drain() -> None:
    """Send what Prefect still has to say of a run that has ended, while there is somebody to hear it."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=_STOP_SECONDS)
    EventsWorker.drain_all(timeout=_STOP_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((doors.HOST, 0))
        return int(probe.getsockname()[1])


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return f" ({said[-1]})" if said else ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
