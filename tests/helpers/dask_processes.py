"""Real Dask schedulers and workers in processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ports import free_port

_REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def dask_process(kind: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a scheduler or worker while the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *arguments],
        cwd=_REPOSITORY,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def dask_scheduler(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a scheduler on a free port; give its address."""
    found = folder / "scheduler.json"
    options = ["--port=0", f"--scheduler-file={found}", *arguments]
    with dask_process("scheduler", *options, environment=environment):
        deadline = time.monotonic() + 60
        while not found.exists():
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.1)
        yield json.loads(found.read_text())["address"]


def tls_options(pem: Path) -> list[str]:
    """Return the options of a scheduler or worker behind TLS."""
    return [f"--tls-ca-file={pem}/ca.pem", f"--tls-cert={pem}/cert.pem", f"--tls-key={pem}/key.pem"]


class scheduler:  # noqa: N801  # reads as a context manager
    """A Dask scheduler and workers as processes of their own, as somebody else would run them; logs lie in a folder.

    `own` gives variables of the environment of a worker by its number, as machines differ in theirs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        path: Path | None = None,
        own: Callable[[int], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self.folder, self.workers, self.own = folder, workers, own
        self.path = path or _REPOSITORY
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> str:
        address = f"tcp://127.0.0.1:{free_port()}"
        environment = {**os.environ, "PYTHONPATH": str(self.path)}
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard"]
        self._start(command, environment)
        for number in range(self.workers):
            worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
            where = ["--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(self.folder)]
            self._start([*worker, *where], {**environment, **self.own(number)})
        _wait_for(address)
        return address

    def _start(self, command: list[str], environment: dict[str, str]) -> None:
        with (self.folder / f"dask-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=self.path, env=environment, stdout=log, stderr=log)
        self.processes.append(process)

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait(30)


def _wait_for(address: str) -> None:
    host, port = address.removeprefix("tcp://").split(":")
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(address)
