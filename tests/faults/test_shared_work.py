"""Dask workers that share nothing but an object store, one of which is killed: the bits of a run on one disk."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

import pytest
from dask_processes import scheduler
from injection import content_of, run_config
from small_market import SMALL, make_market, write_config

from storage import published
from storage.layout import Layout

pytestmark = [pytest.mark.usefixtures("prefect_api"), pytest.mark.slow]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Config of a model with Gram statistics and one with pieces, three refits each."""
    make_market().write_parquet(tmp_path / "prices.parquet")
    return write_config(tmp_path, {"models": [SMALL["models"][place] for place in (3, 4)]})


def run(config: Path, root: Path) -> dict[str, str]:
    """Run the whole job; return the content of every version."""
    run_config(str(config))
    versions = published.list_versions(Layout(root))
    return {one.model: content_of(published.open_version(Layout(root), one)) for one in versions}


def kinds(root: Path) -> set[str]:
    """Return the kinds of the intermediate results below a root."""
    return {path.parent.name for path in root.glob("work/*/[!.]*")}


def test_workers_without_a_shared_disk_give_the_same_bits_though_one_is_killed(
    config: Path,
    tmp_path: Path,
    s3: tuple[str, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url, env = s3
    machines = [tmp_path / f"machine-{number}" for number in range(2)]
    (tmp_path / "dask").mkdir()
    somebody = scheduler(
        tmp_path / "dask",
        workers=2,
        own=lambda number: {**env, "FACTORCUBE_WORK": url, "FACTORCUBE_ROOT": str(machines[number])},
    )
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "flow"))
    struck, over = threading.Event(), threading.Event()

    def strike() -> None:
        while not over.wait(0.02):
            if list(machines[0].glob("work/fits/[!.]*")):
                somebody.processes[2].kill()
                struck.set()
                return

    watcher = threading.Thread(target=strike)
    for name in env:  # the scheduler has neither credentials nor the setting
        monkeypatch.delenv(name)
    with somebody as address, caplog.at_level(logging.DEBUG):
        monkeypatch.setenv("FACTORCUBE_DASK_SCHEDULER", address)
        for name, value in {**env, "FACTORCUBE_WORK": url}.items():
            monkeypatch.setenv(name, value)
        watcher.start()
        try:
            found = run(config, tmp_path / "flow")
        finally:
            over.set()
            watcher.join()
        assert struck.is_set()
        assert somebody.processes[2].wait(10) == -signal.SIGKILL
    assert {"panels", "pieces", "fits", "grams"} <= kinds(machines[0])
    assert "panels" in kinds(machines[1]), "it worked"
    assert not {"pieces", "grams"} & kinds(tmp_path / "flow"), "no worker wrote into the root of the run"
    monkeypatch.delenv("FACTORCUBE_WORK")
    monkeypatch.delenv("FACTORCUBE_DASK_SCHEDULER")
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "alone"))
    assert found == run(config, tmp_path / "alone")
    assert len(found) == 2
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        for secret in ("planted-secret", "test-key-id"):
            assert secret.encode() not in path.read_bytes(), path
            assert secret not in caplog.text
