"""Killed, racing and starved writers: readers see whole states, and running again completes.

Writers run in processes of their own, forked from a server that has imported everything, and die by SIGKILL: before
chosen changes of the disk (counted from outside through Python's audit events, no hook in the code under test),
inside Icechunk's store and commit, and at arbitrary moments.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from storing import (
    ONE,
    STATE,
    TWO,
    counting_writes,
    cube_data,
    dying_at_write,
    dying_in_icechunk,
    first_upsert,
    keep_work,
    manifest_of,
    on_every_write,
    publish_one,
    second_upsert,
    upsert_months,
    version_data,
)

from schemas.errors import ConflictError, CubeError, PublishError
from storage import published
from storage.cube import Cube
from storage.files import locked
from storage.layout import Layout
from storage.work import WorkStore

KEYS = {"fits": "a" * 64, "metrics": "b" * 64, "panels": "c" * 64}


@pytest.fixture
def ended(start) -> Callable[..., int]:
    def ended(function: Callable[..., None], *arguments: Any) -> int:
        process = start(function, *arguments)
        process.join(60)
        return process.exitcode

    return ended


def _two(root: Path) -> None:
    publish_one(root, end=TWO, seed=1)


def _versions(root: Path) -> list[str]:
    """Read everything that is visible, check it whole, and return the as-of dates, the champion's last."""
    layout = Layout(root)
    refs = published.list_versions(layout)
    for ref in refs:
        published.verify(layout, ref)
        seed = [ONE, TWO].index(ref.version[:10])
        assert published.open_version(layout, ref).load().equals(version_data(end=ref.version[:10], seed=seed))
    champion = published.latest(layout, "us", "ipca")
    if champion is not None:
        path = layout.home_folder("us", "ipca") / "latest"
        assert xr.open_zarr(path).attrs["as_of"] == champion.version[:10]
    return [ref.version[:10] for ref in refs] + [champion.version[:10] if champion else "none"]


@pytest.mark.slow
def test_a_publisher_killed_at_any_write_leaves_the_old_state_whole(tmp_path, ended):
    old = tmp_path / "old"
    publish_one(old)
    dry, count = tmp_path / "dry", tmp_path / "count"
    shutil.copytree(old, dry, symlinks=True)
    assert ended(counting_writes, dry, _two, dry, count, f"{TWO}-00000001") == 0
    steps = int(count.read_text(encoding="utf-8"))
    assert steps >= 5
    points = [(step, f"{TWO}-00000001") for step in range(1, steps + 1)]
    points += [(step, "") for step in random.Random(0).sample(range(1, 100), 4)]
    seen = set()
    for step, since in points:
        root = tmp_path / f"killed-{step}"
        shutil.copytree(old, root, symlinks=True)
        assert ended(dying_at_write, root, _two, root, step, since) == -signal.SIGKILL
        visible = _versions(root)
        assert visible in ([ONE, ONE], [ONE, TWO, ONE], [ONE, TWO, TWO])
        seen.add(tuple(visible))
        _two(root)
        assert _versions(root) == [ONE, TWO, TWO]
        names = {path.name for path in Layout(root).home_folder("us", "ipca").iterdir()}
        assert names == {".lock", "latest", "latest.json", f"{ONE}-00000000", f"{TWO}-00000001"}
        shutil.rmtree(root)
    assert seen == {(ONE, ONE), (ONE, TWO, ONE), (ONE, TWO, TWO)}


@pytest.mark.slow
def test_work_killed_at_any_write_is_there_whole_or_absent(tmp_path, ended):
    assert ended(counting_writes, tmp_path / "dry", keep_work, tmp_path / "dry", tmp_path / "count") == 0
    steps = int((tmp_path / "count").read_text(encoding="utf-8"))
    for step in random.Random(1).sample(range(1, steps - 5), 6):
        root = tmp_path / f"killed-{step}"
        assert ended(dying_at_write, root, keep_work, root, step) == -signal.SIGKILL
        _whole_or_absent(root)
        keep_work(root)
        assert all(WorkStore(Layout(root)).has(kind, key) for kind, key in KEYS.items())
        _whole_or_absent(root)
        assert not list(root.rglob(".staging*"))
        shutil.rmtree(root)


