"""Cubes and versions on S3: the same code as on a disk, under races, lost answers, kills and foreign readers."""

from __future__ import annotations

import json
import os
import pickle
import signal
import threading
from pathlib import Path

import numpy as np
import obstore
import pandas as pd
import pytest
import xarray as xr
import zarr
from obstore.store import S3Store
from small_market import SMALL, write_config
from storing import ONE, STATE, TWO, cube_data, kill_at_put, manifest_of, version_data

from schemas.errors import ConflictError, CorruptionError, CubeError, FactorcubeError, PublishError, StoreError
from schemas.refs import VersionRef
from schemas.settings import Settings
from storage import pointer, published
from storage.cube import Cube
from storage.layout import Layout
from storage.stores.objects import ObjectStore
from tasks.workspace import Workspace

WEEK = pd.bdate_range("2024-01-01", periods=5)


def opened(root: Path, where: tuple[str, dict[str, str]]) -> Layout:
    os.environ.update(where[1])
    return Workspace.of(Settings(root=root, store=where[0])).layout


@pytest.fixture
def layout(tmp_path, s3) -> Layout:
    return opened(tmp_path, s3)


def publish(layout, end=ONE, seed=0, **facts):
    dataset = version_data(end=end, seed=seed)
    return published.publish(layout, dataset, manifest_of(dataset, **{"tag": f"{seed:08x}", **facts}), STATE)


def promote(layout, ref, **options):
    return published.promote(layout, ref.universe, ref.model, ref.version, **{"reason": "test", **options})


def test_a_cube_keeps_every_snapshot(layout, tmp_path):
    with pytest.raises(CubeError, match=r"does not exist at s3://bucket-.*/team/prod/cubes/us; ingest"):
        Cube.open(layout, "us")
    cube = Cube.open_or_create(layout, "us")
    data = cube_data(WEEK)
    first = cube.upsert(data, message="first", metadata={"ingest_key": "k"})
    assert not cube.upsert(data, message="again", metadata={}).changed
    restated = cube_data(WEEK[1:2], ("B",), seed=1, optional=False)
    second = cube.upsert(restated, message="restated", metadata={})
    reader = Cube.open(layout, "us")
    assert [info.id for info in reader.history()] == [second.snapshot_id, first.snapshot_id]
    assert reader.open_dataset(first.snapshot_id).equals(data)
    assert reader.open_dataset()["returns"].sel(date=WEEK[1], ticker="B") == restated["returns"].item()
    assert list(tmp_path.iterdir()) == [], "nothing of a cube lies on this disk"


def _months(root: Path, where, year: int) -> None:
    cube = Cube.open(opened(root, where), "us")
    for month in range(1, 4):
        dates = pd.bdate_range(f"{year}-{month:02d}-01", periods=5)
        cube.upsert(cube_data(dates, seed=100 * year + month), message="m", metadata={})


@pytest.mark.slow
def test_writers_of_one_cube_lose_nothing_without_a_lock(layout, tmp_path, s3, start):
    cube = Cube.open_or_create(layout, "us")
    cube.upsert(cube_data(["2020-01-01"]), message="first", metadata={})
    writers = [start(_months, tmp_path, s3, year) for year in (2021, 2022)]
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    seen = cube.open_dataset().load()
    assert seen.sizes["date"] == 1 + 2 * 3 * 5
    for year in (2021, 2022):
        for month in range(1, 4):
            written = cube_data(pd.bdate_range(f"{year}-{month:02d}-01", periods=5), seed=100 * year + month)
            assert seen.sel(date=written["date"]).equals(written)
    assert len(cube.history()) == 7


def test_a_commit_whose_answer_was_lost_is_recognised(layout, s3, s3_server):
    cube = Cube.open_or_create(layout, "us")
    cube.upsert(cube_data(WEEK), message="first", metadata={})
    s3_server.lose("PUT", f"{_bucket(s3)}/team/prod/cubes/us/refs/branch.main/ref.json")
    commit = cube.upsert(cube_data(WEEK, seed=1), message="second", metadata={})
    assert commit.changed
    assert [info.message for info in cube.history()] == ["second", "first"]
    assert cube.head().id == commit.snapshot_id


