"""The cube: what an upsert changes, what it refuses, and what older snapshots keep."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storing import CHARS, cube_data

from schemas.contracts import CUBE
from schemas.errors import AlignmentError, ConfigError, CubeError
from storage import arrays
from storage.cube import Cube
from storage.layout import Layout
from storage.work import WorkStore

WEEK = pd.bdate_range("2024-01-01", periods=5)


@pytest.fixture
def cube(tmp_path: Path) -> Cube:
    return Cube.open_or_create(Layout(tmp_path), "us")


def put(cube: Cube, dataset: xr.Dataset) -> str:
    commit = cube.upsert(dataset, message="test", metadata={})
    assert commit.changed
    return commit.snapshot_id


def test_a_cube_gives_back_what_was_written_lazily_and_described(cube, tmp_path):
    data = cube_data(WEEK, ("B", "<script>", "Ünïcode ☃", "A"))
    put(cube, data)
    stored = Cube.open(Layout(tmp_path), "us").open_dataset()
    assert not stored["characteristics"].variable._in_memory
    assert stored.equals(data)
    assert list(stored.indexes["ticker"]) == ["B", "<script>", "Ünïcode ☃", "A"]
    for name, variable in CUBE.items():
        assert stored[name].dtype == variable.dtype
        assert stored[name].dims == variable.dims
        assert stored[name].attrs == variable.attrs
    assert stored.attrs["universe"] == "us"


def test_what_does_not_exist_is_named(cube, tmp_path):
    with pytest.raises(CubeError, match="cube 'eu' does not exist"):
        Cube.open(Layout(tmp_path), "eu")
    assert cube.head() is None
    assert cube.history() == []
    with pytest.raises(CubeError, match="empty"):
        cube.open_dataset()
    put(cube, cube_data(WEEK))
    for unknown in ("nonsense", "ZZZZZZZZZZZZZZZZZZZG"):
        with pytest.raises(CubeError, match=unknown):
            cube.open_dataset(unknown)
    with pytest.raises(ConfigError, match="not a valid name"):
        Cube.open_or_create(Layout(tmp_path), "../outside")


def test_labels_decide_and_never_positions(cube):
    data = cube_data(WEEK, ("A", "B", "C"))
    put(cube, data)
    permuted = data.isel(ticker=[2, 0, 1], char=[1, 0])
    assert not cube.upsert(permuted, message="the same cells", metadata={}).changed
    restated = permuted.copy(deep=True)
    restated["characteristics"].loc[{"date": WEEK[2], "ticker": "C", "char": "beta"}] = 7.0
    put(cube, restated)
    expected = data.copy(deep=True)
    expected["characteristics"].loc[{"date": WEEK[2], "ticker": "C", "char": "beta"}] = 7.0
    assert cube.open_dataset().equals(expected)


def test_only_covered_cells_change_and_old_snapshots_stay_bit_for_bit(cube):
    data = cube_data(WEEK, ("A", "B", "C"))
    before = put(cube, data)
    restated = cube_data(WEEK[1:3], ("B",), seed=1, optional=False)
    restated["returns"].loc[{"date": WEEK[1]}] = np.nan
    put(cube, restated)
    expected = data.copy(deep=True)
    for name in ("returns", "characteristics", "estimation", "weights"):
        expected[name].loc[{"date": WEEK[1:3], "ticker": ["B"]}] = restated[name]
    now = cube.open_dataset()
    assert now.equals(expected)
    assert np.isnan(now["returns"].sel(date=WEEK[1], ticker="B"))
    assert cube.open_dataset(before).equals(data)


@pytest.mark.parametrize("late", [["2023-12-29"], ["2024-01-02"], ["2023-12-29", "2024-01-02", "2024-01-03"]])
def test_late_dates_move_all_that_follow_and_nothing_else(cube, late):
    calendar = pd.DatetimeIndex([*late, *(day for day in WEEK if str(day.date()) not in late)]).sort_values()
    whole = cube_data(calendar)
    before = put(cube, whole.sel(date=~whole["date"].isin(pd.DatetimeIndex(late))))
    put(cube, whole.sel(date=pd.DatetimeIndex(late)))
    assert cube.open_dataset().equals(whole)
    assert len(late) + cube.open_dataset(before).sizes["date"] == len(calendar)


def test_the_ticker_axis_grows_at_its_end_beyond_the_room_of_its_chunks(cube):
    put(cube, cube_data(WEEK[:3], [f"T{i}" for i in range(60)]))
    wide = cube_data(WEEK[3:], [f"T{i}" for i in reversed(range(200))], seed=1)
    put(cube, wide)
    stored = cube.open_dataset()
    assert list(stored.indexes["ticker"]) == [f"T{i}" for i in range(60)] + [f"T{i}" for i in reversed(range(60, 200))]
    xr.testing.assert_equal(
        stored["characteristics"].sel(date=WEEK[3:], ticker=wide["ticker"]), wide["characteristics"]
    )
    assert np.isnan(stored["returns"].sel(date=WEEK[:3], ticker="T199")).all()
    assert not stored["estimation"].sel(date=WEEK[:3], ticker="T199").any()


def test_a_stock_without_a_weight_in_a_defined_portfolio_is_not_held(cube):
    put(cube, cube_data(WEEK[:2], ("A", "B"), portfolios=("market",)))
    put(cube, cube_data(WEEK[2:4], ("B", "NEW"), portfolios=("late",), seed=1))
    weights = cube.open_dataset()["weights"]
    assert list(weights.indexes["portfolio"]) == ["market", "late"]
    assert (weights.sel(portfolio="market", date=WEEK[:2], ticker="NEW") == 0).all()
    assert (weights.sel(portfolio="late", date=WEEK[2:4], ticker="A") == 0).all()
    assert np.isnan(weights.sel(portfolio="market", date=WEEK[2:4])).all()
    assert np.isnan(weights.sel(portfolio="late", date=WEEK[:2])).all()


def test_an_industry_code_keeps_its_meaning_and_new_names_come_at_the_end(cube):
    data = cube_data(WEEK[:3])
    data["industry"][:] = [[0, 1, -1]] * 3
    before = put(cube, data)
    other = cube_data(WEEK[3:], ("C", "B", "NEW")).assign_coords(industry_name=["oil", "tech"])
    other["industry"][:] = [[0, 1, -1], [1, -1, 0]]
    put(cube, other)
    stored = cube.open_dataset()
    assert stored["industry_name"].values.tolist() == ["bank", "tech", "oil"]
    assert stored["industry"].values.tolist() == [*[[0, 1, -1, -1]] * 3, [-1, 1, 2, -1], [-1, -1, 1, 2]]
    assert cube.open_dataset(before).equals(data)
    swapped = other.assign_coords(industry_name=["tech", "oil"])
    swapped["industry"][:] = [[1, 0, -1], [0, -1, 1]]
    assert not cube.upsert(swapped, message="the same names", metadata={}).changed


def test_nothing_new_is_no_commit_and_one_bit_is_one(cube):
    data = cube_data(WEEK)
    data["returns"][0, 0] = 0.0
    first = put(cube, data)
    again = cube.upsert(data.isel(date=slice(1, 3)), message="again", metadata={})
    assert (again.snapshot_id, again.changed) == (first, False)
    data["returns"][0, 0] = -0.0
    second = put(cube, data)
    assert [info.id for info in cube.history()] == [second, first]


def test_history_says_who_what_and_why(cube):
    cube.upsert(cube_data(WEEK), message="ingest of January", metadata={"ingest_key": "k", "n": 1})
    info = cube.head()
    assert info.message == "ingest of January"
    assert info.written_at.tzinfo is not None
    assert info.metadata["ingest_key"] == "k"
    assert info.metadata["user"]
    assert (info.metadata["first_date"], info.metadata["last_date"]) == ("2024-01-01", "2024-01-05")
    assert (info.metadata["new_dates"], info.metadata["new_tickers"]) == (5, 3)


REFUSED = {
    "date 2024-01-02 is given twice": lambda ds: ds.isel(date=[0, 1, 1, 2]),
    "not sorted: 2024-01-03 stands before 2024-01-02": lambda ds: ds.isel(date=[0, 2, 1]),
    "NaT": lambda ds: ds.assign_coords(date=[pd.NaT, *ds["date"].values[1:]]),
    "time of day": lambda ds: ds.assign_coords(date=ds["date"] + np.timedelta64(1, "h")),
    "without a time zone": lambda ds: ds.assign_coords(date=[str(day) for day in ds["date"].values]),
    "no dates": lambda ds: ds.isel(date=slice(0)),
    "ticker 'B' is given twice": lambda ds: ds.isel(ticker=[0, 1, 1]),
    "not a name": lambda ds: ds.assign_coords(ticker=["A", "", "C"]),
    "'char' differs from the cube's: new size": lambda ds: xr.concat(
        [ds, ds.isel(char=[0]).assign_coords(char=["size"])], "char", data_vars="minimal"
    ),
    "'char' differs from the cube's: missing mom12m": lambda ds: ds.isel(char=[0]),
    "'observed_factor' differs .*missing smb; new hml": lambda ds: ds.assign_coords(observed_factor=["hml"]),
    "axis 'ticker' has no labels": lambda ds: ds.drop_vars("ticker"),
    "sector are not axes": lambda ds: ds.assign_coords(sector=("ticker", ["x", "y", "z"])),
    "volume are not in the contract": lambda ds: ds.assign(volume=ds["returns"]),
    "expected dtype float32, got float64": lambda ds: ds.assign(returns=ds["returns"].astype("f8")),
    "estimation": lambda ds: ds.drop_vars("estimation"),
    "codes of 'industry' have no names": lambda ds: ds.drop_vars("industry_name"),
    "'industry' holds codes beyond its 1 names": lambda ds: ds.isel(industry_name=[0]),
    "industry_name 'bank' is given twice": lambda ds: ds.assign_coords(industry_name=["bank", "bank"]),
    "industry_name are not axes": lambda ds: ds.drop_vars("industry"),
    "expected 'portfolio', got 'ticker'": lambda ds: ds.assign(weights=ds["weights"].transpose()),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_align_is_refused_whole(cube, message):
    data = cube_data(WEEK)
    before = put(cube, data)
    restated = cube_data(WEEK, seed=1)
    with pytest.raises(AlignmentError, match=message):
        cube.upsert(REFUSED[message](restated), message="bad", metadata={})
    assert cube.head().id == before
    assert cube.open_dataset().equals(data)


@pytest.mark.slow
def test_memory_is_bounded_by_blocks_of_dates(tmp_path):
    dates = pd.bdate_range("2000-01-03", periods=1536)
    tickers = [f"T{i}" for i in range(400)]
    store, chars = WorkStore(Layout(tmp_path)), [f"c{i}" for i in range(16)]
    blocks = (cube_data(dates[i : i + 128], tickers, chars=chars, seed=i) for i in range(0, 1536, 128))
    store.put_dataset("raw", "k", blocks)
    source = store.open_dataset("raw", "k")
    cube = Cube.open_or_create(Layout(tmp_path), "us")
    tracemalloc.start()
    try:
        put(cube, source)
        put(cube, source.isel(date=[0]).assign_coords(date=[np.datetime64("1999-12-31", "ns")]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert source.nbytes > 10 * arrays.CHUNK_BYTES
    assert peak < 8 * arrays.CHUNK_BYTES
    assert cube.open_dataset().isel(date=slice(1, None)).equals(source)


def test_a_damaged_chunk_is_an_error_and_never_a_number(cube, tmp_path):
    put(cube, cube_data(WEEK, [f"T{i}" for i in range(50)]))
    chunks = [path for path in (tmp_path / "cubes" / "us" / "chunks").iterdir() if path.stat().st_size > 700]
    assert chunks
    for path in chunks:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(Exception, match=r"(?i)checksum|corrupt|decompress"):
        cube.open_dataset().load()


DAYS = pd.bdate_range("2024-03-01", periods=14)
TICKERS = "ABCDEFG"
UPSERT = st.tuples(
    st.sets(st.integers(0, len(DAYS) - 1), min_size=1, max_size=5),
    st.lists(st.sampled_from(TICKERS), min_size=1, max_size=5, unique=True),
    st.permutations(CHARS),
    st.integers(0, 2**20),
)


BLANK = {"returns": np.nan, "characteristics": np.nan, "estimation": False, "weights": 0.0}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(upserts=st.lists(UPSERT, min_size=1, max_size=5))
def test_any_sequence_of_upserts_equals_a_table_of_cells(tmp_path_factory, monkeypatch, upserts):
    monkeypatch.setattr(arrays, "MAX_CHUNK_DATES", 2)  # many chunks, so that their borders are met everywhere
    cube = Cube.open_or_create(Layout(tmp_path_factory.mktemp("cube")), "us")
    axes = cube_data(DAYS, TICKERS)
    table = xr.Dataset({name: xr.full_like(axes[name], blank) for name, blank in BLANK.items()})
    rates: dict[pd.Timestamp, float] = {}
    tickers: list[str] = []
    states = []
    for chosen, names, chars, seed in upserts:
        data = cube_data(DAYS[sorted(chosen)], names, chars=chars, seed=seed)
        data["returns"][0, 0] = np.nan
        snapshot = cube.upsert(data, message="m", metadata={}).snapshot_id
        tickers += [name for name in names if name not in tickers]
        rates |= dict(zip(data.indexes["date"], data["risk_free"].values, strict=True))
        for name, written in data[[*BLANK]].sel(char=list(CHARS)).items():
            table[name].loc[{"date": data["date"], "ticker": data["ticker"]}] = written
        stored = cube.open_dataset(snapshot).load()
        assert list(stored.indexes["date"]) == sorted(rates)
        assert list(stored.indexes["ticker"]) == tickers
        assert list(stored["risk_free"].values) == [rates[day] for day in sorted(rates)]
        expected = table.sel(date=sorted(rates), ticker=tickers)
        for name in BLANK:
            xr.testing.assert_equal(stored[name].reindex_like(expected[name]), expected[name])
        states.append((snapshot, stored))
    for snapshot, state in states:
        assert cube.open_dataset(snapshot).identical(state)
