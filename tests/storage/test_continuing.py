"""A version that continues another one: the bits of a whole one in files that both share, and what may go wrong."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from obstore.store import S3Store
from storing import STATE, counting_writes, dying_at_write, manifest_of, version_data

from schemas.errors import CorruptionError, PublishError
from schemas.refs import VersionRef
from schemas.settings import Settings
from storage import checksums, published
from storage.layout import Layout
from storage.stores import local
from storage.stores.objects import ObjectStore
from tasks.verifying import verify_stores
from tasks.workspace import Workspace

WHOLE = version_data(periods=600, tickers=6)
STEPS = ((598, 4), (599, 4), (600, 6))
"""Dates and tickers of a version and of those that continue it; most arrays have chunks of 256 dates."""


def expected(step: int) -> xr.Dataset:
    """Return what a version holds: tickers that joined with the last date have nothing before, or a weight of 0."""
    n_dates, n_tickers = STEPS[step]
    rows = WHOLE.isel(date=slice(n_dates), ticker=slice(n_tickers)).copy(deep=True)
    before, joined = slice(STEPS[1][0]), slice(STEPS[0][1], None)
    for name, array in rows.data_vars.items():
        if "ticker" in array.dims and "date" in array.dims:
            array[{"date": before, "ticker": joined}] = False if name == "imputed" else np.nan
        elif "ticker" in array.dims:
            array[{"ticker": joined}] = np.nan
    defined = rows["weights"].isel(date=before, ticker=STEPS[0][1] - 1).notnull()
    rows["weights"][{"date": before, "ticker": joined}] = xr.where(defined, np.float32(0), np.float32(np.nan))
    return rows


def step_of(layout: Layout, step: int, parent: VersionRef | None = None, **facts: Any) -> VersionRef:
    """Publish one version; behind the one before it unless it is the first."""
    rows = expected(step)
    if step:
        parent = parent or published.find(layout, "us", "ipca", named(step - 1))
        rows = rows.sel(date=slice(f"{parent.as_of + timedelta(days=1)}", None))
        facts |= {"made_by": "update", "parent": parent.version}
    return published.publish(layout, rows, manifest_of(rows, **facts), STATE, parent=parent)


def named(step: int) -> str:
    return f"{WHOLE.indexes['date'][STEPS[step][0] - 1].date()}-0123abcd"


def promote(layout: Layout, ref: VersionRef) -> bool:
    return published.promote(layout, ref.universe, ref.model, ref.version, reason="test").promoted


def folder_of(layout: Layout, step: int) -> Path:
    return layout.home_folder("us", "ipca") / named(step)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path: Path, *, in_silence: bool = False) -> None:
    """Turn a bit in the middle of a file; in silence as a disk does it, which changes no time."""
    found, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    if in_silence:
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publish the first version, once; it is copied."""
    root = tmp_path_factory.mktemp("first")
    step_of(Layout(root), 0)
    return root


@pytest.fixture
def one(first: Path, layout: Layout) -> Layout:
    """Return a store with the first version in it."""
    shutil.copytree(first, layout.root, dirs_exist_ok=True)
    return layout