def test_versions_are_published_promoted_and_rolled_back(layout, tmp_path):
    one, two = publish(layout), publish(layout, TWO, 1)
    assert (one.changed, one.promoted) == (True, False)
    assert promote(layout, one, expected=None).promoted
    assert promote(layout, two, expected=one.version).promoted
    assert publish(layout, TWO, 1) == two.model_copy(update={"changed": False, "promoted": True})
    assert promote(layout, one).promoted
    assert [(ref.version[:10], ref.promoted) for ref in published.list_versions(layout)] == [(ONE, True), (TWO, False)]
    assert published.open_version(layout, two).load().equals(version_data(end=TWO, seed=1))
    np.testing.assert_array_equal(published.read_state(layout, two)["gamma"], STATE["gamma"])
    published.verify(layout, two)
    url = published.locate_latest(layout, "us", "ipca")
    assert url == published.locate(layout, one)
    assert url.endswith(f"/team/prod/published/us/ipca/{one.version}")
    assert published.resolve(layout, url).version == one.version
    with pytest.raises(PublishError, match="known: us/ipca/"):
        published.resolve(layout, "us/ipca/2020-01-01-00000000")
    assert not list(tmp_path.rglob(".staging-*"))


def test_anybody_reads_the_champion_with_zarr_and_obstore_alone(layout, s3):
    promote(layout, publish(layout))
    home = S3Store(_bucket(s3), prefix="team/prod/published/us/ipca", client_options={"allow_http": True})
    version = json.loads(bytes(obstore.get(home, "latest.json").bytes()))["promotions"][-1]["version"]
    store = S3Store(_bucket(s3), prefix=f"team/prod/published/us/ipca/{version}", client_options={"allow_http": True})
    dataset = xr.open_zarr(zarr.storage.ObjectStore(store, read_only=True))
    assert dataset.attrs["as_of"] == ONE
    assert dataset["loadings"].load().equals(version_data(end=ONE)["loadings"])


@pytest.mark.slow
def test_other_content_under_one_name_is_refused_before_a_byte_is_written(layout):
    ref = publish(layout)
    dataset = version_data(end=ONE, seed=5)
    with pytest.raises(ConflictError, match=r"already published with other content \(different: checksums"):
        published.publish(layout, dataset, manifest_of(dataset, tag="00000000"), STATE)
    published.verify(layout, ref)
    assert published.open_version(layout, ref).load().equals(version_data(end=ONE))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(0, 0), (1, 2)], ids=["same", "other"])
def test_of_two_publishers_at_once_both_succeed_or_one_is_refused_whole(layout, seeds):
    outcomes, gate = [], threading.Barrier(2)

    def rival(seed):
        dataset = version_data(end=ONE, seed=seed)
        gate.wait()
        try:
            published.publish(layout, dataset, manifest_of(dataset, tag="0badcafe"), STATE)
            outcomes.append(seed)
        except ConflictError as error:
            outcomes.append(str(error))

    rivals = [threading.Thread(target=rival, args=(seed,)) for seed in seeds]
    for thread in rivals:
        thread.start()
    for thread in rivals:
        thread.join()
    won = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert len(won) == (2 if seeds[0] == seeds[1] else 1)
    (ref,) = published.list_versions(layout)
    published.verify(layout, ref)
    assert published.open_version(layout, ref).load().equals(version_data(end=ONE, seed=won[0]))


def _die_at_put(root: Path, where, last: int) -> None:
    layout = opened(root, where)
    kill_at_put(last)
    publish(layout)