def _whole_or_absent(root: Path) -> None:
    store = WorkStore(Layout(root))
    if store.has("fits", KEYS["fits"]):
        np.testing.assert_array_equal(store.get_arrays("fits", KEYS["fits"])[0]["gamma"], STATE["gamma"])
    if store.has("metrics", KEYS["metrics"]):
        assert store.get_json("metrics", KEYS["metrics"]) == {"total_r2": 0.5}
    if store.has("panels", KEYS["panels"]):
        stored = store.open_dataset("panels", KEYS["panels"])
        assert stored.equals(cube_data(pd.bdate_range("2024-01-01", periods=600)))


@pytest.fixture(scope="module")
def cube_states(tmp_path_factory) -> tuple[Path, xr.Dataset, xr.Dataset]:
    """Return a cube after its first upsert, and its content before and after the second."""
    folder = tmp_path_factory.mktemp("cubes")
    first_upsert(folder / "first")
    before = Cube.open(Layout(folder / "first"), "us").open_dataset().load()
    shutil.copytree(folder / "first", folder / "second")
    second_upsert(folder / "second")
    after = Cube.open(Layout(folder / "second"), "us").open_dataset().load()
    assert not before.equals(after)
    return folder / "first", before, after


KILLS = [("set", 1), ("set", 4), ("set", 11), ("set", 17), ("before commit", 1), ("commit", 1)]


@pytest.mark.parametrize(("method", "last"), KILLS)
def test_a_cube_writer_killed_in_icechunk_leaves_a_whole_snapshot(tmp_path, ended, cube_states, method, last):
    first, before, after = cube_states
    root = tmp_path / "root"
    shutil.copytree(first, root)
    reader = Cube.open(Layout(root), "us").open_dataset()
    assert ended(dying_in_icechunk, second_upsert, root, method, last) == -signal.SIGKILL
    seen = Cube.open(Layout(root), "us").open_dataset()
    assert seen.identical(after if method == "commit" else before)
    assert reader.identical(before)
    second_upsert(root)
    assert Cube.open(Layout(root), "us").open_dataset().identical(after)
    assert len(Cube.open(Layout(root), "us").history()) == 2


def test_a_cube_writer_killed_at_any_moment_leaves_a_whole_snapshot(tmp_path, start, cube_states):
    _, before, after = cube_states
    began = time.monotonic()
    start(_both_upserts, tmp_path / "dry").join(60)
    choice, took, codes = random.Random(2), time.monotonic() - began, []
    for attempt in range(8):
        root = tmp_path / str(attempt)
        process = start(_both_upserts, root)
        time.sleep(choice.uniform(0.1, 1.0) * took)
        process.kill()
        process.join(60)
        codes.append(process.exitcode)
        try:
            seen = Cube.open(Layout(root), "us").open_dataset().load()
            assert seen.identical(before) or seen.identical(after)
        except CubeError as error:
            assert "does not exist" in str(error) or "is empty" in str(error)  # noqa: PT017
        _both_upserts(root)
        assert Cube.open(Layout(root), "us").open_dataset().identical(after)
        shutil.rmtree(root)
    assert -signal.SIGKILL in codes


def _both_upserts(root: Path) -> None:
    """Write both states, unless the second is there: the first would restate what the second has put on top."""
    cube = Cube.open_or_create(Layout(root), "us")
    if len(cube.history()) < 2:
        first_upsert(root)
        second_upsert(root)


@pytest.mark.slow
def test_writers_side_by_side_lose_nothing_and_readers_see_whole_snapshots(tmp_path, start):
    layout, years = Layout(tmp_path), (2021, 2022, 2023)
    cube = Cube.open_or_create(layout, "us")
    cube.upsert(cube_data(["2020-01-01"]), message="first", metadata={})
    writers = [start(upsert_months, tmp_path, year) for year in years]
    states = set()
    while any(writer.is_alive() for writer in writers):
        seen = Cube.open(layout, "us").open_dataset().load()
        states.add(seen.sizes["date"])
        _check_months(seen)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(states) > 2, "the reader never met a writer"
    seen = cube.open_dataset().load()
    _check_months(seen)
    assert seen.sizes["date"] == 1 + 3 * 6 * 15
    assert len(cube.history()) == 1 + 3 * 6


