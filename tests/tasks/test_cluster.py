"""What a run says of its workers, and of those that are not there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from schemas.errors import ExecutionError
from schemas.settings import Settings
from tasks.cluster import Cluster


def test_a_warning_that_every_refit_gives_is_said_once(tmp_path: Path) -> None:
    lines: list[str] = []
    cluster = Cluster(Settings(root=tmp_path), lines.append)
    said = [
        "  warning: Of 359 dates of pca2 88 lack the slope of a characteristic",
        "  warning: Of 423 dates of pca2 90 lack the slope of a characteristic",
        "  warning: Of 423 dates of pca3 90 lack the slope of a characteristic",
        "  pca2 as of 2016-06-30: 10 rounds",
        "  pca2 as of 2016-09-30: 10 rounds",
    ]
    for line in said:
        cluster.tell(line)
    assert lines == [said[0], *said[2:]]


def test_workers_that_are_gone_for_good_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the run itself are not replaced; a scheduler of others may have new ones, and the run says so once."""
    monkeypatch.setattr("tasks.gathering.LOOK_SECONDS", 0.2)
    lines: list[str] = []
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None, silence_logs=50) as nobody,
        Client(nobody) as client,
    ):
        own = Cluster(Settings(root=tmp_path), lines.append)
        monkeypatch.setattr(own, "_client", client)
        with pytest.raises(ExecutionError, match="all Dask workers have ended"):
            own.gather([client.submit(int)], str)
        others = Cluster(Settings(root=tmp_path, dask_scheduler="tcp://127.0.0.1:1"), lines.append)
        monkeypatch.setattr(others, "_client", client)
        waiting = client.submit(int, pure=False)
        threading.Timer(1.5, nobody.scale, [1]).start()
        assert others.gather([waiting], str) == [0]
    assert lines == ["  warning: no Dask worker at tcp://127.0.0.1:1; waiting for one", "[1/1] 0"]