@pytest.mark.slow
def test_an_upload_killed_anywhere_shows_nothing_and_is_completed(layout, tmp_path, s3, start):
    url, env = s3
    files = len(layout.store.files(f"published/us/ipca/{publish(layout).version}"))
    for last in (2, files // 2, files):
        place = (f"{url}/killed-{last}", env)
        dying = start(_die_at_put, tmp_path, place, last)
        dying.join(60)
        assert dying.exitcode == -signal.SIGKILL
        other = opened(tmp_path, place)
        assert published.list_versions(other) == []
        assert published.find(other, "us", "ipca", f"{ONE}-00000000") is None
        if last > 1:
            dataset = version_data(end=ONE, seed=9)
            with pytest.raises(ConflictError, match="other content"):
                published.publish(other, dataset, manifest_of(dataset, tag="00000000"), STATE)
        ref = publish(other)
        assert ref.changed
        published.verify(other, ref)
        assert published.open_version(other, ref).load().equals(version_data(end=ONE))
    assert not list(tmp_path.rglob(".staging-*"))


@pytest.mark.slow
def test_what_a_killed_upload_left_can_be_removed_for_other_content(layout, tmp_path, s3, start):
    dying = start(_die_at_put, tmp_path, s3, 20)
    dying.join(60)
    dataset = version_data(end=ONE, seed=9)
    manifest = manifest_of(dataset, tag="00000000")
    with pytest.raises(ConflictError, match="other content"):
        published.publish(layout, dataset, manifest, STATE)
    published.remove(layout, VersionRef(universe="us", model="ipca", version=manifest.version))
    ref = published.publish(layout, dataset, manifest, STATE)
    published.verify(layout, ref)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("promotions", "times"),
    [(0, 1), pytest.param(1, 1, marks=pytest.mark.slow), (1, 2)],
    ids=["first", "next", "twice"],
)
def test_a_promotion_whose_answer_was_lost_is_recognised(layout, s3, s3_server, promotions, times):
    one, two = publish(layout), publish(layout, TWO, 1)
    for _ in range(promotions):
        promote(layout, one)
    before = one.version if promotions else None
    s3_server.lose("PUT", f"{_bucket(s3)}/team/prod/published/us/ipca/latest.json", times=times)
    asked = len(s3_server.requests)
    assert promote(layout, two, expected=before).promoted
    puts = [path for method, path in s3_server.requests[asked:] if method == "PUT" and path.endswith("latest.json")]
    assert len(puts) > 1, "the answer was lost and the client tried again"
    assert len(published.promotions(layout, "us", "ipca")) == promotions + 1


def test_an_answer_lost_for_good_is_recognised_by_reading(layout, monkeypatch):
    """Performed and then failed for every retry of the client: the error reaches the swap itself."""
    ref, swap, calls = publish(layout), ObjectStore.swap, 0

    def lossy(self, *arguments):
        nonlocal calls
        calls += 1
        swap(self, *arguments)
        raise StoreError("the connection was reset")

    monkeypatch.setattr(ObjectStore, "swap", lossy)
    assert promote(layout, ref, expected=None).promoted
    assert calls == 1
    assert len(published.promotions(layout, "us", "ipca")) == 1


