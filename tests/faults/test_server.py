"""Prefect's server down at the start, and going down in the middle of a run: one line, whole data, and a rerun."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from injection import Seen, look, reading
from ports import free_port
from prefect.settings import PREFECT_API_URL, temporary_settings
from small_market import SMALL, make_market, write_config

from deploy.api import prefect_server
from schemas.errors import ExecutionError

COMMAND = [sys.executable, "-m", "deploy.cli", "run", "config.yaml", "--promote-first"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with prices and the config of one model."""
    make_market().write_parquet(tmp_path / "prices.parquet")
    write_config(tmp_path, {"models": SMALL["models"][1:2]})
    return tmp_path


def variables(folder: Path, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "FACTORCUBE_ROOT": str(folder / "out"),
        "FACTORCUBE_WORKERS": "1",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_CLIENT_MAX_RETRIES": "1",  # five tries by default, about a minute for each call
    }


@contextmanager
def server(folder: Path, port: int) -> Iterator[psutil.Process]:
    """Run a Prefect server of our own, which may be killed inside."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=variables(folder, port), stdout=quiet, stderr=quiet)
    try:
        await_health(port, process)
        yield psutil.Process(process.pid)
    finally:
        if process.poll() is None:
            kill(psutil.Process(process.pid))
        process.wait(30)


def await_health(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the Prefect server did not start"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
            return
        time.sleep(0.2)
    raise TimeoutError(port)


def kill(process: psutil.Process) -> None:
    for one in (*process.children(recursive=True), process):
        one.kill()


def test_a_server_that_does_not_answer_is_one_line_at_the_start(folder: Path) -> None:
    port = free_port()
    ended = subprocess.run(
        COMMAND, cwd=folder, env=variables(folder, port), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: no Prefect server answers at http://127.0.0.1:{port}/api (PREFECT_API_URL)")
    assert not (folder / "out").exists()


def servers_of_this_process() -> list[int]:
    return sorted(one.pid for one in psutil.Process().children() if "uvicorn" in " ".join(one.cmdline()))


@pytest.mark.parametrize(
    ("program", "seconds", "reason"),
    [(sys.executable, "0", "the Prefect server did not answer within 0 s"), ("false", "60", "it ended with status 1")],
)
def test_a_server_of_its_own_that_does_not_come_up_is_one_line(
    program: str, seconds: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = servers_of_this_process()
    monkeypatch.setattr(sys, "executable", program)
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", seconds)
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        prefect_server() as serving,
        pytest.raises(ExecutionError) as told,
    ):
        serving()
    assert str(told.value).startswith(f"the run's own Prefect server could not be started: {reason}")
    assert "\n" not in str(told.value)
    assert servers_of_this_process() == before


@pytest.mark.slow
def test_a_server_lost_in_the_middle_of_a_run_leaves_whole_data_and_the_rerun_completes(folder: Path) -> None:
    port, root = free_port(), folder / "out"
    log = (folder / "log").open("w")
    with server(folder, port) as serving, reading(root, model="fama_macbeth") as seen:
        run = subprocess.Popen(COMMAND, cwd=folder, env=variables(folder, port), stdout=log, stderr=log)
        while not list(root.glob("work/fits/[!.]*")) and run.poll() is None:
            time.sleep(0.05)
        kill(serving)
        status = run.wait(300)
        said = (folder / "log").read_text(encoding="utf-8").splitlines()
        assert status == 1, said[-20:]
        assert [line for line in said if line.startswith("error: the Prefect server was lost in the middle")], said
    assert seen.errors == []
    assert len(seen.cubes) == 1
    assert not list(root.rglob(".staging*"))
    with server(folder, port):
        again = subprocess.run(
            COMMAND, cwd=folder, env=variables(folder, port), capture_output=True, text=True, timeout=300, check=False
        )
    assert again.returncode == 0, again.stderr[-2000:]
    after = Seen()
    look(root, after, model="fama_macbeth")
    assert after.cubes == seen.cubes
    assert len(after.versions) == 1
