"""Prefect as the command line meets it: silent, and a server that is not there, or is lost, is one line.

Here belongs nothing that starts or configures a server; that is `deploy.serve` and `deploy.deployments`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from deploy.doors import password_of_a_run, refusal
from schemas.errors import ExecutionError, HeldError
from schemas.settings import load_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

SILENT = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "GX_ANALYTICS_ENABLED": "false"}
"""Environment in which Prefect and Great Expectations send no telemetry."""


def send_no_telemetry() -> None:
    """Set `SILENT` where nothing else is set; before Prefect or Great Expectations are imported."""
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def prefect_server() -> Iterator[None]:
    """Run flows inside: refused at once if the server of PREFECT_API_URL does not answer, or not to this client.

    A server that goes away later is waited for by Prefect's own client, about a minute for each call.

    Raises
    ------
    ExecutionError
        If the server does not answer, does not take the password, or is lost.
    HeldError
        If another run holds what this one needs, or somebody has cancelled it.
    """
    from httpx import TransportError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import CancelledRun
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
            raise ExecutionError(refusal(url, load_settings()))
    try:
        with nullcontext() if url else password_of_a_run():
            yield
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


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