def test_a_promotion_that_never_arrives_is_an_error_and_changes_nothing(layout, monkeypatch):
    ref = publish(layout)
    monkeypatch.setattr(pointer, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(ObjectStore, "swap", lambda *_: (_ for _ in ()).throw(StoreError("the connection was refused")))
    with pytest.raises(PublishError, match="the connection was refused"):
        promote(layout, ref)
    assert published.latest(layout, "us", "ipca") is None
    monkeypatch.setattr(ObjectStore, "swap", lambda *_: False)
    with pytest.raises(ConflictError, match=r"latest\.json: other writers were faster 10 times"):
        promote(layout, ref)


def _alternate(root: Path, where, versions: tuple[str, ...]) -> None:
    layout = opened(root, where)
    for _ in range(6):
        for version in versions:
            published.promote(layout, "us", "ipca", version, reason="turn")


@pytest.mark.slow
def test_a_reader_that_loops_while_the_pointer_moves_sees_whole_versions(layout, tmp_path, s3, start):
    refs = [publish(layout), publish(layout, TWO, 1)]
    promote(layout, refs[0])
    whole = {ONE: version_data(end=ONE), TWO: version_data(end=TWO, seed=1)}
    writer, seen = start(_alternate, tmp_path, s3, tuple(ref.version for ref in refs)), set()
    while writer.is_alive() or len(seen) < 1:
        dataset = published.open_version(layout, published.latest(layout, "us", "ipca"))
        assert dataset.load().equals(whole[dataset.attrs["as_of"]])
        seen.add(dataset.attrs["as_of"])
    assert writer.exitcode == 0
    assert len(published.promotions(layout, "us", "ipca")) == 12


@pytest.mark.slow
def test_damage_is_named_and_an_unreachable_store_is_not_called_damage(layout, s3, s3_server, monkeypatch):
    ref = publish(layout)
    key = f"published/us/ipca/{ref.version}"
    store = S3Store(_bucket(s3), prefix="team/prod", client_options={"allow_http": True})
    for name in ("state.safetensors", "manifest.json", "loadings/c.0.0.0", "zarr.json"):
        sound = bytes(obstore.get(store, f"{key}/{name}").bytes())
        obstore.put(store, f"{key}/{name}", sound[:-1] + bytes([sound[-1] ^ 1]))
        with pytest.raises(CorruptionError, match=f"s3://.*{name} .*match"):
            published.verify(layout, ref)
        obstore.delete(store, f"{key}/{name}")
        with pytest.raises(CorruptionError, match=f"s3://.*{name} .*(missing|read)"):
            published.verify(layout, ref)
        obstore.put(store, f"{key}/{name}", sound)
    published.verify(layout, ref)
    monkeypatch.setattr("storage.stores.objects._RETRY", {"max_retries": 0})
    other = Workspace.of(Settings(root=layout.root, store=s3[0])).layout
    s3_server.lose("GET", f"{key}/state.safetensors", performed=False)
    with pytest.raises(StoreError, match=r"state\.safetensors: "):
        published.read_state(other, ref)


def test_credentials_stay_in_the_process_and_out_of_sight(layout, tmp_path, s3, monkeypatch):
    space = Workspace.of(Settings(root=tmp_path, store=s3[0]))
    shown = f"{space!r} {space.layout!r} {space.layout.store!r} {space.layout.store._access!r}"
    for holder in (space, space.layout, space.layout.store):
        with pytest.raises(FactorcubeError, match="holds credentials and is not sent"):
            pickle.dumps(holder)
    travelled = pickle.loads(pickle.dumps(Workspace(tmp_path)))  # noqa: S301  # written right here
    assert travelled.layout.store.locate("") == str(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("storage.stores.objects._RETRY", {"max_retries": 0})
    with pytest.raises(StoreError) as failure:
        published.list_versions(Workspace.of(Settings(root=tmp_path, store=s3[0])).layout)
    with pytest.raises(CubeError) as other:
        Cube.open(Workspace.of(Settings(root=tmp_path, store=s3[0])).layout, "us")
    shown += f"{failure.value!r} {other.value!r}"
    for secret in ("planted-secret", "test-key-id"):
        assert secret not in shown


def test_credentials_come_from_a_block_and_win_over_the_environment(tmp_path, s3, s3_server, monkeypatch, prefect_api):
    from prefect.blocks.system import Secret

    url, env = s3
    for name in env:
        monkeypatch.delenv(name)
    settings = Settings(root=tmp_path, store=url, store_block="team-store")
    with pytest.raises(FactorcubeError, match="no Secret block 'team-store'"):
        Workspace.of(settings)
    Secret(value=env).save("team-store", overwrite=True)
    promote(layout := Workspace.of(settings).layout, publish(layout))
    for value, told in (
        ({**env, "AWS_ENDPOINT_URL": "http://169.254.169.254"}, "link-local"),
        ({**env, "AWS_ENDPOINT": "x"}, "unknown key AWS_ENDPOINT"),
        ({"AWS_ACCESS_KEY_ID": "planted-secret"}, "give both"),
        ("planted-secret", "not a mapping"),
    ):
        Secret(value=value).save("team-store", overwrite=True)
        with pytest.raises(FactorcubeError, match=told) as failure:
            Workspace.of(settings)
        assert "planted-secret" not in str(failure.value)


def _bucket(s3: tuple[str, dict[str, str]]) -> str:
    return s3[0].removeprefix("s3://").partition("/")[0]


@pytest.mark.slow
def test_a_whole_run_keeps_its_cube_and_versions_in_the_object_store(small, s3, monkeypatch, prefect_api):
    from flows.pipeline import pipeline
    from schemas.settings import load_settings
    from storage.configs import load_spec

    monkeypatch.setenv("FACTORCUBE_STORE", s3[0])
    write_config(small.parent, {"models": SMALL["models"][:1]})
    (ref,) = pipeline(load_spec(small), promote_first=True)
    space = Workspace.of(load_settings())
    champion = published.latest(space.layout, ref.universe, ref.model)
    assert champion.version == ref.version
    published.verify(space.layout, champion)
    assert published.read_manifest(space.layout, ref).snapshot_id == Cube.open(space.layout, ref.universe).head().id
    assert not (space.root / "cubes").exists()
    assert not (space.root / "published").exists()
    (again,) = pipeline(load_spec(small), promote_first=True)
    assert (again.version, again.changed) == (ref.version, False)
