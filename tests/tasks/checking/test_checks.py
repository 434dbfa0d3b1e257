"""Declared checks as an operation: each consequence follows from its planted fault, and clean data pass everything."""

from __future__ import annotations

import html
import re
from datetime import date
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markets import changed, scaled, simulated_market

from models import quality
from schemas.checks import CHECKS, MAX_FLAGGED_ROWS, CheckOverrides, CheckReport, declared
from schemas.errors import CheckError, ConfigError, DataError
from tasks.checking import apply_quarantine, check_derived, check_market, estimation_exclusions, merge

MARKET = simulated_market()
SESSIONS = pd.bdate_range("2019-12-01", "2020-12-31")
NONE = CheckOverrides()
DAY, TICKER = 120, 5


def check(market: xr.Dataset, overrides: CheckOverrides = NONE, **options) -> CheckReport:
    report, _ = check_market(
        market, **{"sessions": SESSIONS, "frequency": "daily", "data_docs": None, **options}, overrides=overrides
    )
    return report


def override(**overrides) -> CheckOverrides:
    return CheckOverrides.parse({"overrides": overrides}, origin="a test")


def failed(report: CheckReport) -> dict[str, tuple[str, str]]:
    return {result.check: (result.severity, result.scope) for result in report.failed}


def day(number: int) -> date:
    return pd.DatetimeIndex(MARKET["date"].values)[number].date()


def cube_of(market: xr.Dataset) -> xr.Dataset:
    returns = (market["close"] / market["close"].shift(date=1) - 1.0).astype(np.float32)
    chars = xr.concat([market["close"], market["volume"]], pd.Index(["price", "volume"], name="char"))
    held = returns.notnull()
    weights = (held / held.sum("ticker")).where(held.any("ticker")).expand_dims(portfolio=["equal"])
    cube = xr.Dataset({"returns": returns, "characteristics": chars.astype(np.float32), "weights": weights})
    cube["estimation"], cube["industry"] = held, xr.zeros_like(held, dtype=np.int16)
    return cube.transpose("portfolio", "date", "ticker", "char")


def test_clean_data_pass_every_check_there_is():
    reports = [
        check(MARKET, delivery=quality.delivery_tables(MARKET, MARKET, MARKET, "full")),
        check(MARKET.assign(split_ratio=xr.full_like(MARKET["close"], np.nan)), sessions=None),
        check(MARKET[["close"]].assign(returns=MARKET["close"] / MARKET["close"].shift(date=1) - 1.0)),
        check_derived(cube_of(MARKET), previous=cube_of(MARKET), overrides=NONE, data_docs=None),
    ]
    report = merge(reports)
    assert failed(report) == {}
    assert {result.check for result in report.results} == {check.name for check in CHECKS}
    assert report.flagged_count == 0
    assert not report.blocked_ingest


def test_names_are_unique():
    assert len({check.name for check in CHECKS}) == len(CHECKS)


MISSING = changed(MARKET, "close", DAY, slice(0, 14), np.nan)
RETURNS = xr.Dataset({"returns": MARKET["close"] / MARKET["close"].shift(date=1) - 1.0})
SPLIT = MARKET.assign(split_ratio=xr.full_like(MARKET["close"], np.nan))
SPLIT["split_ratio"][DAY, TICKER] = 1.5
LATER = MARKET.assign_coords(date=MARKET["date"] + np.timedelta64(1, "h"))


