"""Two writers of one universe at once: each ends whole or is told, and a reader never meets a mixture (P1, P3)."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from dask_processes import scheduler
from injection import Injector, content_of, ingest_config, reading, run_config
from pages import Page

from storage import published
from storage.cube import Cube
from tasks.workspace import Workspace


def _returns(root: Path) -> str:
    returns = Cube.open(Workspace(root).layout, "small").open_dataset()[["returns"]]
    return content_of(returns.sortby("ticker"))


@pytest.mark.slow
def test_two_ingests_of_one_universe_at_once_both_land_whole(
    injector: Injector, early: Path, late: Path, tmp_path: Path
) -> None:
    """The two files contradict each other on common dates: the end is that of one after the other, in either order."""
    expected = set()
    for order in ((early, late), (late, early)):
        alone = tmp_path / order[0].parent.name
        for config in order:
            assert injector.run(ingest_config, config, alone).exitcode == 0
        expected.add(_returns(alone))
    assert len(expected) == 2
    root = tmp_path / "both"
    with reading(root) as seen:
        both = [injector.start(ingest_config, config, root) for config in (early, late)]
        outcomes = [injector.outcome(process) for process in both]
    assert [outcome.exitcode for outcome in outcomes] == [0, 0], outcomes
    assert seen.errors == []
    assert len(seen.cubes) <= 3
    cube = Cube.open(Workspace(root).layout, "small")
    assert len(cube.history()) == 2
    assert _returns(root) in expected
    for page in (root / "data_docs/small").glob("*.html"):
        assert Page(page.read_text(encoding="utf-8")).title, page.name
    assert not list(root.rglob(".staging*"))


@pytest.mark.slow
def test_an_ingest_in_the_middle_of_a_run_does_not_reach_its_numbers(
    injector: Injector, early: Path, late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run keeps the snapshot that it started from."""
    with scheduler(tmp_path, workers=1) as address:
        monkeypatch.setenv("FACTORCUBE_DASK_SCHEDULER", address)
        root, alone = tmp_path / "both", tmp_path / "alone"
        assert injector.run(ingest_config, early, root).exitcode == 0
        shutil.copytree(root, alone)
        assert injector.run(run_config, early, alone).exitcode == 0
        with reading(root) as seen:
            running = injector.start(run_config, early, root)
            while not (root / "work" / "panels").exists() and running.is_alive():
                time.sleep(0.05)  # a panel is made from a snapshot: the run has taken its own
            both = [running, injector.start(ingest_config, late, root)]
            outcomes = [injector.outcome(process) for process in both]
        assert [outcome.exitcode for outcome in outcomes] == [0, 0], outcomes
        assert seen.errors == []
    one, other = (published.list_versions(Workspace(folder).layout) for folder in (root, alone))
    assert [ref.version for ref in one] == [ref.version for ref in other]
    for ref in one:
        contents = {content_of(published.open_version(Workspace(folder).layout, ref)) for folder in (root, alone)}
        assert len(contents) == 1
    assert str(Cube.open(Workspace(root).layout, "small").open_dataset()["date"].values[-1])[:10] == "2016-12-30"
