"""Upkeep: what may go goes, what anything needs stays, whatever is published, read or killed meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from datetime import UTC, date, datetime, timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from storing import STATE, cube_data, manifest_of, version_data
from typer.testing import CliRunner

from deploy.cli import app
from schemas.errors import CorruptionError, CubeError
from schemas.retention import DEFAULT, Candidate, Plan, RetentionRule, kept_versions
from schemas.settings import Settings
from storage import catalog, checksums, cube_upkeep, leftovers, published
from storage.catalog import refresh_catalog
from storage.cube import Cube
from storage.files import staging
from storage.layout import Layout
from storage.work import WorkStore
from tasks.committing import ingest_record
from tasks.maintaining import carry_out, plan
from tasks.verifying import verify_stores
from tasks.workspace import Workspace

NOW = datetime.now(UTC)
STRICT = RetentionRule(
    keep_days=0, keep_last=1, keep_every=None, keep_champions=False, grace_days=0, snapshot_days=0, work_days=0,
    report_days=0, abandoned_hours=0,
)  # fmt: skip
"""Keeps nothing but the newest, and what must be kept whatever the rule says."""


def publish(root: Path, end: str, *, model: str = "ipca", age_days: float = 200, **facts: Any) -> str:
    dataset = version_data(end=end)
    created = NOW - timedelta(days=age_days)
    manifest = manifest_of(dataset, tag=facts.pop("tag", "0000000a"), model=model, created_at=created, **facts)
    return published.publish(Layout(root), dataset, manifest, STATE).version


def promote(root: Path, version: str, model: str = "ipca") -> None:
    published.promote(Layout(root), "us", model, version, reason="test")


def versions(root: Path, model: str = "ipca") -> list[str]:
    return [ref.version[:10] for ref in published.list_versions(Layout(root), "us", model)]


def names(items: Any, kind: str) -> dict[str, str]:
    return {item.name.removeprefix("us/"): item.why for item in items if item.kind == kind}


def aged(path: Path, days: float) -> Path:
    then = time.time() - days * 86400
    os.utime(path, (then, then), follow_symlinks=False)
    return path


def upserted(root: Path, count: int = 6) -> list[str]:
    """Restate one year `count` times, so that every snapshot holds chunks of its own; return the snapshots in order."""
    cube = Cube.open_or_create(Layout(root), "us")
    days, tickers = pd.bdate_range("2023-01-02", periods=250), [f"T{n}" for n in range(30)]
    return [
        cube.upsert(cube_data(days, tickers, seed=n), message=str(n), metadata={"n": n}).snapshot_id
        for n in range(count)
    ]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@given(st.data())
def test_whatever_the_rule_the_needed_stay_and_it_says_why(data):
    days = data.draw(st.lists(st.integers(0, 900), min_size=1, max_size=25, unique=True))
    found = [
        Candidate(
            version=f"v{n}",
            as_of=date(2022, 1, 1) + timedelta(days=day),
            created_at=NOW - timedelta(days=data.draw(st.integers(0, 400))),
            parent=None if n == 0 or data.draw(st.booleans()) else f"v{data.draw(st.integers(0, n - 1))}",
            champion_until=None if data.draw(st.booleans()) else NOW - timedelta(days=data.draw(st.integers(0, 400))),
        )
        for n, day in enumerate(days)
    ]
    rule = RetentionRule(
        keep_days=data.draw(st.integers(0, 400)),
        keep_last=data.draw(st.integers(1, 5)),
        keep_every=data.draw(st.sampled_from([None, "month", "quarter", "year"])),
        keep_champions=data.draw(st.booleans()),
        grace_days=data.draw(st.integers(0, 400)),
    )
    champion, pinned = (data.draw(st.sampled_from(found)).version for _ in range(2))
    kept = kept_versions(rule, found, champion=champion, pins={pinned: "filed"}, now=NOW)
    assert {
        champion,
        pinned,
        *(one.version for one in sorted(found, key=lambda one: one.as_of)[-rule.keep_last :]),
    } <= set(kept)
    for one in found:
        if one.version in kept:
            assert kept[one.version]
            assert one.parent is None or one.parent in kept
        else:
            assert one.created_at <= NOW - timedelta(days=rule.keep_days)
            assert one.champion_until is None or not rule.keep_champions
            assert one.champion_until is None or one.champion_until <= NOW - timedelta(days=rule.grace_days)
            month = [
                other for other in found if (other.as_of.year, other.as_of.month) == (one.as_of.year, one.as_of.month)
            ]
            assert rule.keep_every != "month" or any(other.version in kept for other in month)


def test_every_line_of_the_rule_keeps_what_it_says(tmp_path):
    ends = [
        "2023-01-31",
        "2023-02-14",
        "2023-02-28",
        "2023-03-31",
        "2023-04-28",
        "2023-05-31",
        "2023-06-30",
        "2023-07-31",
    ]
    all_of = [publish(tmp_path, end) for end in ends]
    young = publish(tmp_path, "2023-01-30", age_days=5)
    child = publish(tmp_path, "2023-08-31", parent=all_of[3], made_by="update")
    for version in (all_of[1], all_of[4]):
        promote(tmp_path, version)
    published.pin(Layout(tmp_path), "us", "ipca", all_of[5], reason="filed with the regulator")
    rule = STRICT.model_copy(update={"keep_days": 30, "grace_days": 7, "keep_last": 1})
    made = plan(Workspace(tmp_path), rule)
    assert names(made.keep, "version") == {
        f"ipca/{young}": "published in the last 30 days",
        f"ipca/{all_of[1]}": "was champion in the last 7 days",
        f"ipca/{all_of[3]}": f"parent of {child}",
        f"ipca/{all_of[4]}": "champion",
        f"ipca/{all_of[5]}": "pinned: filed with the regulator",
        f"ipca/{child}": "one of the newest 1",
    }
    assert set(names(made.remove, "version")) == {f"ipca/{all_of[n]}" for n in (0, 2, 6, 7)}
    assert made.size_bytes == sum(size(tmp_path / "published/us/ipca" / all_of[n]) for n in (0, 2, 6, 7))
    monthly = plan(Workspace(tmp_path), STRICT.model_copy(update={"keep_every": "month"}))
    assert names(monthly.remove, "version").keys() == {f"ipca/{one}" for one in (young, all_of[1])}
    assert versions(tmp_path) == sorted([*ends, "2023-01-30", "2023-08-31"]), "a plan changes nothing"
    done = carry_out(Workspace(tmp_path), made)
    assert names(done.remove, "version").keys() == {f"ipca/{all_of[n]}" for n in (0, 2, 6, 7)}
    assert versions(tmp_path) == sorted(["2023-01-30", *(ends[n] for n in (1, 3, 4, 5)), "2023-08-31"])
    assert not plan(Workspace(tmp_path), rule).remove


@pytest.mark.slow
def test_upkeep_and_the_catalog_read_each_manifest_once_and_open_only_what_is_new(tmp_path, monkeypatch):
    """So that the cost of a thousand versions is a thousand times that of one."""
    for month in range(1, 7):
        publish(tmp_path, f"2023-{month:02d}-28")
    refresh_catalog(Layout(tmp_path))
    publish(tmp_path, "2023-07-28")
    reads, opened, manifest_in, described = [], [], checksums.manifest_in, catalog._described
    monkeypatch.setattr(checksums, "manifest_in", lambda store, key: reads.append(key) or manifest_in(store, key))
    monkeypatch.setattr(
        catalog, "_described", lambda layout, ref, *more: opened.append(ref) or described(layout, ref, *more)
    )
    plan(Workspace(tmp_path), STRICT)
    assert (len(reads), len(set(reads))) == (7, 7)
    assert CliRunner().invoke(app, ["catalog"], env={"FACTORCUBE_ROOT": str(tmp_path)}).exit_code == 0
    assert [ref.version[:10] for ref in opened] == ["2023-07-28"]


def test_what_is_promoted_pinned_or_continued_after_the_plan_stays(tmp_path):
    ends = ["2023-01-31", "2023-02-28", "2023-03-31", "2023-04-28", "2023-05-31"]
    first, second, third, fourth, _ = (publish(tmp_path, end) for end in ends)
    made = plan(Workspace(tmp_path), STRICT)
    assert len(names(made.remove, "version")) == 4
    promote(tmp_path, first)
    published.pin(Layout(tmp_path), "us", "ipca", second, reason="wanted")
    publish(tmp_path, "2023-06-30", parent=third, age_days=0)
    done = carry_out(Workspace(tmp_path), made)
    assert names(done.remove, "version").keys() == {f"ipca/{fourth}"}
    assert set(names(done.keep, "version").values()) == {"needed or gone since this was planned"}
    assert versions(tmp_path) == ["2023-01-31", "2023-02-28", "2023-03-31", "2023-05-31", "2023-06-30"]


def test_old_snapshots_expire_and_those_that_manifests_name_open_bit_for_bit(tmp_path):
    snapshots, space = upserted(tmp_path), Workspace(tmp_path)
    cube = Cube.open(space.layout, "us")
    whole = {one: cube.open_dataset(one).load() for one in snapshots}
    publish(tmp_path, "2023-05-31", snapshot_id=snapshots[2])
    publish(tmp_path, "2023-06-30", snapshot_id=snapshots[0], model="pca")
    before, content = size(tmp_path / "cubes" / "us"), _content(tmp_path / "cubes" / "us")
    made = plan(space, STRICT)
    assert _content(tmp_path / "cubes" / "us") == content, "a dry run on links changes no byte"
    assert set(names(made.remove, "snapshot")) == {snapshots[n] for n in (1, 3, 4)}
    assert names(made.keep, "snapshot") == {
        snapshots[0]: "named by us/pca/2023-06-30-0000000a",
        snapshots[2]: "named by us/ipca/2023-05-31-0000000a",
        snapshots[5]: "newest state of the cube",
    }
    (freed,) = [item.size_bytes for item in made.remove if item.kind == "unreferenced data"]
    carry_out(space, made)
    after = size(tmp_path / "cubes" / "us")
    assert after < 0.7 * before
    assert before - after == pytest.approx(freed, rel=0.05)
    _kept(tmp_path, whole, {snapshots[n] for n in (0, 2, 5)})
    assert [one.metadata["n"] for one in Cube.open(space.layout, "us").history()] == [5]
    assert not verify_stores(space.layout).damages
    assert not plan(space, STRICT).remove
    published.remove(space.layout, published.list_versions(space.layout, "us", "pca")[0])
    carry_out(space, plan(space, STRICT))
    _kept(tmp_path, whole, {snapshots[n] for n in (2, 5)})
    Cube.open(space.layout, "us").upsert(cube_data(["2024-01-02"], ["T0"]), message="goes on", metadata={})
    carry_out(space, plan(space, STRICT.model_copy(update={"snapshot_days": 1})))
    _kept(tmp_path, whole, {snapshots[n] for n in (2, 5)})


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _kept(root: Path, whole: dict[str, Any], kept: set[str]) -> None:
    cube = Cube.open(Layout(root), "us")
    for snapshot, dataset in whole.items():
        if snapshot in kept:
            assert cube.open_dataset(snapshot).load().identical(dataset)
        else:
            with pytest.raises(CubeError, match=f"cube 'us', snapshot {snapshot}"):
                cube.open_dataset(snapshot)


def test_a_snapshot_that_comes_to_be_named_during_expiry_stays(tmp_path):
    snapshots, asked = upserted(tmp_path, 4), []
    cube = Cube.open(Layout(tmp_path), "us")
    whole = {one: cube.open_dataset(one).load() for one in snapshots}

    def named() -> dict[str, str]:
        asked.append(1)
        return {snapshots[1]: "published meanwhile"} if len(asked) > 1 else {}

    cube_upkeep.expire(cube, named, before=datetime.now(UTC), abandoned=datetime.now(UTC))
    _kept(tmp_path, whole, {snapshots[0], snapshots[1], snapshots[3]})  # its history goes with the next run
    cube_upkeep.expire(cube, named, before=datetime.now(UTC), abandoned=datetime.now(UTC))
    _kept(tmp_path, whole, {snapshots[1], snapshots[3]})


@pytest.mark.slow
def test_nothing_is_removed_of_what_cannot_be_read(tmp_path):
    snapshots = upserted(tmp_path, 3)
    ends = ["2023-01-31", "2023-02-28", "2023-03-31"]
    for end in ends:
        publish(tmp_path, end, snapshot_id=snapshots[0])
        publish(tmp_path, end, model="pca", snapshot_id=snapshots[2])
    manifest = tmp_path / "published/us/ipca/2023-01-31-0000000a/manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-2])
    report = tmp_path / "reports" / "us" / "2020-01-01-deadbeef.html"
    report.parent.mkdir(parents=True)
    report.write_text("of another version", encoding="utf-8")
    aged(report, 400)
    done = carry_out(Workspace(tmp_path), plan(Workspace(tmp_path), STRICT))
    assert versions(tmp_path, "ipca") == ends
    assert versions(tmp_path, "pca") == ["2023-03-31"]
    assert {item.kind for item in done.remove} == {"version"}
    assert Cube.open(Layout(tmp_path), "us").open_dataset(snapshots[0]) is not None
    why = names(plan(Workspace(tmp_path), STRICT).keep, "version")["ipca"]
    assert "nothing is removed" in why
    assert str(manifest) in why


def test_a_pin_that_leads_nowhere_stops_the_removal_of_that_model(tmp_path):
    first, _ = publish(tmp_path, "2023-01-31"), publish(tmp_path, "2023-02-28")
    published.pin(Layout(tmp_path), "us", "ipca", first, reason="wanted")
    pointer = tmp_path / "published/us/ipca/latest.json"
    pointer.write_text(pointer.read_text(encoding="utf-8").replace(first, first[:-1] + "b"), encoding="utf-8")
    made = plan(Workspace(tmp_path), STRICT)
    assert not made.remove
    assert f"pinned version {first[:-1]}b does not exist" in names(made.keep, "version")["ipca"]


def test_unused_work_abandoned_staging_and_old_files_go_and_links_are_never_followed(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("precious", encoding="utf-8")
    space = Workspace(root)
    for key in ("unused", "used", "fresh"):
        space.work.put_arrays("fits", key, STATE, {})
        (root / "work" / "fits" / key / "leads-out").symlink_to(outside)
    for key in ("unused", "used"):
        aged(root / "work" / "fits" / key, 40)
    assert space.work.has("fits", "used"), "asking counts as using it"
    (root / "work" / "panels").symlink_to(outside)
    aged(root / "work" / "fits", 0).joinpath("linked").symlink_to(outside)
    aged(root / "work" / "fits" / "linked", 40)
    half = root / "work" / "fits" / ".staging-0"
    half.mkdir()
    (half / "leads-out").symlink_to(outside)
    aged(half, 2)
    rows, living = (root / "quarantine" / "us" / f"{key}.csv" for key in ("old", "k"))
    rows.parent.mkdir(parents=True)
    rows.write_text("a", encoding="utf-8")
    living.write_text("a", encoding="utf-8")
    version = publish(root, "2023-01-31")
    (root / "published/us/ipca" / version / "leads-out").symlink_to(outside)
    publish(root, "2023-02-28")
    reports = {name: root / "reports" / "us" / f"{name}.html" for name in ("of-kept", "of-gone")}
    reports["of-kept"].parent.mkdir(parents=True)
    reports["of-kept"].write_text("published/us/ipca/2023-02-28-0000000a", encoding="utf-8")
    reports["of-gone"].write_text(f"published/us/ipca/{version}", encoding="utf-8")
    for path in (rows, living, *reports.values()):
        aged(path, 400)
    rule = RetentionRule(keep_days=0, keep_last=1, keep_every=None, grace_days=0, abandoned_hours=24)
    done = carry_out(space, plan(space, rule))
    gone = {(item.kind, item.name) for item in done.remove}
    assert gone == {
        ("version", f"us/ipca/{version}"),
        ("work", "work/fits/unused"),
        ("work", "work/fits/linked"),
        ("staging", "work/fits/.staging-0"),
        ("quarantine", "quarantine/us/old.csv"),
        ("report", "reports/us/of-gone.html"),
    }
    for item in done.remove:
        path = root / (f"published/{item.name}" if item.kind == "version" else item.name)
        assert not os.path.lexists(path)
    assert (outside / "precious.txt").read_text(encoding="utf-8") == "precious"
    assert list(outside.iterdir()) == [outside / "precious.txt"]
    assert space.work.has("fits", "fresh")
    assert space.work.has("fits", "used")
    assert living.exists()
    assert not list(root.rglob(".staging*"))


def test_an_entry_that_is_used_after_the_plan_stays_and_a_staged_one_has_an_owner(tmp_path):
    store = WorkStore(Layout(tmp_path))
    store.put_json("metrics", "a", 1)
    (left,) = leftovers.work_entries(Layout(tmp_path))
    aged(left.path, 40)
    (left,) = leftovers.work_entries(Layout(tmp_path))
    assert store.get_json("metrics", "a") == 1
    assert not leftovers.remove(left)
    assert store.get_json("metrics", "a") == 1
    with staging(tmp_path / "work" / "metrics") as mine:
        aged(mine, 40)
        (owned,) = leftovers.abandoned(Layout(tmp_path))
        assert not leftovers.remove(owned)
        assert mine.exists()


def _maintain(root: Path) -> None:
    space = Workspace(root)
    carry_out(space, plan(space, STRICT))


def _dying(root: Path, last: int) -> None:
    """Maintain, and die just before the `last`-th rename, removal or opening for writing below the root."""
    step = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal step
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in {"os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}) and str(root) in str(arguments):
            step += 1
            if step == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    _maintain(root)


def _dying_in_icechunk(root: Path, method: str) -> None:
    import icechunk

    space = Workspace(root)
    made = plan(space, STRICT)
    setattr(icechunk.Repository, method, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    carry_out(space, made)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a root with something of every kind that may go, and a champion of an old snapshot."""
    root = tmp_path_factory.mktemp("prepared") / "root"
    snapshots = upserted(root, 4)
    for snapshot, end in zip(snapshots, ["2023-01-31", "2023-02-28", "2023-03-31", "2023-04-28"], strict=True):
        publish(root, end, snapshot_id=snapshot)
    promote(root, "2023-02-28-0000000a")
    WorkStore(Layout(root)).put_arrays("fits", "a", STATE, {})
    aged(root / "work" / "fits" / "a", 40)
    return root


