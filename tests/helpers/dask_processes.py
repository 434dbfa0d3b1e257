"""Real Dask schedulers and workers in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[1]


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
