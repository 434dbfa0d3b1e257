"""What a run says of its workers, and of those that are not there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from schemas.errors import ConfigError, ExecutionError
from schemas.settings import Settings
from storage.work import Kind
from tasks.cluster import Cluster, open_cluster
from tasks.workspace import Workspace, _on_worker


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


def test_a_run_may_come_before_the_workers_and_each_of_them_is_asked_for_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a scheduler adapts their number to the work: none before it, and some while it is done."""
    lines: list[str] = []
    nobody = LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=None, silence_logs=50)
    with (
        nobody,
        open_cluster(Settings(root=tmp_path, dask_scheduler=nobody.scheduler_address), lines.append) as cluster,
    ):
        with monkeypatch.context() as patch:
            patch.setattr("tasks.cluster.source_version", lambda: "an older release")
            by_others = cluster.submit(divmod, 7, 2, key="divmod")
        by_own = cluster.submit(divmod, 7, 2, key="divmod")
        nobody.scale(1)
        assert cluster.gather([by_own], str) == [(3, 1)]
        with pytest.raises(ExecutionError, match=r"runs another version .* here: an older release\); install the same"):
            cluster.gather([by_others], str)
    assert lines[0].startswith("Dask: no worker yet at tcp://127.0.0.1:")


def _found(space: Workspace) -> bool:
    return space.work.has(Kind.FITS, "x")


def test_workers_that_look_for_intermediate_results_elsewhere_are_refused_at_the_start(
    tmp_path: Path, s3: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = s3
    monkeypatch.setattr("storage.stores.objects._RETRY", {"max_retries": 0})
    monkeypatch.delenv("FACTORCUBE_WORK", raising=False)
    with LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=None, silence_logs=50) as others:
        settings = Settings(root=tmp_path, work=url, dask_scheduler=others.scheduler_address)

        def told() -> str:
            with (
                pytest.raises(ExecutionError, match=r"^Dask worker tcp://\S+ cannot reach the intermediate") as failure,
                open_cluster(settings, print) as cluster,
            ):
                cluster.submit(int, key="int")
            return str(failure.value)

        assert f"FACTORCUBE_WORK is not set there and {url} in the run; set it alike on every Dask worker" in told()
        monkeypatch.setenv("FACTORCUBE_WORK", f"{url}/other")
        assert f"FACTORCUBE_WORK is {url}/other there" in told()
        monkeypatch.setenv("FACTORCUBE_WORK", url)
        with open_cluster(settings, print) as cluster:
            assert cluster.client is not None, "it opens"
            _on_worker.cache_clear()
            monkeypatch.delenv("FACTORCUBE_WORK")  # as of a worker that joined later
            space = Workspace.of_workers(settings)
            with pytest.raises(ConfigError, match="FACTORCUBE_WORK is not set there"):
                cluster.gather([cluster.submit(_found, space, key="found")], str)
        monkeypatch.setenv("FACTORCUBE_WORK", url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        said = told()
        assert f"{url}/work" in said
        assert "\n" not in said
        assert "planted-secret" not in said