def test_versions_one_behind_the_other_are_the_bits_of_whole_ones_in_shared_files(
    one: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = checksums.read_checked
    monkeypatch.setattr("storage.continuing.read_checked", lambda *given: asked.append(given[2]) or read(*given))
    sound = files_of(folder_of(one, 0))
    assert promote(one, published.find(one, "us", "ipca", named(0)))
    for step in (1, 2):
        asked.clear()
        ref = step_of(one, step)
        touched = {name.rpartition("/c.")[2] for name in asked if name.startswith(("loadings/c", "omega/c"))}
        assert touched == {"2.0.0"}, "only the last chunks are read"
        published.verify(one, ref)
        assert published.open_version(one, ref).load().drop_attrs().identical(expected(step).drop_attrs())
        monkeypatch.setattr(checksums, "read_checked", lambda *given: asked.append(given[2]) or read(*given))
        asked.clear()
        assert promote(one, ref)
        own = unshared(one, step)
        assert own - {"manifest.json", "manifest.sha256"} == set(asked), (
            "its promotion reads what is not the champion's"
        )
    assert not {"factor/c.0", "premia/c.0", "response/zarr.json", "loadings/c.0.0.0"} & own, "what stays is shared"
    assert "loadings/c.0.1.0" not in files_of(folder_of(one, 2)), "a ticker that joined has no chunk of dates before"
    assert files_of(folder_of(one, 0)) == sound, "nothing of the parent has moved"
    for step in (0, 1):
        published.remove(one, published.find(one, "us", "ipca", named(step)))
    last = folder_of(one, 2)
    published.verify(one, published.find(one, "us", "ipca", last.name))
    assert xr.open_zarr(last).load().drop_attrs().equals(expected(2)), "and plain xarray reads it without its parents"


def unshared(layout: Layout, step: int) -> set[str]:
    """Return the files of a version that are not those of the one before."""
    one, other = folder_of(layout, step), folder_of(layout, step - 1)
    return {name for name in files_of(one) if not (other / name).exists() or not (one / name).samefile(other / name)}


@pytest.mark.slow
def test_the_same_in_an_object_store_where_chunks_are_copied_inside_it(
    tmp_path: Path, s3: tuple[str, dict[str, str]], s3_server: Any
) -> None:
    layout = Workspace.of(Settings(root=tmp_path, store=s3[0])).layout
    parent = step_of(layout, 0)
    assert promote(layout, parent)
    asked = len(s3_server.requests)
    ref = step_of(layout, 2, parent)
    assert promote(layout, ref)
    read = [path for method, path in s3_server.requests[asked:] if method == "GET"]
    assert not [path for path in read if "/loadings/c.0." in path or "/omega/c.1." in path]
    published.remove(layout, parent)
    published.verify(layout, ref)
    place = S3Store(
        s3[0].removeprefix("s3://").partition("/")[0],
        prefix=f"team/prod/published/us/ipca/{ref.version}",
        client_options={"allow_http": True},
    )
    stored = xr.open_zarr(zarr.storage.ObjectStore(place, read_only=True)).load()
    assert stored.drop_attrs().equals(expected(2))
    assert not list(tmp_path.rglob(".staging-*"))


def a_day_early(rows: xr.Dataset) -> xr.Dataset:
    return rows.assign_coords(date=WHOLE.indexes["date"][[STEPS[0][0] - 1]])


@pytest.mark.parametrize(
    ("message", "spoil"),
    [
        (r"they begin on 2024-06-26, and it reaches to 2024-06-26", a_day_early),
        ("only one of the two has tracking_error", lambda rows: rows.drop_vars("tracking_error")),
        ("other labels along 'ticker'; an axis of tickers only grows", lambda rows: rows.isel(ticker=[1, 0, 2, 3])),
        ("other labels along 'portfolio'", lambda rows: rows.assign_coords(portfolio=["market", "other"])),
    ],
)
def test_rows_that_do_not_continue_a_version_are_refused(
    one: Layout, message: str, spoil: Callable[[xr.Dataset], xr.Dataset]
) -> None:
    rows = spoil(expected(1).isel(date=[-1]))
    parent = published.find(one, "us", "ipca", named(0))
    with pytest.raises(PublishError, match=f"rows do not continue us/ipca/{named(0)}: .*{message}"):
        published.publish(one, rows, manifest_of(rows, tag="00000001"), STATE, parent=parent)
    assert published.list_versions(one) == [parent]


def test_where_no_file_can_have_two_names_it_is_copied_and_checked(
    one: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = itertools.cycle((errno.EXDEV, errno.EPERM, errno.EMLINK))

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(code := next(codes), os.strerror(code))

    monkeypatch.setattr(os, "link", refused)
    flip(folder_of(one, 0) / "loadings" / "c.0.0.0", in_silence=True)
    with pytest.raises(CorruptionError, match=r"loadings/c\.0\.0\.0 does not match its checksum; restore it"):
        step_of(one, 1)
    flip(folder_of(one, 0) / "loadings" / "c.0.0.0", in_silence=True)
    ref = step_of(one, 1)
    assert {path.stat().st_nlink for path in folder_of(one, 1).rglob("*") if path.is_file()} == {1}
    published.verify(one, ref)


def test_a_parent_that_was_written_to_or_is_read_is_not_continued_where_it_is_damaged(one: Layout) -> None:
    for name, silent in (("loadings/c.0.0.0", False), ("omega/c.2.0.0", True), ("qlike/c.0.0", False)):
        sound = (folder_of(one, 0) / name).read_bytes()
        flip(folder_of(one, 0) / name, in_silence=silent)
        with pytest.raises(CorruptionError, match=rf"{named(0)}/{name} does not match its checksum"):
            step_of(one, 1)
        assert [ref.version for ref in published.list_versions(one)] == [named(0)]
        assert not list(one.root.rglob(".staging-*"))
        (folder_of(one, 0) / name).write_bytes(sound)
    assert step_of(one, 1).changed, "a file that was restored is read, and shared again"
    assert (folder_of(one, 1) / "loadings/c.0.0.0").samefile(folder_of(one, 0) / "loadings/c.0.0.0")


def test_a_bit_that_the_disk_turned_in_a_shared_file_is_met_in_either_version_and_never_a_number(
    one: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, asked, read = step_of(one, 1), [], checksums.read_checked
    monkeypatch.setattr(checksums, "read_checked", lambda *given: asked.append(given[2]) or read(*given))
    assert not verify_stores(one).damages
    assert asked.count("loadings/c.0.0.0") == 1, "what two versions share is read once"
    flip(folder_of(one, 0) / "loadings" / "c.0.0.0", in_silence=True)
    assert [damage.what for damage in verify_stores(one).damages] == [f"us/ipca/{named(0)}", str(ref)]
    for version in (named(0), ref.version):
        found = published.find(one, "us", "ipca", version)
        assert [str(error).split()[0] for error in published.damages(one, found)] == [
            str(one.home_folder("us", "ipca") / version / "loadings/c.0.0.0")
        ]
        with pytest.raises(CorruptionError, match="array 'loadings', chunk 0/0/0 cannot be read"):
            published.open_version(one, found)["loadings"].load()


def test_a_damaged_file_of_its_own_keeps_a_continuation_from_becoming_the_champion(one: Layout) -> None:
    assert promote(one, published.find(one, "us", "ipca", named(0)))
    ref = step_of(one, 1)
    for name in ("omega/c.2.0.0", "loadings/c.0.0.0"):
        path = folder_of(one, 1) / name
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(CorruptionError, match=rf"{name} does not match its checksum"):
            promote(one, ref)
        path.unlink()
        path.hardlink_to(folder_of(one, 0) / name) if name.startswith("loadings") else path.write_bytes(content)
    assert promote(one, ref)


def test_a_parent_that_is_removed_while_it_is_continued_is_told(one: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, link, links = published.find(one, "us", "ipca", named(0)), local.link, 0

    def removing(source: Path, target: Path) -> bool:
        nonlocal links
        links += 1
        if links == 20:
            published.remove(one, parent)
        return link(source, target)

    monkeypatch.setattr(local, "link", removing)
    with pytest.raises(PublishError, match=rf"{named(0)}: has gone, or a file of it, while it was continued; nothing"):
        step_of(one, 1)
    assert published.list_versions(one) == []
    assert not list(one.root.rglob(".staging-*"))


@pytest.mark.slow
def test_a_parent_that_goes_from_an_object_store_meanwhile_leaves_nothing_visible(
    tmp_path: Path, s3: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Workspace.of(Settings(root=tmp_path, store=s3[0])).layout
    parent, copy, copies = step_of(layout, 0), ObjectStore._copy, 0

    def removing(store: ObjectStore, source: str, key: str, name: str) -> None:
        nonlocal copies
        copies += 1
        if copies == 5:
            published.remove(layout, parent)
        copy(store, source, key, name)

    monkeypatch.setattr(ObjectStore, "_copy", removing)
    with pytest.raises(PublishError, match=rf"{named(0)}/.*there is no such object; nothing became visible"):
        step_of(layout, 1)
    assert published.list_versions(layout) == []


def _continue(root: Path) -> None:
    step_of(Layout(root), 2, VersionRef(universe="us", model="ipca", version=named(1)))


@pytest.mark.slow
def test_a_continuation_killed_at_any_write_or_link_leaves_the_old_state_whole(
    one: Layout, tmp_path: Path, start: Callable[..., Any]
) -> None:
    def ended(function: Callable[..., None], *arguments: Any) -> int:
        process = start(function, *arguments)
        process.join(60)
        code: int = process.exitcode
        return code

    step_of(one, 1)
    count = tmp_path / "count"
    dry = tmp_path.with_name(f"{tmp_path.name}-dry")
    shutil.copytree(tmp_path, dry)
    assert ended(counting_writes, dry, _continue, dry, count) == 0
    steps = int(count.read_text(encoding="utf-8"))
    assert steps > 100
    for last in sorted({1, steps - 1, steps, *random.Random(0).sample(range(2, steps), 8)}):
        root = tmp_path.with_name(f"{tmp_path.name}-{last}")
        shutil.copytree(tmp_path, root)
        assert ended(dying_at_write, root, _continue, root, last) == -signal.SIGKILL
        layout = Layout(root)
        visible = [ref.version for ref in published.list_versions(layout)]
        assert visible in ([named(0), named(1)], [named(0), named(1), named(2)])
        _continue(root)
        for step, ref in enumerate(published.list_versions(layout)):
            published.verify(layout, ref)
            assert published.open_version(layout, ref).load().drop_attrs().equals(expected(step).drop_attrs())
        assert not list(root.rglob(".staging-*"))
        shutil.rmtree(root)
