"""Reading sources: the same data by any way give the same arrays, and bad data give one message and no arrays."""

from __future__ import annotations

import gzip
import hashlib
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import exchange_calendars
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sqlalchemy
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigError, DataError, FactorcubeError, SourceError
from schemas.settings import Settings
from schemas.sources import (
    FactorSource,
    FilesOrigin,
    LongPanel,
    LongPrices,
    PackageOrigin,
    PluginOrigin,
    SqlOrigin,
    WidePrices,
    WideReturns,
)
from storage.configs import load_spec
from storage.sources import calendars, fingerprint, next_session, normalise_dates, read_factors, read_market, sessions

HERE = Settings()
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
DAY = pd.Timedelta(days=1)
DAYS = pd.bdate_range("2017-02-01", "2017-02-17")  # NYSE is open on all of them


def market(source, *, frequency="daily", calendar="XNYS", where=HERE) -> xr.Dataset:
    return read_market(source, settings=where, frequency=frequency, calendar=calendar)


def factors(*sources, dates=DAYS, frequency="daily", calendar="XNYS") -> xr.Dataset:
    return read_factors(sources, settings=HERE, frequency=frequency, calendar=calendar, dates=dates)


def files(*paths) -> FilesOrigin:
    return FilesOrigin(paths=paths)


@pytest.fixture
def bars() -> pd.DataFrame:
    """Long bars of five tickers, some missing; ordered by ticker."""
    rng = np.random.default_rng(0)
    rows = pd.MultiIndex.from_product([["A", "BRK.B", "C", "NA", "X"], DAYS], names=["ticker", "date"]).to_frame(
        index=False
    )
    rows["close"] = rng.uniform(10, 20, len(rows))
    rows["volume"] = rng.integers(1, 10**12, len(rows)).astype(float)
    rows.loc[[3, 20], "close"] = np.nan
    return rows.drop(index=[7, 30]).reset_index(drop=True)


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix in (".feather", ".arrow"):
        frame.to_feather(path)
    else:
        frame.to_csv(path, index=False)  # pandas compresses by the suffix
    return path


def pivoted(bars: pd.DataFrame, field: str) -> np.ndarray:
    return bars.pivot_table(index="date", columns="ticker", values=field, dropna=False).to_numpy()


# --- the same data by any way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz", "a.feather", "a.arrow"])
def test_every_format_gives_what_pandas_pivots(tmp_path, bars, name):
    read = market(LongPrices(origin=files(write(bars, tmp_path / name)), volume="volume"))
    assert list(read["ticker"].values) == ["A", "BRK.B", "C", "NA", "X"], "the ticker NA is not a missing value"
    assert read.indexes["date"].equals(DAYS)
    assert read["date"].dtype == np.dtype("datetime64[ns]")
    assert {name: variable.dtype for name, variable in read.data_vars.items()} == {"close": "f8", "volume": "f8"}
    for field in ("close", "volume"):
        np.testing.assert_array_equal(read[field], pivoted(bars, field))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 61), by_date=st.booleans())
def test_neither_the_order_of_tickers_nor_the_split_into_files_matters(tmp_path, bars, cut, by_date):
    shuffled = bars.sort_values(["date", "ticker"] if by_date else ["ticker", "date"], ascending=[True, not by_date])
    for file in tmp_path.glob("*.csv"):
        file.unlink()
    write(shuffled.iloc[:cut], tmp_path / "1.csv")
    write(shuffled.iloc[cut:], tmp_path / "2.csv")
    expected = pivoted(bars, "close")
    for paths in ([tmp_path], [tmp_path / "*.csv"], [tmp_path / "2.csv", tmp_path / "1.csv", tmp_path / "?.csv"]):
        np.testing.assert_array_equal(market(LongPrices(origin=files(*paths)))["close"], expected)