def _check_months(seen: xr.Dataset) -> None:
    """Every month that is there at all is there whole, with the values that one writer gave it."""
    dates = seen.indexes["date"]
    for month in dates[1:].to_period("M").unique():
        expected = cube_data(pd.bdate_range(month.start_time, periods=15), seed=100 * month.year + month.month)
        assert seen.sel(date=dates[dates.to_period("M") == month]).equals(expected)


def test_of_two_publishers_of_one_version_one_wins_and_the_other_changes_nothing(tmp_path, start):
    same = [start(publish_one, tmp_path) for _ in range(2)]
    for process in same:
        process.join(60)
    assert [process.exitcode for process in same] == [0, 0]
    assert _versions(tmp_path) == [ONE, ONE]
    layout, outcomes = Layout(tmp_path), []
    gate = threading.Barrier(2)

    def rival(seed: int) -> None:
        dataset = version_data(end=TWO, seed=seed)
        gate.wait()
        try:
            published.publish(layout, dataset, manifest_of(dataset, tag="00000001"), STATE)
            outcomes.append(seed)
        except ConflictError as error:
            outcomes.append(str(error))

    rivals = [threading.Thread(target=rival, args=(seed,)) for seed in (1, 2)]
    for thread in rivals:
        thread.start()
    for thread in rivals:
        thread.join()
    winner = next(one for one in outcomes if isinstance(one, int))
    assert any("already published with other content" in str(one) for one in outcomes)
    stored = published.open_version(layout, published.resolve(layout, f"us/ipca/{TWO}-00000001"))
    assert stored.equals(version_data(end=TWO, seed=winner))


