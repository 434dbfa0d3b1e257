"""A command that is told to end (Ctrl-C, SIGTERM): in seconds, with all its processes, whole, and told how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from running import Inline, ingested
from small_market import SMALL, make_market, write_config

from schemas.settings import Settings
from storage.configs import load_spec
from tasks.training import train

COMMAND = [sys.executable, "-m", "deploy.cli", "run", "config.yaml", "--promote-first"]
LONG = {"kind": "autoencoder", "n_factors": 2, "hidden": [4], "seeds": [0], "max_epochs": 100_000, "patience": 100_000}
STUCK = """
import signal, subprocess, sys, time
from deploy import ending
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may be deaf to it
ending.GRACE_SECONDS = {grace}
with ending.told_to_end("go on"):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        print(child.pid, flush=True)
        time.sleep(600)
    finally:
        time.sleep({unwinding})  # a library that does not listen
"""


def kept(root: Path) -> dict[str, int]:
    """Intermediate results, and when each was made."""
    return {str(path): path.stat().st_mtime_ns for path in root.glob("work/*/[!.]*")}


def interactive() -> None:
    """Lead a session of its own, as a command in a terminal does; a test runner may have told it to ignore Ctrl-C."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def under_way(folder: Path) -> Iterator[psutil.Process]:
    """Run the config of a folder as a terminal does, until a fit is under way; end it with the block in any case."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    variables |= {"FACTORCUBE_ROOT": str(folder / "out"), "FACTORCUBE_WORKERS": "1"}
    variables |= {"PYTHONPATH": os.pathsep.join(sys.path), "PREFECT_HOME": str(folder / "prefect")}
    log = folder / "log"
    with log.open("wb") as output:
        run = subprocess.Popen(
            COMMAND,
            cwd=folder,
            env=variables,
            stdout=output,
            stderr=output,
            preexec_fn=interactive,  # noqa: PLW1509  # the child does nothing else before it is another program
        )
    try:
        while run.poll() is None and "autoencoder as of" not in log.read_text():  # a worker says how its fit goes
            time.sleep(0.05)
        assert run.poll() is None, log.read_text()
        yield psutil.Process(run.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait(30)


@pytest.mark.slow
def test_one_ctrl_c_ends_a_run_with_its_workers_and_its_server_and_the_rerun_keeps_what_is_done(tmp_path: Path) -> None:
    make_market().write_parquet(tmp_path / "prices.parquet")
    config = write_config(tmp_path, {"models": [SMALL["models"][0], LONG]})
    with under_way(tmp_path) as run:
        started = run.children(recursive=True)
        assert {"uvicorn", "spawn_main"} <= {
            word.strip(";") for one in started for word in " ".join(one.cmdline()).split()
        }
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(60) == 130
    said = (tmp_path / "log").read_text()
    assert "Dask Worker process" not in said, "a worker that takes the signal too says so with a traceback"
    assert said.splitlines()[-1] == (
        "stopped by Ctrl-C; nothing is half-written: run the same command again to go on; finished fits are kept"
    )
    assert psutil.wait_procs(started, timeout=5)[1] == []
    settings, spec = Settings(root=tmp_path / "out"), load_spec(config)
    done = kept(settings.root)
    assert {"raw", "checks", "panels"} <= {Path(name).parent.name for name in done}
    assert not list(settings.root.rglob("manifest.json"))
    snapshot = ingested(spec, settings)
    assert not snapshot.changed, "the ingest was done"
    (version,) = train(spec, spec.models[:1], snapshot, None, Inline(), settings)
    assert version.changed
    assert done.items() <= kept(settings.root).items(), "what was done is not made again"
    assert not list(settings.root.rglob(".staging*"))


@pytest.mark.parametrize(
    ("told", "status", "grace", "unwinding"),
    [
        ([signal.SIGTERM], 143, 0.2, 600),
        ([signal.SIGINT, signal.SIGINT], 130, 600, 600),
        ([signal.SIGHUP], 129, 600, 0),
    ],
    ids=["does not unwind in time", "told twice", "unwinds"],
)
def test_what_does_not_unwind_ends_all_the_same_with_all_its_descendants(
    told: list[signal.Signals], status: int, grace: float, unwinding: float
) -> None:
    program = [sys.executable, "-c", STUCK.format(grace=grace, unwinding=unwinding)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        for number in told:
            process.send_signal(number)
            time.sleep(0.2)  # the second is another one only once the first has arrived
        assert process.wait(30) == status
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1].endswith("nothing is half-written: go on")
    assert psutil.wait_procs([child], timeout=5)[1] == []