def test_a_database_gives_what_a_file_gives(tmp_path, bars):
    url = f"sqlite:///{tmp_path / 'market.db'}"
    with sqlalchemy.create_engine(url).begin() as connection:
        bars.assign(date=bars["date"].dt.strftime("%Y-%m-%d")).to_sql("bars", connection, index=False)
    where = Settings(sql_url=url)
    by_date, by_ticker = (
        LongPrices(origin=SqlOrigin(query=query))
        for query in ("SELECT * FROM bars ORDER BY date, ticker", "SELECT * FROM bars ORDER BY ticker, date")
    )
    read = market(by_ticker, where=where)
    xr.testing.assert_identical(read, market(LongPrices(origin=files(write(bars, tmp_path / "a.parquet")))))
    hashes = {fingerprint(source, where)[0].sha256 for source in (by_date, by_ticker)}
    assert len(hashes) == 1, "the hash is of the rows, whatever their order"
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.exec_driver_sql("UPDATE bars SET close = close * 1.0000001 WHERE ticker = 'A'")
    assert fingerprint(by_ticker, where)[0].sha256 not in hashes


def test_packaged_datasets_are_what_their_packages_load():
    from linearmodels.datasets import french
    from skfolio.datasets import load_sp500_dataset

    closes = market(WidePrices(origin=PackageOrigin(name="skfolio_sp500"), date="Date"))
    peer = load_sp500_dataset()
    np.testing.assert_allclose(closes["close"], peer.to_numpy(), rtol=1e-15)
    assert closes.indexes["date"].equals(pd.DatetimeIndex(peer.index).as_unit("ns"))

    source = WideReturns(origin=PackageOrigin(name="french"), date="dates", tickers=("NoDur", "Durbl"))
    returns = market(source, frequency="monthly", calendar="none")
    frame = french.load()
    np.testing.assert_allclose(returns["returns"].sel(ticker="NoDur"), frame["NoDur"], rtol=1e-15)
    assert returns.indexes["date"].equals(pd.DatetimeIndex(frame["dates"]).as_unit("ns") + pd.offsets.MonthEnd(0))


def test_a_plugin_is_found_by_its_entry_point(tmp_path, monkeypatch, bars):
    write(bars, tmp_path / "bars.parquet")
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[factorcube.origins]\nacme = acme_rows:Acme\nbroken = acme_rows:Nothing\nodd = acme_rows:dict\n"
    )
    (tmp_path / "acme_rows.py").write_text(
        "import polars as pl\nfrom schemas.contracts import SourceFile\n"
        "class Acme:\n"
        "    def __init__(self, options): self.path = options['path']\n"
        "    def read(self): return {'acme': pl.scan_parquet(self.path)}\n"
        "    def fingerprint(self): return (SourceFile(name='acme', sha256='0'),)\n"
        "dict = dict\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    source = LongPrices(origin=PluginOrigin(name="acme", options={"path": str(tmp_path / "bars.parquet")}))
    np.testing.assert_array_equal(market(source)["close"], pivoted(bars, "close"))
    assert fingerprint(source, HERE)[0].name == "acme"
    for name, message in [("acne", "did you mean 'acme'"), ("broken", "cannot be imported"), ("odd", "no read")]:
        with pytest.raises(SourceError, match=message):
            market(LongPrices(origin=PluginOrigin(name=name)))


@pytest.mark.parametrize(
    "written",
    ["2017-02-01", "20170201", 20170201, "2017-02-01 00:00:00", "2017-02-01T00:00:00.000", date(2017, 2, 1)],
)
def test_a_date_may_be_written_in_these_ways(tmp_path, written):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"date": [written], "A": [1]}).write_parquet(path)
    assert market(WidePrices(origin=files(path))).indexes["date"] == DAYS[:1]


def test_a_time_zone_counts_as_the_day_it_shows(tmp_path):
    for zone in ("America/New_York", "Asia/Tokyo", "UTC"):
        frame = pd.DataFrame({"A": range(len(DAYS))}, index=DAYS.tz_localize(zone).rename("date")).reset_index()
        assert market(WidePrices(origin=files(write(frame, tmp_path / "a.parquet")))).indexes["date"].equals(DAYS)