def test_everything_that_becomes_visible_is_on_the_disk_first(tmp_path, monkeypatch):
    """After a power cut only what was synced is there: contents before their names, names by their folder."""
    events: list[tuple[str, Any]] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def synced(descriptor: int) -> None:
        events.append(("sync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def moved(act: Callable[..., Path]) -> Callable[..., Path]:
        def move(path: Path, target: Path) -> Path:
            inner = [] if path.is_symlink() else [path, *path.rglob("*")]
            events.append(("move", ({one.stat().st_ino for one in inner}, Path(target).parent)))
            return act(path, target)

        return move

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", moved(replace))
    monkeypatch.setattr(Path, "rename", moved(rename))
    publish_one(tmp_path)
    moves = [(place, what) for place, (kind, what) in enumerate(events) if kind == "move"]
    moves = [(place, (inodes, folder)) for place, (inodes, folder) in moves if ".staging" not in str(folder)]
    assert [len(inodes) > 50 for _, (inodes, _) in moves] == [True, False, False], "version, document, link"
    for place, (inodes, folder) in moves:
        before = {what for kind, what in events[:place] if kind == "sync"}
        after = {what for kind, what in events[place:] if kind == "sync"}
        assert inodes <= before
        assert folder.stat().st_ino in after


def _watching(root: Path, outcome: Path) -> None:
    """Move `latest`, and look before every change of the disk whether it is there."""
    link, missing = Layout(root).home_folder("us", "ipca") / "latest", []
    steps = on_every_write(root, "latest", lambda step: None if link.is_symlink() else missing.append(step))
    published.promote(Layout(root), "us", "ipca", f"{TWO}-00000001", reason="test")
    outcome.write_text(f"{steps() > 2} {missing}", encoding="utf-8")


def test_latest_is_there_at_every_moment_of_a_promotion(tmp_path, ended):
    _two(tmp_path)
    publish_one(tmp_path)
    assert ended(_watching, tmp_path, tmp_path / "outcome") == 0
    assert (tmp_path / "outcome").read_text(encoding="utf-8") == "True []"


def test_a_cube_is_read_merged_and_committed_under_one_lock(tmp_path, monkeypatch):
    """Without it Icechunk drops one of two commits on a local disk in silence."""
    first_upsert(tmp_path)
    lock, seen = tmp_path / "cubes" / "us.lock", []

    def under_lock(owner: Any, name: str) -> None:
        act = getattr(owner, name)

        def checked(*arguments: Any, **named: Any) -> Any:
            with pytest.raises(ConflictError, match="still held"), locked(lock, timeout_seconds=0):
                pass
            seen.append(name)
            return act(*arguments, **named)

        monkeypatch.setattr(owner, name, checked)

    under_lock(icechunk.Repository, "writable_session")
    under_lock(icechunk.Session, "commit")
    second_upsert(tmp_path)
    assert seen == ["writable_session", "commit"]
    with locked(lock, timeout_seconds=0):
        pass


def _alternate(root: Path, enough: Path) -> None:
    """Move `latest` back and forth 30 times, then on until the reader has seen both, unless it never does."""
    for turn in range(600):
        if turn >= 30 and enough.exists():
            break
        for version in (f"{ONE}-00000000", f"{TWO}-00000001"):
            published.promote(Layout(root), "us", "ipca", version, reason="test")


def test_a_reader_that_loops_while_latest_moves_sees_one_version_whole(tmp_path, start):
    publish_one(tmp_path)
    _two(tmp_path)
    whole = {ONE: version_data(end=ONE, seed=0), TWO: version_data(end=TWO, seed=1)}
    enough = tmp_path / "enough"
    writer = start(_alternate, tmp_path, enough)
    link, seen = Layout(tmp_path).home_folder("us", "ipca") / "latest", []
    while writer.is_alive():
        dataset = xr.open_zarr(link.resolve())
        assert dataset.load().equals(whole[dataset.attrs["as_of"]])
        seen.append(dataset.attrs["as_of"])
        if set(seen) == {ONE, TWO}:
            enough.touch()
    assert writer.exitcode == 0
    assert set(seen) == {ONE, TWO}


def _starved(act: Callable[[Path], None], root: Path, limit: int, outcome: Path) -> None:
    """Act while no file may grow beyond a size, which fails writes as a full disk does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        act(root)
    except (CubeError, PublishError) as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        outcome.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")


def _grow(root: Path) -> None:
    Cube.open(Layout(root), "us").upsert(_large(), message="large", metadata={})


def _large() -> xr.Dataset:
    return cube_data(pd.bdate_range("2024-01-01", periods=300), [f"T{i}" for i in range(100)])


@pytest.mark.parametrize(("act", "kind"), [(_two, "PublishError"), (_grow, "CubeError")])
def test_a_full_disk_is_told_and_leaves_the_old_state(tmp_path, ended, act, kind):
    publish_one(tmp_path)
    first_upsert(tmp_path)
    before = Cube.open(Layout(tmp_path), "us").open_dataset().load()
    outcome = tmp_path / "outcome"
    limit = 400 if act is _two else 20_000
    assert ended(_starved, act, tmp_path, limit, outcome) == 0
    assert outcome.read_text(encoding="utf-8").startswith(f"{kind}: ")
    assert _versions(tmp_path) == [ONE, ONE]
    assert Cube.open(Layout(tmp_path), "us").open_dataset().identical(before)
    act(tmp_path)
    assert not list(tmp_path.rglob(".staging*"))


def test_a_lock_is_exclusive_names_its_holder_and_dies_with_it(tmp_path, start):
    path = tmp_path / "one.lock"
    holder = start(_hold, path, tmp_path / "held")
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with (
        pytest.raises(ConflictError, match=rf"held by process {holder.pid} of .* after 0\.1 s"),
        locked(path, timeout_seconds=0.1),
    ):
        pass
    holder.kill()
    holder.join()
    with locked(path, timeout_seconds=5):
        assert str(holder.pid) not in path.read_text(encoding="utf-8").split()
    assert path.read_text(encoding="utf-8") == ""


def _hold(path: Path, mark: Path) -> None:
    with locked(path):
        mark.touch()
        time.sleep(60)
