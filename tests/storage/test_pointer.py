"""The pointer document: what it keeps, who wins a swap, what is mended, on a disk and in an object store."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import xarray as xr
from storing import STATE, manifest_of, version_data

from schemas.errors import ConflictError, CorruptionError, PublishError
from schemas.settings import Settings
from storage import pointer, published
from storage.checksums import manifest_seal
from storage.layout import Layout
from storage.stores import MANIFEST, SEAL
from tasks.workspace import Workspace

MAY, JUNE, JULY = ("2024-05-31-0123abcd", "2024-06-28-0123abcd", "2024-07-31-0123abcd")


@pytest.fixture(params=["disk", "s3"])
def layout(request, tmp_path: Path) -> Layout:
    """Return a store with three versions that hold a manifest and nothing else."""
    store = None if request.param == "disk" else request.getfixturevalue("s3")[0]
    layout = Workspace.of(Settings(root=tmp_path, store=store)).layout
    for version in (MAY, JUNE, JULY):
        manifest = manifest_of(version_data(end=version[:10])).model_dump_json().encode()
        for name, content in ((MANIFEST, manifest), (SEAL, manifest_seal(manifest))):
            layout.store.swap(f"published/us/ipca/{version}/{name}", content, None)
    return layout


def promote(layout, version, **options):
    return published.promote(layout, "us", "ipca", version, **{"reason": "test", **options})


def champion(layout) -> str | None:
    found = published.latest(layout, "us", "ipca")
    return found and found.version


def test_promotions_are_kept_with_who_when_and_why(layout):
    assert champion(layout) is None
    assert published.promotions(layout, "us", "ipca") == ()
    before = datetime.now(UTC)
    assert promote(layout, JUNE, reason="first", expected=None).promoted
    assert promote(layout, JULY, reason="passed the gate", expected=JUNE).promoted
    assert promote(layout, JUNE, reason="rolled back").promoted
    assert promote(layout, JUNE, reason="again", expected=MAY).promoted, "the champion stays the champion"
    history = published.promotions(layout, "us", "ipca")
    assert [(one.version, one.previous, one.reason) for one in history] == [
        (JUNE, None, "first"),
        (JULY, JUNE, "passed the gate"),
        (JUNE, JULY, "rolled back"),
    ]
    times = [one.promoted_at for one in history]
    assert times == sorted(times)
    assert all(one.by for one in history)
    assert published.latest_at(layout, "us", "ipca", before) is None
    assert published.latest_at(layout, "us", "ipca", times[1]).version == JULY
    assert published.latest_at(layout, "us", "ipca", times[1]).promoted is False
    assert published.latest_at(layout, "us", "ipca", datetime.now(UTC)).version == JUNE
    with pytest.raises(PublishError, match="no time zone"):
        published.latest_at(layout, "us", "ipca", datetime(2024, 1, 1))  # noqa: DTZ001  # that is what is refused


def test_a_writer_whose_clock_is_behind_does_not_turn_history_around(layout, monkeypatch):
    promote(layout, MAY)

    class Behind(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(days=1)

    monkeypatch.setattr(pointer, "datetime", Behind)
    promote(layout, JUNE)
    first, second = published.promotions(layout, "us", "ipca")
    assert first.promoted_at <= second.promoted_at
    assert published.latest_at(layout, "us", "ipca", first.promoted_at).version == JUNE


def test_a_promotion_based_on_another_champion_is_refused_and_told_who_won(layout):
    with pytest.raises(ConflictError, match=f"there is no champion, expected {MAY}"):
        promote(layout, JUNE, expected=MAY)
    promote(layout, JUNE, reason="by hand")
    for expected in (None, MAY):
        with pytest.raises(ConflictError, match=rf"the champion is {JUNE}, promoted by .* UTC \(by hand\), expected"):
            promote(layout, JULY, expected=expected)
    assert champion(layout) == JUNE
    assert not promote(layout, MAY, forward_only=True).promoted
    assert champion(layout) == JUNE
    assert promote(layout, JULY, forward_only=True, expected=JUNE).promoted
    with pytest.raises(PublishError, match="there is no published version"):
        promote(layout, "2024-01-31-00000000")


def test_a_pinned_version_and_the_champion_are_not_removed(layout):
    promote(layout, JULY)
    published.pin(layout, "us", "ipca", MAY, reason="audit 2024")
    assert published.pins(layout, "us", "ipca") == {MAY: "audit 2024"}
    may, june, july = (published.find(layout, "us", "ipca", version) for version in (MAY, JUNE, JULY))
    with pytest.raises(PublishError, match=r"pinned \(audit 2024\)"):
        published.remove(layout, may)
    with pytest.raises(PublishError, match="is the champion"):
        published.remove(layout, july)
    published.remove(layout, june)
    published.unpin(layout, "us", "ipca", MAY)
    published.remove(layout, may)
    assert [ref.version for ref in published.list_versions(layout)] == [JULY]
    for act in (promote, lambda layout, version: published.unpin(layout, "us", "ipca", version)):
        with pytest.raises(PublishError, match=r"no published version|not pinned; pinned: none"):
            act(layout, MAY)
    dataset = version_data(end="2024-06-28")
    assert published.publish(layout, dataset, manifest_of(dataset), STATE).changed
    published.verify(layout, june)


def test_a_version_that_is_being_removed_is_neither_promoted_nor_published(layout, monkeypatch):
    june = published.find(layout, "us", "ipca", JUNE)
    monkeypatch.setattr(type(layout.store), "remove", lambda *_: (_ for _ in ()).throw(OSError("the disk is gone")))
    with pytest.raises(PublishError, match="the disk is gone"):
        published.remove(layout, june)
    monkeypatch.undo()
    dataset = version_data(end="2024-06-28")
    with pytest.raises(PublishError, match="is being removed"):
        promote(layout, JUNE)
    with pytest.raises(ConflictError, match="is being removed since"):
        published.publish(layout, dataset, manifest_of(dataset), STATE)
    monkeypatch.setattr(published, "_REMOVAL", timedelta(0))
    assert published.publish(layout, dataset, manifest_of(dataset), STATE).changed
    assert promote(layout, JUNE).promoted


def test_anybody_resolves_the_champion_in_two_lines_without_factorcube(layout):
    promote(layout, JUNE)
    home = published.locate_latest(layout, "us", "ipca").rpartition("/")[0]
    content = layout.store.read("published/us/ipca/latest.json")
    version = json.loads(content)["promotions"][-1]["version"]
    assert f"{home}/{version}" == published.locate(layout, published.latest(layout, "us", "ipca"))


def test_a_damaged_pointer_is_named(layout):
    promote(layout, JUNE)
    tag = layout.store.load("published/us/ipca/latest.json").tag
    assert layout.store.swap("published/us/ipca/latest.json", b'{"format_version": 2}', tag)
    with pytest.raises(CorruptionError, match=r"latest\.json: cannot be read as a pointer"):
        published.latest(layout, "us", "ipca")


def _where(layout) -> tuple[str | None, dict[str, str]]:
    """Return what a process needs to open the same store."""
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return layout.store.locate("") if layout.store.conditional else None, env


def _opened(root: Path, store: str | None, env: dict[str, str]) -> Layout:
    os.environ.update(env)
    return Workspace.of(Settings(root=root, store=store)).layout


def _race(root: Path, where, version: str, expected: str | None, outcome: Path) -> None:
    layout = _opened(root, *where)
    while not outcome.parent.exists():
        time.sleep(0.001)
    try:
        promote(layout, version, reason=f"from {os.getpid()}", expected=expected)
        outcome.write_text("won")
    except ConflictError as error:
        outcome.write_text(str(error))


def test_of_racing_promoters_exactly_one_wins_and_the_others_are_told(layout, tmp_path, start):
    before = None
    for number in range(3):
        rivals = [version for version in (MAY, JUNE, JULY) if version != before]
        told = tmp_path / f"race-{number}"
        racers = [start(_race, tmp_path, _where(layout), one, before, told / one) for one in rivals for _ in "ab"]
        time.sleep(0.3)
        told.mkdir()
        for racer in racers:
            racer.join(60)
        assert [racer.exitcode for racer in racers] == [0] * len(racers)
        (winner,) = [path.name for path in told.iterdir() if path.read_text() == "won"]
        assert champion(layout) == winner
        for version in set(rivals) - {winner}:
            assert f"the champion is {winner}, promoted by" in (told / version).read_text()
        before = winner
    assert len(published.promotions(layout, "us", "ipca")) == 3


def _pin(root: Path, where, version: str) -> None:
    for number in range(5):
        published.pin(_opened(root, *where), "us", "ipca", version, reason=f"{number} of {version}")


def test_changes_of_different_things_at_once_are_all_kept(layout, tmp_path, start):
    writers = [start(_pin, tmp_path, _where(layout), version) for version in (MAY, JUNE, JULY)]
    for writer in writers:
        writer.join(60)
    assert published.pins(layout, "us", "ipca") == {version: f"4 of {version}" for version in (MAY, JUNE, JULY)}


def _die_before_the_link(root: Path) -> None:
    type(Layout(root).store).point = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    promote(Layout(root), JULY)


@pytest.fixture
def disk(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    for version in (JUNE, JULY):
        dataset = version_data(end=version[:10])
        published.publish(layout, dataset, manifest_of(dataset), STATE)
    promote(layout, JUNE)
    return layout


def test_a_promoter_killed_between_document_and_link_has_won_and_the_link_is_mended(disk, tmp_path, start):
    dying = start(_die_before_the_link, tmp_path)
    dying.join(60)
    assert dying.exitcode == -signal.SIGKILL
    link = disk.home_folder("us", "ipca") / "latest"
    assert xr.open_zarr(link).attrs["version"] == JUNE, "readers of the link see the old version whole"
    assert champion(disk) == JULY, "the document is the truth"
    assert link.readlink() == Path(JULY), "and a reader mends the link"


def test_a_link_without_a_document_makes_no_champion(disk):
    home = disk.home_folder("us", "ipca")
    (home / "latest.json").unlink()
    assert published.latest(disk, "us", "ipca") is None
    assert (home / "latest").readlink() == Path(JUNE)
    promote(disk, JULY, expected=None)
    assert [one.version for one in published.promotions(disk, "us", "ipca")] == [JULY]
    assert (home / "latest").readlink() == Path(JULY)


def test_a_champion_that_is_not_there_is_named(disk):
    home = disk.home_folder("us", "ipca")
    (home / JUNE).rename(home.parent / JUNE)
    with pytest.raises(PublishError, match=f"leads to {JUNE}, which is not a version beside it"):
        published.latest(disk, "us", "ipca")


def test_a_reader_that_may_not_write_reads_the_document(disk, monkeypatch):
    link = disk.home_folder("us", "ipca") / "latest"
    link.unlink()
    link.symlink_to(JULY)

    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(type(disk.store), "point", read_only)
    assert champion(disk) == JUNE
    assert link.readlink() == Path(JULY)
