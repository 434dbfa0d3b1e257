"""One installation on one machine: a Prefect server, its deployments and a worker, started and stopped together.

Everything listens on loopback. Server and worker run in sessions of their own, so that Ctrl-C reaches only this
process, which stops them in the right order: first the runs, while there is a server to tell it to; then the worker;
then the server. For a team, the same parts run in containers: see deploy/compose.yaml.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy import doors
from deploy.api import SILENT, START_SECONDS
from deploy.deployments import HEARTBEAT_SECONDS, POOL
from deploy.processes import await_health, processes
from schemas.errors import ExecutionError
from schemas.settings import PREFIX, Settings
from storage.files import locked

_POLL_SECONDS = 0.2


def environment(settings: Settings, port: int, password: str) -> dict[str, str]:
    """Return what the worker and the runs it starts, and everybody else here, find in their environment.

    The worker hands its environment to every run, so that settings and secrets reach runs without being kept by the
    server. What is set already stays: another database, for one (PREFECT_API_DATABASE_CONNECTION_URL).
    """
    api = f"http://{doors.HOST}:{port}/api"
    defaults = {
        "PREFECT_HOME": str(settings.root / "prefect"),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_WORKER_QUERY_SECONDS": "5",
    }
    fixed = {
        "PREFECT_API_URL": api,
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_UI_API_URL": api,
        **SILENT,
    }
    paths = {name: value for name in Settings.model_fields if isinstance(value := getattr(settings, name), Path)}
    absolute = {f"{PREFIX}{name}".upper(): str(path.absolute()) for name, path in paths.items()}
    return {**defaults, **os.environ, **fixed, **absolute}


def serve(settings: Settings, port: int, deploy: list[str], say: Callable[[str], None]) -> None:
    """Start everything, say where it is, and stop it on Ctrl-C or SIGTERM.

    Parameters
    ----------
    settings : Settings
        The root, which holds the server's database and the logs, and the folder of configs.
    port : int
        Where the server listens, on loopback.
    deploy : list[str]
        Command that registers the deployments, run once the server answers.
    say : callable
        Shows a line to whoever has started it.

    Raises
    ------
    ConfigError
        If the port is taken, or others may have read the password.
    ConflictError
        If the root is served already.
    ExecutionError
        If a part cannot be started, or ends by itself.
    """
    with _signals() as stop, _sole(settings), processes() as start:
        doors.refuse_taken(port)
        logs = Path(os.environ.get("PREFECT_HOME", settings.root / "prefect"))
        password, kept = doors.kept_password(logs)
        for name in ("server", "worker"):
            (logs / f"{name}.log").touch(mode=0o600)
        variables = environment(settings, port, password)
        parts: dict[str, subprocess.Popen[bytes]] = {}
        say(f"Starting the Prefect server; its log is {logs / 'server.log'}")
        command, closed = doors.server(port, password, log_level="warning")
        parts["server"] = start(command, {**variables, **closed}, logs / "server.log")
        await_health(variables["PREFECT_API_URL"], START_SECONDS, lambda: _still_running(parts), stop.wait)
        say("Registering deployments and automations")
        registering = start(deploy, variables, None)
        while registering.poll() is None and not stop.wait(_POLL_SECONDS):
            _still_running(parts)
        if registering.poll():
            raise ExecutionError("the deployments could not be registered; the reason is above")
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        parts["worker"] = start(command, variables, logs / "worker.log")
        if not stop.is_set():
            _say_where(port, logs, kept, say)
        while not stop.wait(_POLL_SECONDS):
            _still_running(parts)
        say("Stopping")


def _say_where(port: int, logs: Path, kept: Path, say: Callable[[str], None]) -> None:
    say(f"Prefect UI:  http://{doors.HOST}:{port}, which asks for the password in {kept}")
    say(f"Worker log:  {logs / 'worker.log'}")
    say("In another terminal:")
    say(f"  export PREFECT_API_URL=http://{doors.HOST}:{port}/api")
    say(f'  export PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(kept))})"')
    say("  prefect deployment run ingest/ingest       # update and retrain follow by themselves")
    say("  factorcube show                            # what is published")
    say("Ctrl-C stops everything.")


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C and SIGTERM set."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _sole(settings: Settings) -> Iterator[None]:
    """Hold the root: two servers on one database would schedule every run twice."""
    lock = settings.root / "locks" / "serve"
    with locked(lock, timeout_seconds=0, note="serving"):
        yield


def _still_running(processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise ExecutionError(f"the Prefect {name} ended with status {process.returncode}; its log says why")