def test_missing_is_written_in_many_ways(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("date,A,B\n2017-02-01,,NA\n2017-02-02,#N/A,nan\n2017-02-03,null, 1.5 \n2017-02-06,1e1,-2\n")
    read = market(WidePrices(origin=files(path)))["close"].values
    np.testing.assert_array_equal(read, [[np.nan, np.nan], [np.nan, np.nan], [np.nan, 1.5], [10.0, -2.0]])


@pytest.mark.parametrize("name", ["demo", "french"])
def test_the_examples_that_run_anywhere_can_be_read(name):
    spec = load_spec(Path(__file__).resolve().parents[3] / "examples" / f"{name}.yaml")
    read = market(spec.data, frequency=spec.frequency, calendar=spec.calendar)
    assert read.indexes["date"].is_monotonic_increasing
    if spec.factors:
        both = factors(*spec.factors, dates=read.indexes["date"], frequency=spec.frequency, calendar=spec.calendar)
        assert both["factors"].notnull().all()
        assert 0 < both["risk_free"].mean() < 0.01


def test_delisting_returns_are_read_beside_prices_and_in_the_units_of_returns(tmp_path, bars):
    paid = [np.nan] * len(bars)
    paid[3] = -55.0
    panel = bars.assign(ret=1.0, dlret=paid)
    path = write(panel, tmp_path / "a.parquet")
    long = market(LongPanel(origin=files(path), characteristics=("volume",), units="percent", delisting_return="dlret"))
    prices = market(LongPrices(origin=files(path), delisting_return="dlret"))
    place = {"date": panel["date"][3], "ticker": panel["ticker"][3]}
    assert float(long["delisting_return"].sel(place)) == -0.55
    assert float(prices["delisting_return"].sel(place)) == -55.0
    for found in (long, prices):
        assert int(found["delisting_return"].notnull().sum()) == 1
    assert "delisting_return" not in market(LongPrices(origin=files(path)))


# --- timing -----------------------------------------------------------------------------------------------------------


def test_lagged_characteristics_are_stored_at_the_date_they_were_known(tmp_path, bars):
    panel = bars.dropna().rename(columns={"close": "size"}).assign(ret=0.01)
    path = write(panel, tmp_path / "a.parquet")
    known = {
        name: market(LongPanel(origin=files(path), characteristics=("size", "volume"), known=name))["characteristics"]
        for name in ("at_date", "before_date")
    }
    np.testing.assert_array_equal(known["before_date"][:-1], known["at_date"][1:])
    assert np.isnan(known["before_date"][-1]).all(), "what explains the return after the last date is not known"
    panel.loc[panel["date"] == DAYS[5], "size"] *= 2
    again = market(LongPanel(origin=files(write(panel, path)), characteristics=("size", "volume"), known="before_date"))
    moved = (again["characteristics"] != known["before_date"]) & again["characteristics"].notnull()
    assert list(moved.any(["ticker", "char"]).to_series().loc[lambda moved: moved].index) == [DAYS[4]]


def test_months_join_whatever_day_labels_them(tmp_path):
    months = pd.period_range("2015-01", "2017-12", freq="M")
    labels = {
        "first": months.to_timestamp(),
        "business": months.to_timestamp() + pd.offsets.BMonthEnd(1),
        "end": months.to_timestamp(how="end").normalize(),
        "text": months.strftime("%Y-%m"),
        "number": months.strftime("%Y%m").astype(int),
    }
    values = np.random.default_rng(1).normal(0, 0.03, len(months))
    for label, dates in labels.items():
        frame = pd.DataFrame({"date": dates, "Mkt": values})
        path = write(frame, tmp_path / f"{label}.csv")
        read = market(WideReturns(origin=files(path)), frequency="monthly", calendar="XNYS")
        assert read.indexes["date"].equals(labels["end"].as_unit("ns")), label
        source = FactorSource(origin=files(path), columns=("Mkt",), units="decimal")
        joined = factors(source, dates=labels["end"], frequency="monthly", calendar="none")
        np.testing.assert_array_equal(joined["factors"][:, 0], values)


def test_sessions_follow_the_exchange():
    assert next_session("XNYS", "daily", pd.Timestamp("2018-02-07")) == pd.Timestamp("2018-02-08")
    assert next_session("XNYS", "daily", date(2022, 12, 23)) == pd.Timestamp("2022-12-27")  # Christmas on a Sunday
    assert next_session("none", "daily", pd.Timestamp("2022-12-23")) == pd.Timestamp("2022-12-26")
    assert next_session("XNYS", "monthly", pd.Timestamp("2017-12-29")) == pd.Timestamp("2018-01-31")
    assert next_session("none", "monthly", pd.Timestamp("2018-01-31")) == pd.Timestamp("2018-02-28")
    year = sessions("XNYS", date(2012, 1, 1), date(2012, 12, 31))
    assert len(year) == 250  # New York closed two days for Hurricane Sandy
    assert not {pd.Timestamp("2012-10-29"), pd.Timestamp("2012-10-30")} & set(year)
    assert year.dtype == "datetime64[ns]"
    february = normalise_dates(pd.DatetimeIndex(["2016-02-01", "2016-02-29"]), "monthly")
    assert list(february) == [pd.Timestamp("2016-02-29")] * 2
    with pytest.raises(ConfigError, match="did you mean 'XNYS'"):
        sessions("XNYSE", date(2012, 1, 1), date(2012, 2, 1))
    with pytest.raises(ConfigError, match="XTKS does not reach from 1950"):
        sessions("XTKS", date(1950, 1, 1), date(1951, 1, 1))


@pytest.mark.parametrize("calendar", ["XSHG", "XBOM"])
def test_a_calendar_that_ends_with_a_year_is_asked_to_its_end_and_not_beyond(calendar):
    last = exchange_calendars.get_calendar(calendar).bound_max()
    assert (last.month, last.day) == (12, 31)
    december = exchange_calendars.get_calendar(calendar, start=last - pd.Timedelta(days=30), end=last).sessions
    for day, following in pairwise(december):
        assert next_session(calendar, "daily", day) == following
    assert sessions(calendar, december[0], december[-1]).equals(december.as_unit("ns"))
    for beyond in (lambda: next_session(calendar, "daily", last), lambda: sessions(calendar, last, last + DAY)):
        with pytest.raises(
            ConfigError, match=rf"does not reach from .*to {last:%Y-%m-%d}; install a newer one, or set"
        ):
            beyond()
    assert next_session(calendar, "monthly", last) == pd.Timestamp(last.year + 1, 1, 31)


def test_a_calendar_that_is_not_there_or_cannot_be_made_is_one_line_that_says_what_to_do(monkeypatch):
    for name, told in [
        ("XNSE", r"\(XBOM has the sessions of its country\), or 'none'"),
        ("xnys", "did you mean 'XNYS'"),
        ("XQQQ", "known are the names of exchange_calendars"),
    ]:
        with pytest.raises(ConfigError, match=rf"there is no exchange calendar '{name}' .*{told}"):
            sessions(name, DAYS[0], DAYS[-1])
    names = exchange_calendars.get_calendar_names()
    assert set(calendars._SAME_SESSIONS.values()) <= set(names)
    assert not set(calendars._SAME_SESSIONS) & set(names)

    def incomplete(*_, **__):
        raise NotImplementedError("implemented by\nsubclasses")

    monkeypatch.setattr(exchange_calendars, "get_calendar", incomplete)
    calendars._exchange.cache_clear()
    with pytest.raises(ConfigError, match=r"XBSE cannot be made by exchange_calendars .*set `calendar: none`") as told:
        sessions("XBSE", DAYS[0], DAYS[-1])
    assert "\n" not in str(told.value)


def test_strange_dates_are_counted_and_the_first_are_named(tmp_path):
    days = pd.date_range("2017-02-01", "2017-03-12")
    path = write(pd.DataFrame({"date": days, "A": np.arange(len(days)) % 7 + 1}), tmp_path / "a.csv")
    shown = (
        "2017-02-04 .Saturday., 2017-02-05 .Sunday., 2017-02-11 .*, 2017-02-12 .*, 2017-02-18 .Saturday. and 8 more;"
    )
    with pytest.raises(DataError, match=f"13 of 40 dates are not sessions of XNYS, the first is {shown}"):
        market(WidePrices(origin=files(path)))


# --- bad data ---------------------------------------------------------------------------------------------------------

ROWS = "date,ticker,close\n2017-02-01,A,1\n2017-02-02,A,2\n2017-02-01,B,3\n2017-02-02,B,4\n"
WIDE = "date,A,B\n2017-02-01,1,2\n2017-02-02,3,4\n2017-02-03,5,6\n"
BAD = [
    # long prices
    ("long", ROWS.replace("02,A,2", "02,A,1O.5"), SourceError, ["'close'", "'1O.5'", "ticker A", "2017-02-02"]),
    ("long", ROWS.replace("02,A,2", "02,A,inf"), SourceError, ["'close'", "infinite", "ticker A", "2017-02-02"]),
    ("long", ROWS + "2017-02-02,B,4\n", DataError, ["1 duplicated", "2017-02-02, ticker B"]),
    ("long", ROWS + "2017-02-30,B,4\n", DataError, ["'2017-02-30'", "ticker B", "'date'"]),
    ("long", ROWS + ",B,4\n", DataError, ["'date'", "ticker B", "missing"]),
    ("long", ROWS + "2017-02-03 16:00:00,B,4\n", DataError, ["2017-02-03 16:00:00", "without time of day"]),
    ("long", ROWS + "02/03/2017,B,4\n", DataError, ["02/03/2017", "YYYY-MM-DD"]),
    ("long", ROWS + "2017-02-03,,4\n", DataError, ["no ticker", "2017-02-03"]),
    ("long", ROWS + "2017-01-31,B,4\n", SourceError, ["ticker B", "2017-01-31", "not in order"]),
    ("long", ROWS.replace("ticker", "symbol"), SourceError, ["no column 'ticker'", "'symbol'"]),
    ("long", ROWS.replace("close", "Close"), SourceError, ["no column 'close'", "did you mean 'Close'?"]),
    ("long", ROWS.replace(",", ";"), SourceError, ["separated by commas", "set `separator: ';'`"]),
    ("long", "date,ticker,close\n", DataError, ["no rows"]),
    ("long", "", SourceError, ["cannot be read", "empty"]),
    ("long", ROWS + "2017-02-03,B,4,5,6\n", SourceError, ["cannot be read", "line 6 has 5 cells for 3 columns"]),
    # wide prices
    ("wide", WIDE + "2017-02-02,7,8\n", SourceError, ["2017-02-02", "not in order"]),
    ("wide", WIDE + "2017-02-03,7,8\n", DataError, ["1 duplicated", "2017-02-03"]),
    ("wide", WIDE + "2017-02-04,7,8\n", DataError, ["1 of 4 dates", "XNYS", "2017-02-04 (Saturday)"]),
    ("wide", WIDE + "2017-02-20,7,8\n", DataError, ["XNYS", "2017-02-20 (Monday)"]),  # Washington's birthday
    ("wide", WIDE + "2917-02-04,7,8\n", DataError, ["impossible date", "2917-02-04"]),
    ("wide", "date,A\n0217-02-01,1\n", DataError, ["impossible date", "0217-02-01"]),
    ("wide", WIDE.replace("A,B", "A,A"), SourceError, ["column 'A' is there twice"]),
    ("wide", WIDE.replace("5,6", "5,six"), SourceError, ["'B'", "'six'", "2017-02-03"]),
    ("wide", "date,A\n2017-02-01,1\n2017-03-01,1\n2017-04-03,1\n", DataError, ["days apart", "not daily"]),
]


@pytest.mark.parametrize(("shape", "text", "kind", "named"), BAD, ids=[" ".join(bad[3]) for bad in BAD])
def test_bad_data_is_refused_by_one_message_that_names_it(tmp_path, shape, text, kind, named):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    source = (LongPrices if shape == "long" else WidePrices)(origin=files(path))
    with pytest.raises(FactorcubeError) as error:
        market(source)
    assert type(error.value) is kind
    assert "\n" not in str(error.value)
    for part in ("rows.csv", *named):
        assert part in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None, "no traceback of a library"


def test_tomorrow_is_possible_and_the_day_after_is_not(tmp_path):
    path = tmp_path / "a.csv"
    today = pd.Timestamp.now(tz="UTC").date()
    path.write_text(f"date,A\n{today + timedelta(days=1)},1\n")
    market(WidePrices(origin=files(path)), calendar="none")
    path.write_text(f"date,A\n{today + timedelta(days=2)},1\n")
    with pytest.raises(DataError, match="impossible date"):
        market(WidePrices(origin=files(path)), calendar="none")


def test_files_that_cannot_be_read_are_named(tmp_path, bars):
    write(bars, tmp_path / "prices.csv")
    (tmp_path / "empty").mkdir()
    whole = write(bars, tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"date,ticker,close\n" + b"2017-02-01,A,1\n" * 999)[:-30])
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    for name, message in [
        ("price.csv", "no such file.*did you mean 'prices.csv'"),
        ("x/*.csv", "no file matches"),
        ("empty", "holds no data file"),
        ("cut.parquet", r"cut\.parquet: cannot be read"),
        ("cut.csv.gz", r"cut\.csv\.gz: cannot be read"),
        ("a.xlsx", "files of this kind are not read"),
    ]:
        with pytest.raises(SourceError, match=message):
            market(LongPrices(origin=files(tmp_path / name)))


