"""Intermediate results of machines that share an object store alone: whole or absent, and the same for all."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pandas as pd
import pytest
from obstore.store import S3Store
from s3_server import S3Server
from storing import STATE, cube_data, kill_at_put

from schemas.base import digest
from schemas.errors import CorruptionError, ExecutionError, StoreError
from schemas.settings import Settings
from storage import shared_work
from storage.shared_work import SharedWork
from storage.work import WorkStore
from tasks.workspace import Workspace

KEY = digest("anything")
FIT, METRIC = f"work/fits/{KEY}", f"work/metrics/{KEY}"
Where = tuple[str, dict[str, str]]


def machine(root: Path, url: str) -> Workspace:
    """Open what a machine of this root sees."""
    return Workspace.of_workers(Settings(root=root, work=url))


@pytest.fixture
def one(tmp_path: Path, s3: Where) -> Workspace:
    return machine(tmp_path / "one", s3[0])


@pytest.fixture
def other(tmp_path: Path, s3: Where) -> Workspace:
    return machine(tmp_path / "other", s3[0])


def objects(s3: Where) -> tuple[S3Store, dict[str, str]]:
    """Return the store as others open it, and the keys of all objects by the last part of their names."""
    bucket, _, prefix = s3[0].removeprefix("s3://").partition("/")
    store = S3Store(bucket, prefix=prefix, client_options={"allow_http": True})
    keys = [item["path"] for batch in obstore.list(store) for item in batch]
    return store, {key.rpartition("/")[2]: key for key in keys}


def files(space: Workspace) -> list[str]:
    """Return the files below a root but for the lock files."""
    found = (path.relative_to(space.root).as_posix() for path in space.root.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.startswith("locks/"))


def test_what_one_machine_keeps_another_one_finds_and_fetches_once(
    one: Workspace, other: Workspace, s3_server: S3Server
) -> None:
    data = cube_data(pd.bdate_range("2020-01-01", periods=30))
    assert not other.work.has("fits", KEY)
    one.work.put_arrays("fits", KEY, STATE, {"factors": ["f1"]})
    one.work.put_json("metrics", KEY, {"r2": 0.5})
    one.work.put_dataset("panels", KEY, data)
    assert all(other.work.has(kind, KEY) for kind in ("fits", "metrics", "panels"))
    assert other.work.among("fits", [KEY, "never"]) == {KEY}
    assert not other.root.exists(), "nothing is fetched before it is read"
    arrays, facts = other.work.get_arrays("fits", KEY)
    np.testing.assert_array_equal(arrays["gamma"], STATE["gamma"])
    assert (facts, other.work.get_json("metrics", KEY)) == ({"factors": ["f1"]}, {"r2": 0.5})
    assert other.work.open_dataset("panels", KEY).identical(data)
    assert files(other) == files(one)
    asked = len(s3_server.requests)
    other.work.get_arrays("fits", KEY)
    other.work.open_dataset("panels", KEY).load()
    assert len(s3_server.requests) == asked
    with pytest.raises(ExecutionError, match=r"fits/never: no such intermediate result"):
        other.work.get_arrays("fits", "never")


def test_a_copy_is_not_believed_without_its_entry(one: Workspace, other: Workspace) -> None:
    """Other machines could not read it: it is made again, and found by all."""
    one.work.put_json("metrics", KEY, 1)
    (entry,) = one.shared.leftovers()
    assert one.shared.remove(entry)
    assert not one.work.has("metrics", KEY)
    one.work.put_json("metrics", KEY, 1)
    assert other.work.get_json("metrics", KEY) == 1


@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_of_twins_one_wins_and_both_read_the_same(
    one: Workspace, other: Workspace, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    one.work.put_arrays("fits", KEY, STATE, {})
    with monkeypatch.context() as patch:
        patch.setattr(SharedWork, "has", lambda *_: False)  # as it was when both began
        other.work.put_arrays("fits", KEY, STATE if same else {"gamma": STATE["gamma"] + 1e-16}, {})
    assert (other.root / "work" / "fits" / KEY).is_dir() is same
    np.testing.assert_array_equal(other.work.get_arrays("fits", KEY)[0]["gamma"], STATE["gamma"])
    assert [entry.whole for entry in one.shared.leftovers()] == [True], "the loser took its upload away"


def test_a_document_whose_answer_was_lost_is_recognised(one: Workspace, other: Workspace, s3_server: S3Server) -> None:
    s3_server.lose("PUT", f"/{FIT}/entry.json")
    one.work.put_arrays("fits", KEY, STATE, {})
    np.testing.assert_array_equal(other.work.get_arrays("fits", KEY)[0]["gamma"], STATE["gamma"])


def _die_at_put(root: Path, where: Where, last: int) -> None:
    os.environ.update(where[1])
    kill_at_put(last)
    machine(root, where[0]).work.put_arrays("fits", KEY, STATE, {})


def test_an_upload_killed_anywhere_is_nowhere_believed_and_is_removed(
    one: Workspace, other: Workspace, s3: Where, start: Callable[..., Any]
) -> None:
    for last in (1, 3):  # before the first file, and before the document
        dying = start(_die_at_put, one.root, s3, last)
        dying.join(60)
        assert dying.exitcode == -signal.SIGKILL
        for space in (one, other):
            assert not space.work.has("fits", KEY)
            with pytest.raises(ExecutionError, match="no such intermediate result"):
                space.work.get_arrays("fits", KEY)
    other.work.put_arrays("fits", KEY, STATE, {})
    found = list(one.shared.leftovers())
    assert sorted(entry.whole for entry in found) == [False, True]
    assert all(one.shared.remove(entry) for entry in found if not entry.whole)
    np.testing.assert_array_equal(one.work.get_arrays("fits", KEY)[0]["gamma"], STATE["gamma"])
    assert len(objects(s3)[1]) == 3


def test_use_is_noted_once_a_day_and_what_was_used_since_stays(
    one: Workspace, other: Workspace, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.work.put_json("metrics", KEY, 1)
    (entry,) = one.shared.leftovers()
    asked = len(s3_server.requests)
    assert other.work.has("metrics", KEY)
    assert [method for method, _ in s3_server.requests[asked:]] == ["HEAD"]
    monkeypatch.setattr(shared_work, "_NOTED", timedelta(0))
    assert other.work.has("metrics", KEY)
    assert s3_server.requests[-1][0] == "PUT"
    assert not one.shared.remove(replace(entry, used_at=entry.used_at - timedelta(days=1)))
    assert other.work.get_json("metrics", KEY) == 1


def test_damage_on_the_way_is_named_and_nothing_of_it_is_kept(one: Workspace, other: Workspace, s3: Where) -> None:
    one.work.put_arrays("fits", KEY, STATE, {})
    store, keys = objects(s3)
    document = bytes(obstore.get(store, keys["entry.json"]).bytes())
    sound = bytes(obstore.get(store, keys["arrays.safetensors"]).bytes())
    entry = f"{s3[0]}/{FIT}"
    told = rf"{entry}.*; remove all objects below {entry} and run again"

    def refused(what: str) -> None:
        with pytest.raises(CorruptionError, match=what) as failure:
            other.work.get_arrays("fits", KEY)
        assert "\n" not in str(failure.value)
        assert files(other) == []

    for broken in (sound[:-1] + bytes([sound[-1] ^ 1]), sound[:-1]):
        obstore.put(store, keys["arrays.safetensors"], broken)
        refused(told)
    obstore.delete(store, keys["arrays.safetensors"])
    refused(told)
    obstore.put(store, keys["arrays.safetensors"], sound)
    hostile = json.loads(document)
    hostile["files"]["../../escaped"] = hostile["files"]["arrays.safetensors"]
    for content in (json.dumps(hostile).encode(), document[:-9], b"[]"):
        obstore.put(store, keys["entry.json"], content)
        refused(r"entry\.json: cannot be read; remove all objects")
    obstore.put(store, keys["entry.json"], document)
    assert other.work.get_arrays("fits", KEY)[1] == {}


def test_a_store_that_does_not_answer_is_one_sentence_and_nothing_is_kept(
    one: Workspace, s3: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("storage.stores.objects._RETRY", {"max_retries": 0})
    silent = machine(one.root, s3[0])
    ways: list[Callable[[WorkStore], Any]] = [
        lambda work: work.has("metrics", KEY),
        lambda work: work.get_json("metrics", KEY),
        lambda work: work.put_json("metrics", KEY, 1),
    ]
    told = rf"^{s3[0]}/{METRIC}/[^\n]*$"
    for way in ways:
        with pytest.raises(StoreError, match=told) as failure:
            way(silent.work)
        assert "planted-secret" not in repr(failure.value)
    monkeypatch.setattr(SharedWork, "has", lambda *_: False)  # it fell silent only now
    with pytest.raises(StoreError, match=told):
        silent.work.put_json("metrics", KEY, 1)
    assert files(one) == []