@pytest.fixture(scope="module")
def forked() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "storing", "tasks.maintaining"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context


KILLS: list[Any] = [(_dying, step) for step in (2, 8)]
KILLS += [(_dying, step) for step in (1, 3, 4, 5, 6, 13, 21, 34)]
KILLS += [(_dying_in_icechunk, method) for method in ("create_tag", "expire_snapshots", "garbage_collect")]


@pytest.mark.slow
@pytest.mark.parametrize(("dying", "where"), KILLS)
def test_upkeep_killed_at_any_step_leaves_what_is_kept_whole_and_is_completed(prepared, forked, tmp_path, dying, where):
    root = tmp_path / "root"
    shutil.copytree(prepared, root, symlinks=True)
    kept = {one.version: one for one in published.list_versions(Layout(root)) if one.version[:10] in KEPT}
    whole = {name: published.open_version(Layout(root), ref).load() for name, ref in kept.items()}
    process = forked.Process(target=dying, args=(root, where), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not verify_stores(Layout(root)).damages
    _maintain(root)
    assert versions(root) == KEPT
    for name, ref in kept.items():
        published.verify(Layout(root), ref)
        assert published.open_version(Layout(root), ref).load().identical(whole[name])
        Cube.open(Layout(root), "us").open_dataset(published.read_manifest(Layout(root), ref).snapshot_id).load()
    assert len(cube_upkeep.living(Cube.open(Layout(root), "us"))) == 2
    assert not list(root.rglob(".staging*"))
    assert not (root / "work" / "fits" / "a").exists()
    assert not plan(Workspace(root), STRICT).remove


KEPT = ["2023-02-28", "2023-04-28"]


DAYS = ["2023-05-10", "2023-05-11", "2023-05-12", "2023-05-15", "2023-05-16"]


def _publishing(root: Path) -> None:
    for n, day in enumerate(DAYS):
        data = cube_data([f"2024-02-{n + 5:02d}"], ["T0"], seed=n)
        snapshot = Cube.open(Layout(root), "us").upsert(data, message="m", metadata={}).snapshot_id
        publish(root, day, age_days=0, snapshot_id=snapshot)


@pytest.mark.slow
def test_upkeep_beside_a_publisher_and_an_ingest_loses_nothing(prepared, forked, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(prepared, root, symlinks=True)
    process = forked.Process(target=_publishing, args=(root,), daemon=True)
    process.start()
    rule, runs = STRICT.model_copy(update={"keep_days": 1, "snapshot_days": 1}), 0
    while process.is_alive() or not runs:
        carry_out(Workspace(root), plan(Workspace(root), rule))
        runs += 1
    process.join()
    assert process.exitcode == 0
    assert [end for end in versions(root) if end >= "2023-05"] == DAYS
    assert Cube.open(Layout(root), "us").open_dataset().sel(date="2024-02", ticker="T0").returns.notnull().all()
    assert Cube.open(Layout(root), "us").open_dataset().sizes["date"] == 255
    assert not verify_stores(Layout(root)).damages


def test_a_reader_of_a_removed_version_or_snapshot_is_told_and_sees_no_missing_values(tmp_path):
    snapshots = upserted(tmp_path, 2)
    version, _ = publish(tmp_path, "2023-01-31"), publish(tmp_path, "2023-02-28")
    ref = published.find(Layout(tmp_path), "us", "ipca", version)
    opened = published.open_version(Layout(tmp_path), ref)
    cube = Cube.open(Layout(tmp_path), "us").open_dataset(snapshots[0])
    _maintain(tmp_path)
    with pytest.raises(CorruptionError, match=rf"{version}: array 'loadings', chunk 0/0/0 is missing"):
        opened["loadings"].load()
    with pytest.raises(CubeError, match=rf"snapshot {snapshots[0]}: array 'returns', chunk 0/0 cannot be read"):
        cube["returns"].load()


def test_the_command_is_a_dry_run_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path))
    publish(tmp_path, "2023-01-31")
    publish(tmp_path, "2023-02-28")
    arguments = ["maintain", "--keep-last", "1", "--keep-every", "none"]
    shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "would go: 1 version" in shown.stdout
    assert "one of the newest 1" in shown.stdout
    assert versions(tmp_path) == ["2023-01-31", "2023-02-28"]
    done = Plan.model_validate(json.loads(CliRunner().invoke(app, [*arguments, "--apply", "--json"]).stdout))
    assert names(done.remove, "version").keys() == {"ipca/2023-01-31-0000000a"}
    assert versions(tmp_path) == ["2023-02-28"]
    bad = CliRunner().invoke(app, ["maintain", "--keep-every", "week"])
    assert "keep_every" in str(bad.exception)
    assert "month" in str(bad.exception)