def test_the_file_with_other_columns_is_named(tmp_path, bars):
    write(bars, tmp_path / "1.csv")
    write(bars.rename(columns={"volume": "Volume"}), tmp_path / "2.csv")
    with pytest.raises(
        SourceError, match=r"2\.csv: its columns are not those of .*1\.csv: it lacks 'volume' and it has 'Volume'"
    ):
        market(LongPrices(origin=files(tmp_path)))


def test_a_bad_row_is_found_in_every_file(tmp_path, bars):
    write(bars, tmp_path / "1.parquet")
    write(bars.assign(close=bars["close"].astype(str).where(bars.index != 11, "?")), tmp_path / "2.parquet")
    with pytest.raises(SourceError, match=rf"2\.parquet: column 'close' .*'\?' of ticker {bars['ticker'][11]}"):
        market(LongPrices(origin=files(tmp_path)))
    write(bars.assign(close="1"), tmp_path / "2.parquet")
    with pytest.raises(DataError, match="63 duplicated rows"):
        market(LongPrices(origin=files(tmp_path)))


def test_columns_that_are_not_numbers_or_dates_are_named(tmp_path, bars):
    path = write(bars.assign(close=bars["close"] > 15), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="'close' holds Boolean, not numbers"):
        market(LongPrices(origin=files(path)))
    with pytest.raises(SourceError, match="'volume' holds Float64, not dates"):
        market(LongPrices(origin=files(path), date="volume", close="volume"))


