"""SIGKILL at every step of an ingest and of a whole run, under a reader that loops, and the rerun (P1, P2)."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from dask_processes import scheduler
from injection import Injector, Kill, Outcome, Seen, ingest_config, reading, run_config, seen_at, spread

from storage.cube import Cube
from storage.files import locked
from tasks.workspace import Workspace


def killed_ingest(injector: Injector, late: Path, root: Path, ingested, step: int) -> set[str]:
    """Kill an ingest at one step under a reader, run it again, and return what was visible between the two."""
    old, before, after, _ = ingested
    shutil.copytree(old, root)
    with reading(root) as seen:
        died = injector.run(ingest_config, late, root, Kill(step))
        between = seen_at(root).cubes
        again = injector.run(ingest_config, late, root)
    assert died.exitcode in {-signal.SIGKILL, 0}, died.said
    assert again.exitcode == 0, again.said
    assert seen.errors == []
    assert seen.rounds > 5
    assert between <= seen.cubes <= {before, after}
    assert seen_at(root).cubes == {after}
    assert len(Cube.open(Workspace(root).layout, "small").history()) == 2
    assert not list(root.rglob(".staging*"))
    shutil.rmtree(root)
    return between


@pytest.mark.slow
def test_an_ingest_killed_at_its_last_step_shows_whole_snapshots_and_the_rerun_completes(
    injector: Injector, late: Path, tmp_path: Path, ingested
) -> None:
    _, _, after, steps = ingested
    assert killed_ingest(injector, late, tmp_path / "late", ingested, spread(steps, 3)[-1]) == {after}


@pytest.mark.slow
def test_an_ingest_killed_at_every_fifth_step_of_its_last_part(
    injector: Injector, late: Path, tmp_path: Path, ingested
) -> None:
    """The dense one: what goes before the first store into the cube is the work store, sampled more thinly."""
    _, before, after, steps = ingested
    points = sorted({*spread(steps, 9), *range(steps - 20, steps + 1, 4)})
    between = [killed_ingest(injector, late, tmp_path / str(step), ingested, step) for step in points]
    assert {before} in between
    assert {after} in between


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory):
    """Share one scheduler with one worker among all runs of this file."""
    with scheduler(tmp_path_factory.mktemp("dask"), workers=1) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORCUBE_DASK_SCHEDULER", address)
        yield


@pytest.fixture(scope="module")
def published_once(tmp_path_factory: pytest.TempPathFactory, injector: Injector, early: Path, late: Path, dask: None):
    """Return a root after the early run, what a reader sees before and after the late one, and its number of steps."""
    folder = tmp_path_factory.mktemp("published")
    first = injector.run(run_config, early, folder / "old")
    assert first.exitcode == 0, first.said
    shutil.copytree(folder / "old", folder / "new", symlinks=True)
    whole = injector.run(run_config, late, folder / "new")
    assert whole.exitcode == 0, whole.said
    return folder / "old", seen_at(folder / "old"), seen_at(folder / "new"), whole.steps


def killed_run(injector: Injector, late: Path, root: Path, published_once, step: int) -> tuple[Seen, Outcome]:
    """Kill a whole run at one step under a reader, run it again, and compare with a run that nobody killed."""
    old, before, after, _ = published_once
    shutil.copytree(old, root, symlinks=True)
    with reading(root) as seen:
        died = injector.run(run_config, late, root, Kill(step))
        between = seen_at(root)
        again = injector.run(run_config, late, root)
    assert died.exitcode in {-signal.SIGKILL, 0}, died.said
    assert again.exitcode == 0, again.said
    assert seen.errors == []
    assert seen.cubes <= before.cubes | after.cubes
    assert set(seen.versions.values()) <= {*before.versions.values(), *after.versions.values()}
    final = seen_at(root)
    assert final.cubes == after.cubes
    assert final.versions == after.versions
    assert (
        len([path for path in (root / "published/small/market").iterdir() if path.name[:2] == "20" and path.is_dir()])
        == 2
    )
    assert not list(root.rglob(".staging*"))
    shutil.rmtree(root)
    return between, died


@pytest.mark.slow
def test_a_run_killed_at_any_step_shows_whole_versions_and_the_rerun_makes_the_same_version(
    injector: Injector, late: Path, tmp_path: Path, published_once
) -> None:
    _, before, after, steps = published_once
    points = sorted({*spread(steps, 7), *range(steps - 30, steps + 1, 6)})
    between = [killed_run(injector, late, tmp_path / str(step), published_once, step)[0] for step in points]
    assert between[0].versions == before.versions
    assert between[-1].versions == after.versions


@pytest.mark.slow
def test_a_lock_file_that_a_dead_process_left_holds_nobody_up(injector: Injector, early: Path, tmp_path: Path) -> None:
    """What counts is the kernel's lock, which died with its holder, never the words in the file."""
    cubes = tmp_path / "cubes"
    cubes.mkdir()
    (cubes / "small.lock").write_text("process 1 of somebody on another-host since 2001-01-01T00:00:00+00:00\n")
    (cubes / "small.lock").chmod(0o444)
    ended = injector.run(ingest_config, early, tmp_path)
    assert ended.exitcode == 0, ended.said
    assert seen_at(tmp_path).cubes
    with locked(cubes / "small.lock", timeout_seconds=1):
        pass
