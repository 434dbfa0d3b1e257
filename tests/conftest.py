"""Fixtures that several test files share: a small market on disk, a spec for it, and a real Prefect API."""

from __future__ import annotations

import multiprocessing
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from small_market import make_market, write_config
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from s3_server import S3Server

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # to compile a peer takes longer than to run it on panels of tests
os.environ.setdefault("FACTORCUBE_WORKERS", "1")  # two files run side by side, and each worker loads torch for itself

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


LONGEST = ("test_training.py", "test_cli.py", "test_foreign_family.py", "test_pipeline.py", "test_forecast.py")
"""Files that begin first: of two processes that share the files, one would else end minutes after the other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that need Prefect, and those of the longest files, before all others."""
    items.sort(key=lambda item: (not _needs_prefect(item.path), item.path.name not in LONGEST))


class OnePrefect(LoadFileScheduling):
    """Keeps the tests of a file in one process, and all files that need Prefect in the same.

    A server that waits takes a tenth of a processor and more, and each process starts its own.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "prefect" if _needs_prefect(self.config.rootpath / file) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OnePrefect | None:
    """Share out files as `OnePrefect` does, where files are shared out."""
    return OnePrefect(config, log) if config.getvalue("dist") == "loadfile" else None


@cache
def _needs_prefect(path: Path) -> bool:
    return "prefect_api" in path.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the 505-stock files; tests that need them are skipped where they are absent."""
    if not (SHARED / "sp500_5yr_daily.parquet").exists():
        pytest.skip("the 505-stock files are not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """Start a Prefect server of its own, with its own database, for the whole session; give its address."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=240):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="session")
def workers_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Dask scheduler with one worker for the whole session; give its address."""
    from dask_processes import scheduler

    with scheduler(tmp_path_factory.mktemp("dask"), workers=1) as address:
        yield address


@pytest.fixture(scope="module")
def dask_scheduler(workers_of_all: str) -> Iterator[None]:
    """Let the runs of a file share the workers of the session, where it is not about workers: each loads torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORCUBE_DASK_SCHEDULER", workers_of_all)
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Start an S3-compatible server on loopback for the whole session."""
    from s3_server import S3Server

    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, str]]:
    """Return the URL of a fresh store, and the variables that open it, which are set."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return f"{s3_server.bucket(f'bucket-{uuid.uuid4().hex}')}/team/prod", s3_server.env


@pytest.fixture(scope="session")
def forked() -> ForkServerContext:
    """Start a server that forks processes which have imported everything that `storage` needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "storing", "tasks.workspace"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # without it Python 3.11's server cannot import `storing`
        forkserver.ensure_running()
    return context


@pytest.fixture
def start(forked: ForkServerContext) -> Callable[..., Any]:
    """Run a function in a process of its own; its environment is that of the session."""

    def start(function: Callable[..., None], *arguments: Any) -> Any:
        process = forked.Process(target=function, args=arguments, daemon=True)
        process.start()
        return process

    return start


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with prices and a config; return the path of the config."""
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    make_market().write_parquet(tmp_path / "prices.parquet")
    return write_config(tmp_path, {})