def test_months_given_twice_and_days_given_as_months_are_refused(tmp_path, bars):
    path = write(bars, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="one row per month"):
        market(LongPrices(origin=files(path)), frequency="monthly")


def test_a_database_is_only_read_and_its_secrets_are_kept(tmp_path, bars):
    url = f"sqlite:///{tmp_path / 'market.db'}"
    with sqlalchemy.create_engine(url).begin() as connection:
        bars.to_sql("bars", connection, index=False)
    where = Settings(sql_url=url)
    with pytest.raises(ConfigError, match="must begin with SELECT or WITH, not 'DROP'"):
        market(LongPrices(origin=SqlOrigin(query="DROP TABLE bars")), where=where)
    with pytest.raises(SourceError, match="no such table: quotes"):
        market(LongPrices(origin=SqlOrigin(query="SELECT * FROM quotes")), where=where)
    with pytest.raises(SourceError, match="gives the column 'date' twice"):
        market(LongPrices(origin=SqlOrigin(query="SELECT date, date FROM bars")), where=where)
    with pytest.raises(FactorcubeError, match="FACTORCUBE_SQL_URL"):
        market(LongPrices(origin=SqlOrigin(query="SELECT 1")))
    text = "SELECT date, ticker, CASE ticker WHEN 'C' THEN 'many' ELSE close END AS close FROM bars"
    with pytest.raises(SourceError, match=r"'close' holds text .*'many' of ticker C"):
        market(LongPrices(origin=SqlOrigin(query=text)), where=where)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nowhere/hunter2/market.db?password=hunter2",
        "postgresql://me:hunter2@localhost:1/x",
        "nonsense://me:hunter2@localhost",
        "hunter2",
    ],
)
def test_no_message_repeats_a_secret(url):
    source = LongPrices(origin=SqlOrigin(query="SELECT 1"))
    with pytest.raises(FactorcubeError) as error:
        market(source, where=Settings(sql_url=url))
    assert "hunter2" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