def test_the_flow_shows_what_it_did_in_prefect(tmp_path, monkeypatch, prefect_api):
    from prefect.client.orchestration import get_client

    from flows.maintain import maintain

    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path))
    publish(tmp_path, "2023-01-31")
    publish(tmp_path, "2023-02-28")
    assert len(maintain(rule=STRICT).remove) == 1
    assert len(versions(tmp_path)) == 2
    assert len(maintain(rule=STRICT, apply=True).remove) == 1
    assert len(versions(tmp_path)) == 1
    with get_client(sync_client=True) as client:
        shown = [one.data for one in client.read_artifacts() if one.key == "upkeep"]
    assert any("removed" in str(data) and "us/ipca/2023-01-31-0000000a" in str(data) for data in shown)


@pytest.mark.slow
def test_upkeep_verify_and_catalog_work_on_an_object_store(tmp_path, s3, monkeypatch):
    for name, value in s3[1].items():
        monkeypatch.setenv(name, value)
    space = Workspace.of(Settings(root=tmp_path, store=s3[0]))
    layout, cube = space.layout, Cube.open_or_create(space.layout, "us")
    snapshots = [
        cube.upsert(
            cube_data(["2024-01-02"], [f"T{n}" for n in range(300)], seed=seed), message="m", metadata={}
        ).snapshot_id
        for seed in range(3)
    ]
    kept = cube.open_dataset(snapshots[0]).load()
    for end, snapshot in (("2023-01-31", snapshots[0]), ("2023-02-28", snapshots[1]), ("2023-03-31", snapshots[0])):
        dataset = version_data(end=end)
        published.publish(layout, dataset, manifest_of(dataset, snapshot_id=snapshot), STATE)
    assert refresh_catalog(layout).versions == 3
    made = plan(space, STRICT)
    assert names(made.remove, "version").keys() == {"ipca/2023-01-31-0123abcd", "ipca/2023-02-28-0123abcd"}
    assert names(made.remove, "snapshot").keys() == {snapshots[1]}
    done = carry_out(space, made)
    assert next(item.size_bytes for item in done.remove if item.kind == "unreferenced data") > 0
    assert [ref.version[:10] for ref in published.list_versions(layout)] == ["2023-03-31"]
    assert Cube.open(layout, "us").open_dataset(snapshots[0]).load().identical(kept)
    with pytest.raises(CubeError, match=f"snapshot {snapshots[1]}"):
        Cube.open(layout, "us").open_dataset(snapshots[1])
    item = json.loads(layout.store.read("published/us/ipca/2023-03-31-0123abcd.json"))
    assert item["properties"]["factorcube:snapshot_id"] == snapshots[0]
    with pytest.raises(FileNotFoundError):
        layout.store.read("published/us/ipca/2023-01-31-0123abcd.json")
    assert not verify_stores(layout).damages
    key = "published/us/ipca/2023-03-31-0123abcd/state.safetensors"
    layout.store.discard(key)
    (damage,) = verify_stores(layout).damages
    assert key in damage.problem


