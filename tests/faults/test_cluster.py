"""Dask processes that die in the middle of a fit: the numbers are those of a run in which nobody died, or one line."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from dask_processes import scheduler
from injection import content_of, run_config
from small_market import SMALL, make_market, write_config

from schemas.errors import ExecutionError
from schemas.refs import VersionRef
from schemas.settings import load_settings
from storage import published
from tasks.workspace import Workspace

pytestmark = [pytest.mark.usefixtures("prefect_api"), pytest.mark.slow]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Config of three models with three refits each."""
    folder = tmp_path_factory.mktemp("dying")
    make_market().write_parquet(folder / "prices.parquet")
    return write_config(folder, {"models": [SMALL["models"][place] for place in (1, 3, 4)]})


@pytest.fixture(scope="module")
def undisturbed(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Content of every version of a run in which nobody died."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORCUBE_ROOT", str(tmp_path_factory.mktemp("undisturbed")))
        return contents(run(config))


def run(config: Path) -> list[VersionRef]:
    run_config(str(config))
    return published.list_versions(Workspace(load_settings().root).layout)


def contents(versions: list[VersionRef]) -> dict[str, str]:
    layout = Workspace(load_settings().root).layout
    return {one.model: content_of(published.open_version(layout, one)) for one in versions}


def fits() -> dict[str, int]:
    """Return the fits that are kept so far, and when they were made."""
    kept = load_settings().root.glob("work/fits/[!.]*")
    return {path.name: path.stat().st_mtime_ns for path in kept}


@contextlib.contextmanager
def after_the_first_fit(strike: Callable[[], None]) -> Iterator[threading.Event]:
    """Strike once as soon as one fit is done, while others are being made."""
    struck, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if fits():
                strike()
                struck.set()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield struck
    finally:
        over.set()
        thread.join()


def test_a_worker_of_another_cluster_killed_in_the_middle_of_a_fit_changes_no_number(
    config: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    somebody = scheduler(tmp_path, workers=2)
    with somebody as address, after_the_first_fit(somebody.processes[1].kill) as struck:
        monkeypatch.setenv("FACTORCUBE_DASK_SCHEDULER", address)
        assert contents(run(config)) == undisturbed
        assert struck.is_set()
        assert somebody.processes[1].wait(10) == -signal.SIGKILL


def test_a_worker_of_the_local_cluster_killed_in_the_middle_of_a_fit_changes_no_number(
    config: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    monkeypatch.setenv("FACTORCUBE_WORKERS", "2")
    killed: list[int] = []

    def strike() -> None:
        busy = [
            child for child in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
        ]
        killed.append(busy[0].pid)
        os.kill(busy[0].pid, signal.SIGKILL)

    with after_the_first_fit(strike) as struck:
        assert contents(run(config)) == undisturbed
    assert struck.is_set()
    assert not psutil.pid_exists(killed[0])


def test_workers_that_were_told_to_end_are_one_line_and_not_waited_for(
    config: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has ended in order is not replaced, as a rule; Dask would wait for another one for ever."""
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    monkeypatch.setenv("FACTORCUBE_WORKERS", "1")
    monkeypatch.setattr("tasks.gathering.LOOK_SECONDS", 2.0)

    def strike() -> None:
        for child in psutil.Process().children(recursive=True):
            if "spawn_main" in " ".join(child.cmdline()):
                child.terminate()

    with after_the_first_fit(strike) as struck, contextlib.suppress(ExecutionError):
        run(config)
    assert struck.is_set()
    assert contents(run(config)) == undisturbed


def test_a_scheduler_lost_in_the_middle_is_one_line_and_the_rerun_goes_on_with_what_is_done(
    config: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    somebody = scheduler(tmp_path, workers=1)
    with somebody as address, after_the_first_fit(somebody.processes[0].kill) as struck:
        monkeypatch.setenv("FACTORCUBE_DASK_SCHEDULER", address)
        with pytest.raises(ExecutionError, match=r"scheduler was lost.*run again") as told:
            run(config)
        assert struck.is_set()
    assert "\n" not in str(told.value)
    done = fits()
    assert done
    assert not list(load_settings().root.rglob("manifest.json"))
    with scheduler(tmp_path, workers=2) as address:
        monkeypatch.setenv("FACTORCUBE_DASK_SCHEDULER", address)
        assert contents(run(config)) == undisturbed
    assert done.items() <= fits().items(), "a fit that was done is not made again"