@pytest.mark.parametrize(
    ("name", "consequence", "market"),
    [
        ("layout", ("block", "ingest"), MARKET.assign(close=MARKET["close"].astype(str))),
        ("layout", ("block", "ingest"), MARKET.transpose("ticker", "date")),
        ("layout", ("block", "ingest"), MARKET.assign(volume=MARKET["volume"].astype(np.int64))),
        ("duplicate_key", ("block", "ingest"), xr.concat([MARKET, MARKET.isel(date=[-1])], "date")),
        ("duplicate_key", ("block", "ingest"), xr.concat([MARKET, MARKET.isel(ticker=[-1])], "ticker")),
        ("unsorted_key", ("block", "ingest"), MARKET.isel(ticker=slice(None, None, -1))),
        ("unsorted_key", ("block", "ingest"), MARKET.isel(date=[0, 2, 1])),
        ("bad_key", ("block", "ingest"), LATER),
        ("bad_key", ("block", "ingest"), MARKET.assign_coords(ticker=[" ", *MARKET["ticker"].values[1:]])),
        ("unknown_session", ("block", "ingest"), MARKET.assign_coords(date=MARKET["date"] + np.timedelta64(4, "D"))),
        ("priced", ("block", "ingest"), MARKET[["volume"]]),
        ("return_unit", ("block", "ingest"), RETURNS * 100.0),
        ("quarantined_share", ("block", "ingest"), changed(MARKET, "low", slice(0, 40), slice(0, 10), 1e9)),
        ("missing_session", ("warn", "date"), MARKET.drop_isel(date=[DAY])),
        ("null_rate", ("block", "date"), MISSING),
        ("count_ratio", ("block", "date"), MISSING),
        ("field_null_rate", ("warn", "date"), changed(MARKET, "open", DAY, slice(0, 14), np.nan)),
        ("column_null_rate", ("warn", "ingest"), changed(MARKET, "volume", slice(0, 60), slice(None), np.nan)),
        ("empty_ticker", ("warn", "ingest"), changed(MARKET, "close", slice(None), TICKER, np.nan)),
        ("unexplained_end", ("warn", "ingest"), changed(MARKET, "close", slice(DAY, None), TICKER, np.nan)),
        ("lost_return", ("warn", "row"), changed(MARKET, "close", slice(DAY - 5, DAY), TICKER, np.nan)),
        ("adjusted_split", ("warn", "date"), SPLIT),
        ("impossible_bar", ("block", "row"), changed(MARKET, "high", DAY, TICKER, 1.0)),
        ("nonpositive_price", ("block", "row"), changed(MARKET, "close", DAY, TICKER, 0.0)),
        ("negative_volume", ("block", "row"), changed(MARKET, "volume", DAY, TICKER, -1.0)),
        ("stale_price", ("warn", "row"), changed(MARKET, "close", slice(DAY, None), TICKER, 50.0)),
        ("impossible_return", ("block", "row"), changed(RETURNS, "returns", DAY, TICKER, -1.2)),
        ("return_bound", ("warn", "row"), changed(RETURNS, "returns", DAY, TICKER, 1.2)),
        ("reversed_jump", ("warn", "row"), scaled(MARKET, DAY, TICKER, 1.2)),
        ("unconfirmed_jump", ("warn", "row"), scaled(MARKET, slice(DAY, None), TICKER, 0.8)),
        ("split_like_jump", ("warn", "row"), scaled(MARKET, slice(DAY, None), TICKER, 0.5)),
    ],
)  # fmt: skip
def test_a_planted_fault_has_its_declared_consequence(name, consequence, market):
    report = check(market)
    assert failed(report)[name] == consequence
    assert report.blocked_ingest == (consequence == ("block", "ingest"))
    assert bool(report.blocked_dates) == (consequence == ("block", "date"))
    if consequence[1] == "row":
        where = day(DAY + 10 if name == "stale_price" else DAY)
        assert (where, f"T{TICKER:02d}", name) in {(row.date, row.ticker, row.check) for row in report.flagged_rows}


def test_many_jumps_on_one_date_and_gaps_are_told():
    bad_day = MARKET
    for ticker in range(6):
        bad_day = scaled(bad_day, DAY, ticker, 1.2)
    assert failed(check(bad_day))["jump_cluster"] == ("warn", "date")
    gap = check(MARKET.drop_isel(date=range(100, 110)), sessions=None)
    assert failed(gap) == {"calendar_gap": ("warn", "date")}


@pytest.mark.parametrize(
    ("name", "consequence", "where", "value"),
    [
        ("infinite_value", ("block", "ingest"), ("returns", (DAY, 0)), np.inf),
        ("unknown_industry", ("warn", "date"), ("industry", (DAY, slice(0, 6))), -1),
        ("infinite_value", ("block", "ingest"), ("characteristics", (DAY, 0, 0)), -np.inf),
        ("partial_weights", ("block", "ingest"), ("weights", (0, DAY, 0)), np.nan),
        ("weights_sum", ("block", "ingest"), ("weights", (0, DAY, 0)), 0.3),
        ("cube_return_bound", ("warn", "date"), ("returns", (DAY, 0)), 3.0),
        ("characteristic_coverage", ("warn", "date"), ("characteristics", (DAY, slice(0, 20), 0)), np.nan),
        ("characteristic_drift", ("warn", "date"), ("characteristics", (DAY, slice(None), 0)), 1e5),
        ("characteristic_spread", ("warn", "date"), ("characteristics", (DAY, slice(None), 0)), 50.0),
    ],
)
def test_a_fault_of_what_is_written_has_its_declared_consequence(name, consequence, where, value):
    cube = cube_of(MARKET)
    variable, place = where
    cube[variable][place] = value
    past, now = cube.isel(date=slice(None, DAY)), cube.isel(date=slice(DAY, DAY + 1))
    report = check_derived(now, previous=past, overrides=NONE, data_docs=None)
    assert failed(report)[name] == consequence
    assert report.blocked_ingest == (consequence[0] == "block")