# --- factors and units ------------------------------------------------------------------------------------------------


@pytest.fixture
def ff(tmp_path) -> Path:
    """Give a file like Fama-French's: percent, one row per session from 2016 to the tenth of February 2017."""
    rng = np.random.default_rng(2)
    days = sessions("XNYS", date(2016, 1, 4), date(2017, 2, 10))
    frame = pd.DataFrame(
        {"date": days, "Mkt-RF": rng.normal(0.03, 0.9, len(days)), "SMB": rng.normal(0, 0.4, len(days))}
    )
    return write(frame.round({"Mkt-RF": 2, "SMB": 2}).assign(RF=0.004), tmp_path / "ff.csv")


def test_factors_are_aligned_joined_and_in_decimals(tmp_path, ff):
    whole = pd.read_csv(ff, parse_dates=["date"]).set_index("date")
    late = write(whole["SMB"].loc["2017-02-08":].rename("Mom").reset_index(), tmp_path / "mom.parquet")
    read = factors(
        FactorSource(origin=files(ff), columns=("SMB", "Mkt-RF"), risk_free="RF", units="percent", carry_risk_free=2),
        FactorSource(origin=files(late), columns=("Mom",), units="percent"),
    )
    assert list(read["observed_factor"].values) == ["SMB", "Mkt-RF", "Mom"]
    assert read.indexes["date"].equals(DAYS)
    expected = whole.reindex(DAYS).assign(Mom=whole["SMB"].loc["2017-02-08":])[["SMB", "Mkt-RF", "Mom"]] / 100
    np.testing.assert_array_equal(read["factors"], expected)
    rate = read["risk_free"].to_series()
    np.testing.assert_allclose(rate[:"2017-02-14"], 4e-5)  # two sessions past the tenth, a Friday
    assert rate["2017-02-15":].isna().all()