def test_what_machines_share_goes_by_its_last_use_and_what_a_living_version_names_stays(tmp_path, s3):
    space = Workspace.of(Settings(root=tmp_path / "one", work=s3[0]))
    version = publish(space.root, "2023-05-31")
    manifest = published.read_manifest(space.layout, published.list_versions(space.layout, "us")[0])
    record = ingest_record(manifest.ingest_key, manifest.snapshot_id)
    space.work.put_json("ingests", record, {})
    space.work.put_arrays("fits", "old", STATE, {})
    half = tmp_path / "half"
    half.mkdir()
    (half / "value.json").write_text("half")
    space.shared._store.upload(half, "work/fits/never/0123")
    shutil.rmtree(space.root / "work")
    assert not plan(space, DEFAULT).remove
    later = NOW + timedelta(days=DEFAULT.work_days + 1)
    made = plan(space, DEFAULT, later)
    shared = {one: f"{s3[0]}/{name}" for one, name in (("work", "work/fits/old"), ("staging", "work/fits/never/0123"))}
    assert {item.kind: item.name for item in made.remove} == shared
    assert all(item.size_bytes for item in made.remove)
    done = carry_out(space, made)
    assert done.remove == made.remove
    assert not space.work.has("fits", "old")
    assert space.work.has("ingests", record)
    assert not plan(space, DEFAULT, later).remove
    assert versions(space.root) == [version[:10]]