def test_returns_that_vanish_are_told_though_prices_are_there():
    cube = cube_of(MARKET)
    cube["returns"][DAY, 11:] = np.nan
    assert failed(check_derived(cube, previous=None, overrides=NONE, data_docs=None)) == {
        "vanished_returns": ("warn", "date")
    }


def test_overrides_change_thresholds_and_severities():
    market = scaled(MARKET, slice(DAY, None), TICKER, 0.8)
    assert failed(check(market)) == {"unconfirmed_jump": ("warn", "row")}
    assert failed(check(market, override(unconfirmed_jump={"threshold": 1000.0}))) == {}
    report = check(market, override(unconfirmed_jump={"severity": "block"}))
    assert failed(report) == {"unconfirmed_jump": ("block", "row")}
    clean, _ = apply_quarantine(market, report)
    assert np.isnan(clean["close"].values[DAY, TICKER])
    assert declared(NONE, "monthly")["return_bound"].threshold == 5.0
    assert declared(override(return_bound={"threshold": 2.0}), "monthly")["return_bound"].threshold == 2.0


def test_wrong_overrides_are_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"there is no check 'stale_prise'.*did you mean 'stale_price'"):
        override(stale_prise={"threshold": 3.0})
    with pytest.raises(ConfigError, match="'layout' has no threshold"):
        override(layout={"threshold": 3.0})
    with pytest.raises(ConfigError, match="severity"):
        override(stale_price={"severity": "ignore"})


def test_nothing_to_check_is_an_error():
    with pytest.raises(DataError, match="no dates"):
        check(MARKET.isel(date=[]))


def test_quarantine_takes_out_what_is_blocked_and_nothing_else():
    market = changed(changed(MISSING, "low", 30, 3, 999.0), "volume", 30, 3, -1.0)
    market = changed(market, "close", 31, 4, 0.0)
    market = scaled(market, slice(80, None), 2, 0.8).assign(member=(("date", "ticker"), np.ones((160, 24), dtype=bool)))
    report = CheckReport.model_validate_json(check(market.drop_vars("member")).model_dump_json())
    clean, quarantined = apply_quarantine(market, report)
    assert report.blocked_dates == (day(DAY),)
    assert day(DAY) not in set(pd.DatetimeIndex(clean["date"].values).date)
    assert clean.sizes == {"date": 159, "ticker": 24}
    kept = market.drop_isel(date=[DAY])
    for name in ("open", "high", "low", "close", "volume"):
        expected = kept[name].values.copy()
        expected[31, 4] = np.nan
        if name in {"low", "volume"}:
            expected[30, 3] = np.nan
        np.testing.assert_array_equal(clean[name].values, expected)
    assert clean["member"].dtype == bool
    assert np.argwhere(~clean["member"].values).tolist() == [[31, 4]]
    rows = quarantined.set_index(["date", "ticker"])
    first, second = rows.loc[(pd.Timestamp(day(30)), "T03")], rows.loc[(pd.Timestamp(day(31)), "T04")]
    assert first["checks"] == "impossible_bar, negative_volume"
    assert first["taken_out"] == "low, volume"
    assert first["low"] == 999.0
    assert (second["checks"], second["taken_out"]) == ("nonpositive_price", "all")
    details = {(row.ticker, row.check): row.detail for row in report.flagged_rows}
    assert details["T03", "impossible_bar"].startswith("low wrong: return ")
    assert (rows["checks"] == "date").sum() == 24
    for data in (market, clean):
        excluded = estimation_exclusions(data, report)
        assert excluded.dims == ("date", "ticker")
        assert np.argwhere(excluded.values).tolist() == [[80, 2]], "nor is a return suspected that is lost over a gap"