def test_a_carried_rate_counts_sessions_though_the_market_begins_later(ff):
    source = FactorSource(origin=files(ff), risk_free="RF", units="percent", carry_risk_free=4)
    rate = factors(source, dates=sessions("XNYS", date(2017, 2, 15), date(2017, 2, 21)))["risk_free"].to_series()
    assert rate.notna().to_dict() == {  # Monday the 20th is a holiday; the 16th is the fourth session after the 10th
        pd.Timestamp("2017-02-15"): True,
        pd.Timestamp("2017-02-16"): True,
        pd.Timestamp("2017-02-17"): False,
        pd.Timestamp("2017-02-21"): False,
    }


def test_units_that_cannot_be_are_refused(tmp_path, ff):
    for columns, rate, message in [
        (("SMB",), None, "'SMB' .*like percent"),
        ((), "RF", "risk-free rate 'RF' .*like percent"),
    ]:
        with pytest.raises(SourceError, match=message):
            factors(FactorSource(origin=files(ff), columns=columns, risk_free=rate, units="decimal"))
    frame = pd.read_csv(ff)
    decimals = write(frame.assign(**{name: frame[name] / 100 for name in ("Mkt-RF", "SMB", "RF")}), tmp_path / "d.csv")
    factors(FactorSource(origin=files(decimals), columns=("SMB",), risk_free="RF", units="decimal"))
    with pytest.raises(SourceError, match="like decimals; set `units: decimal`"):
        factors(FactorSource(origin=files(decimals), columns=("Mkt-RF", "SMB"), units="percent"))
    with pytest.raises(SourceError, match="like prices"):
        market(WideReturns(origin=PackageOrigin(name="skfolio_sp500"), date="Date", units="percent"))
    french = {"origin": PackageOrigin(name="french"), "date": "dates"}
    with pytest.raises(SourceError, match="like decimals"):
        market(WideReturns(**french, units="percent"), frequency="monthly", calendar="none")
    missing = write(frame.replace({"SMB": {frame["SMB"][9]: -99.99}}), tmp_path / "m.csv")
    with pytest.raises(SourceError, match=rf"'SMB' is -0\.9999 on {frame['date'][9]}"):
        factors(FactorSource(origin=files(missing), columns=("SMB",), units="percent"))


