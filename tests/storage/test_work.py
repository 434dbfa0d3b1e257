"""Intermediate results: whole or absent, the same for whoever writes them, typed errors for what is not there."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from storing import STATE, cube_data

from schemas.base import digest
from schemas.errors import AlignmentError, ConfigError, CorruptionError, ExecutionError, PublishError
from storage.files import staging, write_atomic
from storage.layout import Layout
from storage.work import WorkStore

KEY = digest("anything")
DAYS = pd.bdate_range("2020-01-01", periods=1500)


@pytest.fixture
def store(tmp_path: Path) -> WorkStore:
    return WorkStore(Layout(tmp_path))


def test_arrays_and_facts_come_back_and_the_first_writer_wins(store):
    assert not store.has("fits", KEY)
    meta = {"tickers": ["A", "Ü"], "nested": {"10": 1, "9": None}, "r2": 0.1}
    store.put_arrays("fits", KEY, STATE, meta)
    store.put_arrays("fits", KEY, {"other": np.zeros(1)}, {})
    assert store.has("fits", KEY)
    arrays, facts = store.get_arrays("fits", KEY)
    assert facts == meta
    assert sorted(arrays) == sorted(STATE)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, STATE[name])
        assert array.dtype == STATE[name].dtype


def test_json_comes_back_as_it_was_kept_first(store):
    store.put_json("metrics", KEY, {10: (1, 2), 9: "é"})
    store.put_json("metrics", KEY, "second")
    assert store.get_json("metrics", KEY) == {"10": [1, 2], "9": "é"}


def test_blocks_of_dates_become_one_dataset(store):
    data = cube_data(DAYS[:600], ("A", "<script>", "Ü"))
    data["by_ticker"] = ("ticker", [1.0, 2.0, 3.0])
    store.put_dataset("panels", KEY, (data.isel(date=slice(i, i + 70)) for i in range(0, 600, 70)), attrs={"lag": 1})
    stored = store.open_dataset("panels", KEY)
    assert not stored["returns"].variable._in_memory
    assert stored.identical(data.assign_attrs(lag=1))

    def never():
        raise AssertionError("blocks are not made again")
        yield

    store.put_dataset("panels", KEY, never())
    store.put_dataset("panels", "lazy", stored)
    assert store.open_dataset("panels", "lazy").identical(stored)


@pytest.mark.slow
def test_memory_is_bounded_by_the_block(store):
    tickers = [f"T{i}" for i in range(400)]
    blocks = (cube_data(DAYS[i : i + 60], tickers, chars=[f"c{j}" for j in range(20)]) for i in range(0, 1500, 60))
    tracemalloc.start()
    try:
        store.put_dataset("panels", KEY, blocks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    whole = store.open_dataset("panels", KEY)
    assert whole.sizes["date"] == 1500
    assert whole.nbytes > 50 * 2**20
    assert peak < 0.6 * whole.nbytes


def test_blocks_that_do_not_fit_together_leave_nothing(store, tmp_path):
    data = cube_data(DAYS[:20])
    bad = {
        "order of their dates": [data.isel(date=slice(5, 9)), data.isel(date=slice(8, 12))],
        "labels along 'ticker'": [data.isel(date=slice(0, 5)), data.isel(date=slice(5, 9), ticker=[1, 0, 2])],
        "differ in their variables: risk_free": [data.isel(date=[0]), data.isel(date=[1]).drop_vars("risk_free")],
        "nothing to write": [],
    }
    for message, blocks in bad.items():
        with pytest.raises(AlignmentError, match=message):
            store.put_dataset("panels", KEY, blocks)
    assert not store.has("panels", KEY)
    assert list((tmp_path / "work" / "panels").iterdir()) == []


def test_what_is_not_there_or_not_of_this_form_is_named(store):
    for get in (store.get_arrays, store.get_json, store.open_dataset):
        with pytest.raises(ExecutionError, match=f"{KEY}: no such intermediate result"):
            get("fits", KEY)
    store.put_json("fits", KEY, 1)
    with pytest.raises(ExecutionError, match=r"holds no arrays\.safetensors"):
        store.get_arrays("fits", KEY)
    with pytest.raises(ExecutionError, match=r"holds no files\.json"):
        store.open_dataset("fits", KEY)
    for kind, key in (("../fits", KEY), ("fits", "../x"), ("fits", "a/b"), ("fits", ""), ("fits", ".staging-x")):
        with pytest.raises(ConfigError, match="not a"):
            store.put_json(kind, key, 1)
    with pytest.raises(PublishError, match="'x' has dtype object"):
        store.put_arrays("fits", "objects", {"x": np.array([{}])}, {})
    assert not store.has("fits", "objects")


def test_damage_is_noticed(store, tmp_path):
    store.put_arrays("fits", KEY, {"x": np.arange(100.0)}, {"a": 1})
    for name in ("arrays.safetensors", "value.json"):
        path = tmp_path / "work" / "fits" / KEY / name
        sound = path.read_bytes()
        for broken in (sound[:-3] + b"7" + sound[-2:], sound[: len(sound) // 2], b"", b"[]", b"null"):
            path.write_bytes(broken)
            with pytest.raises(CorruptionError, match=name):
                store.get_arrays("fits", KEY)
        path.write_bytes(sound)
    assert store.get_arrays("fits", KEY)[1] == {"a": 1}
    store.put_dataset("panels", KEY, cube_data(DAYS[:600]))
    chunk = next((tmp_path / "work" / "panels" / KEY / "characteristics").glob("c.0.*"))
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(CorruptionError, match=r"array .characteristics., chunk 0"):
        store.open_dataset("panels", KEY).load()


def test_what_the_dead_left_is_removed_and_what_the_living_stage_is_not(store, tmp_path):
    kind = tmp_path / "work" / "fits"
    abandoned = kind / ".staging-abandoned"
    abandoned.mkdir(parents=True)
    (abandoned / "half").write_text("half", encoding="utf-8")
    with staging(kind) as mine:
        (mine / "mine").write_text("mine", encoding="utf-8")
        store.put_json("fits", KEY, 1)
        assert not abandoned.exists()
        assert (mine / "mine").exists()
    assert [path.name for path in kind.iterdir()] == [KEY]


def test_an_atomic_write_leaves_no_temporary_file_even_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.txt"
    write_atomic(path, "first")

    def broken(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(ExecutionError, match="No space"):
        write_atomic(path, b"second")
    assert path.read_text(encoding="utf-8") == "first"
    assert [child.name for child in path.parent.iterdir()] == ["file.txt"]
    with pytest.raises(ExecutionError, match=r"cannot be written: .*No space left.*run again"):
        WorkStore(Layout(tmp_path)).put_json("fits", KEY, 1)
    assert not WorkStore(Layout(tmp_path)).has("fits", KEY)