def test_without_a_calendar_rows_are_judged_as_if_a_stray_date_were_not_there():
    monday = 118
    split = scaled(MARKET, slice(monday, None), TICKER, 0.5)
    saturday = split.isel(date=[monday]).assign_coords(date=[np.datetime64("2020-06-13", "ns")])
    market = xr.concat([split, changed(saturday, "close", 0, slice(3, None), np.nan)], "date").sortby("date")
    report = check(market, sessions=None)
    assert report.blocked_dates == (date(2020, 6, 13),)
    assert set(failed(report)) == {"null_rate", "count_ratio", "unconfirmed_jump", "split_like_jump"}
    assert {(row.date, row.ticker) for row in report.flagged_rows} == {(day(monday), f"T{TICKER:02d}")}


def test_a_delisting_return_survives_the_wrong_price_beside_it():
    paid = xr.full_like(MARKET["close"], np.nan)
    paid[DAY, TICKER], paid[DAY, TICKER + 1] = -1.0, -1.2
    ended = changed(MARKET, "close", slice(DAY + 1, None), TICKER, np.nan)
    market = changed(ended, "close", DAY, TICKER, 0.0).assign(delisting_return=paid)
    report = check(market)
    assert set(failed(report)) == {"nonpositive_price", "impossible_return"}  # the end is explained, and nothing lost
    clean, quarantined = apply_quarantine(market, report)
    assert clean["delisting_return"].values[DAY, TICKER] == -1.0
    assert np.isnan(clean["close"].values[DAY, TICKER])
    assert np.isnan(clean["delisting_return"].values[DAY, TICKER + 1])
    assert np.isfinite(clean["close"].values[DAY, TICKER + 1])
    assert quarantined["taken_out"].tolist() == ["all", "delisting_return"]
    worthless = check(market.drop_vars("delisting_return"))
    assert set(failed(worthless)) == {"nonpositive_price", "lost_return", "unexplained_end"}
    observed = {result.check: result.observed for result in worthless.failed}
    assert observed["lost_return"] == f"1 row on 1 of 160 dates, the largest -100.0% ({day(DAY)})"
    assert "over_gap -1," in next(row.detail for row in worthless.flagged_rows if row.check == "lost_return")


def test_a_blocked_ingest_cannot_be_quarantined():
    report = check(MARKET.transpose("ticker", "date"))
    assert {result.suite for result in report.results} == {"schema", "keys"}
    with pytest.raises(CheckError, match="layout"):
        apply_quarantine(MARKET, report)


def test_a_report_describes_the_first_rows_and_names_all():
    many = changed(simulated_market(dates=700), "close", slice(100, None), slice(0, 20), 50.0)
    report = check(many, sessions=None)
    assert len(report.flagged_rows) == MAX_FLAGGED_ROWS
    assert report.flagged_count > MAX_FLAGGED_ROWS
    flags = quality.flag_rows(many, {n: c.threshold or 0.0 for n, c in declared(NONE, "daily").items()}, "daily").flags
    expected = np.logical_or.reduce([flags[item.check] for item in report.flagged_cells if item.severity == "warn"])
    np.testing.assert_array_equal(estimation_exclusions(many, report).values, expected)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**16), missing=st.floats(0.0, 1.0))
def test_great_expectations_says_what_plain_comparison_says(seed, missing):
    from tasks.checking.expectations import validate

    rng = np.random.default_rng(seed)
    checks = declared(NONE, "daily")
    chosen = [checks[name] for name in ("null_rate", "count_ratio", "impossible_bar")]
    labels = pd.date_range("2020-01-01", periods=30).strftime("%Y-%m-%d").to_numpy(dtype=object)
    table = pd.DataFrame({"date": labels})
    for item in chosen:
        table[item.name] = np.where(rng.random(30) < missing, np.nan, rng.choice([0.0, 0.4, 0.5, 0.6, 2.0], 30))
    (missing_suite, prices) = validate({"dates": table}, chosen)
    null_rate, count_ratio = missing_suite.outcomes
    (impossible_bar,) = prices.outcomes
    assert list(null_rate.failing) == labels[table["null_rate"] > 0.5].tolist()
    assert list(count_ratio.failing) == labels[table["count_ratio"] < 0.5].tolist()
    assert list(impossible_bar.failing) == labels[table["impossible_bar"] > 0.0].tolist()