def test_a_crash_and_a_bad_print_are_not_taken_for_percent(tmp_path):
    crash = pd.DataFrame({"date": DAYS[:2], "A": [-0.3, 0.2], "B": [-0.2, 0.1]})
    market(WideReturns(origin=files(write(crash, tmp_path / "a.csv"))))
    prints = pd.DataFrame(np.random.default_rng(3).normal(0, 0.01, (len(DAYS), 30))).add_prefix("S").assign(date=DAYS)
    prints.iloc[4, :5] = 60.0
    market(WideReturns(origin=files(write(prints, tmp_path / "b.csv"))))


def test_factors_that_do_not_fit_together_are_refused(ff):
    source = FactorSource(origin=files(ff), columns=("SMB",), risk_free="RF", units="percent")
    with pytest.raises(ConfigError, match="factor 'SMB' is given twice"):
        factors(source, source.model_copy(update={"risk_free": None}))
    with pytest.raises(ConfigError, match="two risk-free rates"):
        factors(source, source.model_copy(update={"columns": ()}))
    with pytest.raises(DataError, match=r"no date in common .*2016-01-04 to 2017-02-10, .*2020-01-02 to 2020-01-31"):
        factors(source, dates=sessions("XNYS", date(2020, 1, 1), date(2020, 1, 31)))
    moved = pd.read_csv(ff, parse_dates=["date"])
    moved["date"] += DAY
    late = FactorSource(origin=files(write(moved, ff.parent / "late.csv")), columns=("SMB",), units="percent")
    with pytest.raises(
        DataError, match=r"late\.csv: 58 of 279 dates have no factors, the first is 2016-01-11, and 58 dates"
    ):
        factors(late, dates=sessions("XNYS", date(2016, 1, 1), date(2017, 2, 10)))
    with pytest.raises(DataError, match="not daily"):
        factors(FactorSource(origin=PackageOrigin(name="french"), date="dates", columns=("SMB",), units="decimal"))
    assert factors() is None


# --- fingerprints -----------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_of_the_bytes_and_names_no_folder(tmp_path, bars):
    for folder in ("a", "b"):
        (tmp_path / folder / "2017").mkdir(parents=True)
        write(bars, tmp_path / folder / "1.csv")
        write(bars.head(7), tmp_path / folder / "2017" / "2.csv")
    one, other = (
        fingerprint(LongPrices(origin=files(tmp_path / folder / "1.csv", tmp_path / folder / "2017")), HERE)
        for folder in "ab"
    )
    assert one == other
    assert [file.name for file in one] == ["1.csv", "2017/2.csv"]
    assert one[0].sha256 == hashlib.sha256((tmp_path / "a" / "1.csv").read_bytes()).hexdigest()
    with (tmp_path / "b" / "1.csv").open("a") as file:
        file.write("\n")
    assert fingerprint(LongPrices(origin=files(tmp_path / "b" / "1.csv")), HERE)[0].sha256 != one[0].sha256
    (packaged,) = fingerprint(WidePrices(origin=PackageOrigin(name="skfolio_sp500"), date="Date"), HERE)
    assert packaged.name.startswith("skfolio-")


# --- the 505 stocks ---------------------------------------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_the_505_stocks_and_their_factors():
    path = SHARED / "sp500_5yr_daily.parquet"
    bar = {name: name for name in ("open", "high", "low", "volume")}
    read = market(LongPrices(origin=files(path), **bar))
    frame = pd.read_parquet(path)
    assert read.sizes == {"date": frame["date"].nunique(), "ticker": 505}
    for field in ("close", "volume"):
        np.testing.assert_array_equal(read[field], pivoted(frame, field))
    both = factors(
        FactorSource(
            origin=files(SHARED / "ff5_daily.parquet"),
            columns=("Mkt-RF", "SMB", "HML", "RMW", "CMA"),
            risk_free="RF",
            units="percent",
            carry_risk_free=30,
        ),
        FactorSource(origin=files(SHARED / "mom_daily.parquet"), columns=("Mom",), units="percent"),
        dates=read.indexes["date"],
    )
    assert both["risk_free"].notnull().all()
    assert both["factors"].sel(date="2017-12-29").notnull().all()
    assert both["factors"].sel(date=slice("2018-01-02", None)).count() == 0
    with pytest.raises(SourceError, match="like percent"):
        factors(FactorSource(origin=files(SHARED / "ff3_daily.parquet"), columns=("SMB",), units="decimal"))