def test_a_check_that_cannot_be_evaluated_is_no_pass():
    from tasks.checking.expectations import validate

    table = pd.DataFrame({"date": ["2020-01-01"], "null_rate": ["text"]})
    with pytest.raises(CheckError, match="'null_rate' could not be evaluated"):
        validate({"dates": table}, [declared(NONE, "daily")["null_rate"]])


class _Page(HTMLParser):
    """Tags and the attributes that name something to load or go to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.targets: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.targets |= {value or "" for name, value in attrs if name in {"href", "src", "srcset", "action"}}
        assert not any(name.startswith("on") for name, _ in attrs)


def test_data_docs_are_complete_offline_and_escape_what_comes_from_data(tmp_path):
    nasty = "<script>alert(1)</script>${x}{{7*7}}"
    tickers = sorted([nasty, "<img src=x onerror=alert(2)>", *MARKET["ticker"].values[2:]])
    place = tickers.index(nasty)
    market = MARKET.assign_coords(ticker=tickers)
    market = changed(changed(market, "close", slice(None), 0, np.nan), "high", DAY, place, 1.0)
    report = check(market, data_docs=tmp_path / "docs")
    cube = cube_of(MARKET)
    late = check_derived(cube, previous=None, overrides=NONE, data_docs=tmp_path / "docs")
    twice = check(xr.concat([market, market.isel(ticker=[0, place])], "ticker"), data_docs=tmp_path / "twice")
    assert failed(twice)["duplicate_key"] == ("block", "ingest")
    assert merge([report, late]).data_docs == str(tmp_path / "docs" / "index.html")
    pages = sorted(tmp_path.glob("*/*.html"))
    assert len(pages) == 14
    for file in pages:
        text = file.read_text(encoding="utf-8")
        page = _Page(text)
        assert {"script", "link", "img", "iframe"} & page.tags == set(), file
        assert re.findall(r"https?:", text) == []
        assert "default-src 'none'" in text
        assert "<style>" in text
        for target in page.targets - {""}:
            assert target.startswith("#") or (file.parent / target).exists(), (file, target)
        assert "values must be" not in text
    prices = (tmp_path / "docs" / "market-prices.html").read_text(encoding="utf-8")
    (bar,) = [result for result in report.results if result.check == "impossible_bar"]
    shown = [bar.expected, bar.observed, "what fails is quarantined", str(MARKET.indexes["date"][DAY].date())]
    assert [text for text in shown if html.escape(text) not in prices] == []
    index = (tmp_path / "docs" / "index.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;${x}{{7*7}}" in index
    assert all(result.check in index for result in (*report.results, *late.results))
    check(MARKET, data_docs=tmp_path / "docs")
    again = (tmp_path / "docs" / "index.html").read_text(encoding="utf-8")
    assert "alert(1)" not in again
    assert "weights_sum" not in again


def test_great_expectations_is_quiet(capfd, caplog, tmp_path):
    check(MARKET, data_docs=tmp_path)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    assert caplog.records == []


def test_the_packaged_universes_pass_without_a_block():
    from linearmodels.datasets import french
    from skfolio.datasets import load_sp500_dataset

    prices = load_sp500_dataset().sort_index(axis=1)
    closes = xr.Dataset(
        {"close": (("date", "ticker"), prices.to_numpy(dtype=np.float64))},
        coords={"date": prices.index.to_numpy("datetime64[ns]"), "ticker": prices.columns.to_numpy(dtype=str)},
    )
    report = check(closes, sessions=None)
    assert not report.blocked_ingest
    assert report.blocked_dates == ()
    assert {item.severity for item in report.flagged_cells} == {"warn"}
    assert report.flagged_count < 0.003 * closes["close"].size

    frame = french.load()
    names = sorted(set(frame.columns) - {"dates", "MktRF", "SMB", "HML", "Mom", "RF"})
    monthly = xr.Dataset(
        {"returns": (("date", "ticker"), frame[names].to_numpy(dtype=np.float64))},
        coords={"date": pd.DatetimeIndex(frame["dates"]).to_numpy("datetime64[ns]"), "ticker": np.array(names)},
    )
    months = pd.date_range("1949-01-01", "2017-03-31", freq="ME")
    assert failed(check(monthly, sessions=months, frequency="monthly")) == {}
