"""Rules of rows and summaries: each planted fault is found, clean data are left alone, and nothing looks ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import changed, scaled, simulated_market

from models import quality
from models.quality import arrays, jumps
from schemas.checks import CheckOverrides, declared

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
DAILY = {
    name: check.threshold for name, check in declared(CheckOverrides(), "daily").items() if check.threshold is not None
}
MARKET = simulated_market()
DAY, TICKER = 120, 5


def flags_of(market: xr.Dataset) -> dict[str, np.ndarray]:
    return quality.flag_rows(market, DAILY, "daily").flags


def cells(flags: np.ndarray) -> set[tuple[int, int]]:
    return {(int(row), int(column)) for row, column in np.argwhere(flags)}


def test_clean_data_are_left_alone():
    flags = flags_of(MARKET)
    assert set(flags) == {
        "nonpositive_price", "impossible_bar", "negative_volume", "stale_price", "return_bound", "lost_return",
        *jumps.RULES,
    }  # fmt: skip
    assert {name: int(found.sum()) for name, found in flags.items() if found.any()} == {}


def test_news_makes_jumps_that_turnover_confirms():
    moves = jumps.measure(quality.period_returns(MARKET), {name: array.values for name, array in MARKET.items()})
    assert (np.abs(moves.abnormal) >= 6.0 * moves.scale).sum() > 5  # there are jumps to be wrong about
    assert not moves.jump(6.0).any()


ONE, BOTH = {(DAY, TICKER)}, {(DAY, TICKER), (DAY + 1, TICKER)}
RETURNS = xr.Dataset({"returns": MARKET["close"] / MARKET["close"].shift(date=1) - 1.0})


@pytest.mark.parametrize(
    ("rule", "market", "where"),
    [
        ("impossible_bar", changed(MARKET, "high", DAY, TICKER, 1.0), ONE),
        ("impossible_bar", changed(MARKET, "low", DAY, TICKER, 999.0), ONE),
        ("nonpositive_price", changed(MARKET, "open", DAY, TICKER, 0.0), ONE),
        ("nonpositive_price", changed(MARKET, "close", DAY, TICKER, np.inf), ONE),
        ("negative_volume", changed(MARKET, "volume", DAY, TICKER, -1.0), ONE),
        ("lost_return", changed(MARKET, "close", slice(DAY - 5, DAY), TICKER, np.nan), ONE),
        ("lost_return", changed(MARKET, "close", slice(DAY, None), TICKER, 0.0), ONE),
        ("return_bound", scaled(MARKET, slice(DAY, None), TICKER, 2.3), ONE),
        ("impossible_return", changed(RETURNS, "returns", DAY, TICKER, -1.5), ONE),
        ("impossible_return", changed(RETURNS, "returns", DAY, TICKER, -np.inf), ONE),
        ("reversed_jump", scaled(MARKET, DAY, TICKER, 1.2), BOTH),
        ("reversed_jump", scaled(MARKET, slice(DAY, DAY + 4), TICKER, 0.85), {(DAY, TICKER), (DAY + 4, TICKER)}),
        ("unconfirmed_jump", scaled(MARKET, slice(DAY, None), TICKER, 0.83), ONE),
        ("split_like_jump", scaled(MARKET, slice(DAY, None), TICKER, 1.0 / 3.0), ONE),
        ("split_like_jump", scaled(MARKET, slice(DAY, None), TICKER, 10.0), ONE),
        ("split_like_jump", scaled(MARKET, slice(DAY, None), TICKER, 0.5 * 1.045), ONE),
        ("split_like_jump", scaled(MARKET, slice(5, None), TICKER, 0.5), {(5, TICKER)}),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found_where_it_is(rule, market, where):
    assert cells(flags_of(market)[rule]) == where


def bar(market: xr.Dataset, **prices: float) -> xr.Dataset:
    for name, price in prices.items():
        market = changed(market, name, DAY, TICKER, price)
    return market


@pytest.mark.parametrize(
    ("rule", "prices", "wrong"),
    [
        ("impossible_bar", {"open": 11.0, "high": 10.4, "low": 9.8, "close": 10.1}, {"open"}),
        ("impossible_bar", {"open": 9.0, "high": 10.4, "low": 9.8, "close": 10.1}, {"open"}),
        ("impossible_bar", {"open": 10.0, "high": 9.9, "low": 9.8, "close": 10.1}, {"high"}),
        ("impossible_bar", {"open": 10.0, "high": 10.4, "low": 10.2, "close": 10.1}, {"low"}),
        ("impossible_bar", {"open": 10.0, "high": 10.4, "low": 9.8, "close": 9.0}, set()),
        ("impossible_bar", {"open": 12.0, "high": 10.4, "low": 10.2, "close": 9.0}, set()),
        ("impossible_bar", {"open": np.nan, "high": 10.4, "low": 9.8, "close": 11.0}, set()),
        ("nonpositive_price", {"open": 0.0, "high": 0.0}, {"open", "high"}),
        ("nonpositive_price", {"open": 0.0, "close": 0.0}, set()),
        ("negative_volume", {"volume": -1.0}, {"volume"}),
    ],
)
def test_what_of_a_row_is_wrong_is_told_from_what_is_right(rule, prices, wrong):
    rows = quality.flag_rows(bar(MARKET, **prices), DAILY, "daily")
    assert cells(rows.flags[rule]) == ONE
    assert {name for name, at in rows.blamed[rule].items() if at[DAY, TICKER]} == wrong
    assert sum(int(at.sum()) for at in rows.blamed[rule].values()) == len(wrong)


def test_what_is_lost_over_a_halt_is_the_move_since_the_last_price():
    halted = scaled(MARKET, slice(DAY, None), TICKER, 0.5)
    halted = changed(halted, "close", slice(DAY - 5, DAY), TICKER, np.nan)
    over = quality.flag_rows(halted, DAILY, "daily").evidence["over_gap"]
    closes = halted["close"].values[:, TICKER]
    assert over[DAY, TICKER] == pytest.approx(closes[DAY] / closes[DAY - 6] - 1.0)
    assert np.isfinite(over).sum() == 1


def test_a_price_is_stale_from_the_tenth_unchanged_session_on():
    last = MARKET["close"].values[DAY, TICKER]
    stale = flags_of(changed(MARKET, "close", slice(DAY, DAY + 13), TICKER, last))["stale_price"]
    assert cells(stale) == {(DAY + 10, TICKER), (DAY + 11, TICKER), (DAY + 12, TICKER)}
    missing = changed(changed(MARKET, "close", slice(DAY, DAY + 13), TICKER, last), "close", DAY + 6, TICKER, np.nan)
    assert not flags_of(missing)["stale_price"].any()


def test_a_split_is_told_from_any_other_fall():
    assert not flags_of(scaled(MARKET, slice(DAY, None), TICKER, 0.57))["split_like_jump"].any()


def test_what_turnover_confirms_is_not_flagged():
    market = scaled(MARKET, slice(DAY, None), TICKER, 0.5)
    market["volume"][DAY, TICKER] *= 20.0
    assert not any(flags_of(market)[rule].any() for rule in jumps.RULES)


def test_a_crash_of_the_whole_market_is_no_jump():
    market = MARKET.copy(deep=True)
    for name in ("open", "high", "low", "close"):
        market[name][DAY:] *= 0.8
    assert not any(flags_of(market)[rule].any() for rule in jumps.RULES)


def test_without_opens_a_jump_must_be_undone_almost_wholly():
    closes = scaled(MARKET, DAY, TICKER, 1.2)[["close"]]
    assert cells(flags_of(closes)["reversed_jump"]) == BOTH
    half = scaled(scaled(MARKET, slice(DAY, None), TICKER, 1.2), slice(DAY + 1, None), TICKER, 0.9)
    assert cells(flags_of(half)["reversed_jump"]) == BOTH
    assert not flags_of(half[["close"]])["reversed_jump"].any()


def test_monthly_data_are_not_searched_for_jumps():
    found = quality.flag_rows(scaled(MARKET, DAY, TICKER, 1.2), DAILY, "monthly").flags
    assert not set(jumps.RULES) & set(found)


FAULTY = scaled(scaled(changed(MARKET, "low", 60, 2, 999.0), 90, 7, 0.8), slice(DAY, None), TICKER, 0.5)


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(MARKET.sizes["ticker"])))
def test_permuting_tickers_permutes_flags(order):
    before, after = flags_of(FAULTY), flags_of(FAULTY.isel(ticker=list(order)))
    for rule, flags in before.items():
        np.testing.assert_array_equal(after[rule], flags[:, list(order)], err_msg=rule)


@settings(max_examples=15, deadline=None)
@given(day=st.integers(30, MARKET.sizes["date"] - 2), seed=st.integers(0, 2**16))
def test_flags_do_not_look_ahead(day, seed):
    rng = np.random.default_rng(seed)
    other = FAULTY.copy(deep=True)
    shape = other["close"].values[day + 1 :].shape
    for name in FAULTY.data_vars:
        other[name][day + 1 :] = other[name].values[day + 1 :] * rng.uniform(0.3, 3.0, shape)
    before, after = flags_of(FAULTY), flags_of(other)
    for rule, flags in before.items():
        known = day + 1 - (jumps.LOOKAHEAD if rule == "reversed_jump" else 0)
        np.testing.assert_array_equal(after[rule][:known], flags[:known], err_msg=rule)
    summary, perturbed = (quality.by_date(m, quality.RowFlags({}, {})) for m in (FAULTY, other))
    pd.testing.assert_frame_equal(perturbed[: day + 1], summary[: day + 1])


def test_the_scale_of_a_jump_is_the_volatility_and_hardly_feels_a_jump():
    rng = np.random.default_rng(3)
    returns = np.expm1(0.02 * rng.standard_normal((400, 200)))
    jumped = returns.copy()
    jumped[300, :100] += 0.5
    scale = jumps.measure(returns, {"returns": returns}).scale[301:360]
    with_jump = jumps.measure(jumped, {"returns": jumped}).scale[301:360]
    assert np.nanmean(scale) == pytest.approx(0.02, rel=0.05)
    sample = pd.DataFrame(np.log1p(jumped)).rolling(jumps.WINDOW).std().shift(1).to_numpy()[301:360]
    bipower, plain = (np.nanmean(s[:, :100]) / np.nanmean(scale) for s in (with_jump, sample))
    assert bipower < 1.6 < 2.5 < plain


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), missing=st.floats(0.0, 1.0))
def test_quantiles_agree_with_numpy(seed, missing):
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((6, 9)) < missing, np.nan, rng.standard_normal((6, 9)))
    values[0, 0] = 1.0
    levels = (0.0, 0.1, 0.5, 0.9, 1.0)
    found = arrays.quantiles(values, levels)
    some = np.isfinite(values).any(axis=1)
    assert np.isnan(found[~some]).all()
    np.testing.assert_allclose(found[some], np.nanquantile(values[some], levels, axis=1).T, rtol=1e-12, atol=1e-14)


def test_missing_shares_count_active_tickers_only():
    market = changed(MARKET, "close", slice(40, None), slice(0, 6), np.nan)  # six are delisted
    market = changed(market, "close", 100, slice(6, 15), np.nan)  # and on one date half of the rest is missing
    table = quality.by_date(market, quality.RowFlags({}, {}))
    assert table["null_rate"][39] == 0.0
    assert table["null_rate"][40] == pytest.approx(6 / 24)
    assert table["null_rate"][70] == 0.0
    assert table["null_rate"][100] == pytest.approx(9 / 18)
    assert table["count_ratio"][100] == pytest.approx(9 / 18)
    assert np.isnan(table["count_ratio"][4])
    assert table["count_ratio"][5] == 1.0
    by_variable = quality.by_variable(changed(MARKET, "volume", slice(0, 80), slice(None), np.nan)).set_index(
        "variable"
    )
    assert by_variable["column_null_rate"].to_dict() == {"close": 0, "open": 0, "high": 0, "low": 0, "volume": 0.5}
    empty = quality.by_ticker(changed(MARKET, "close", slice(None), 3, np.nan)).set_index("ticker")["empty_ticker"]
    assert empty["T03"] == 0
    assert empty["T04"] == 160
    market = changed(market, "close", 150, 20, np.nan)  # no end: prices follow
    ends = quality.by_ticker(market).set_index("ticker")["unexplained_end"]
    assert ends.index[ends == 1].tolist() == [f"T{number:02d}" for number in range(6)]


def test_sessions_are_compared_by_day_and_months_by_month():
    days = pd.DatetimeIndex(["2024-01-02", "2024-01-03", "2024-01-05", "2024-01-06"])
    table = quality.sessions_table(days, pd.bdate_range("2024-01-01", "2024-01-31"), "daily").set_index("date")
    assert table.index[table["missing_session"] == 1].tolist() == ["2024-01-04"]
    assert table.index[table["unknown_session"] == 1].tolist() == ["2024-01-06"]
    assert quality.sessions_table(days, None, "daily")["calendar_gap"].tolist()[1:] == [1.0, 2.0, 1.0]
    months = pd.DatetimeIndex(["2024-01-01", "2024-02-29", "2024-04-15", "2024-04-30"])
    table = quality.sessions_table(months, months, "monthly").set_index("date")
    assert table.index[table["missing_session"] == 1].tolist() == ["2024-03-31"]
    assert table.index[table["unknown_session"] == 1].tolist() == ["2024-04-30"]


def simulated_cube(dates: int = 120, tickers: int = 30) -> xr.Dataset:
    rng = np.random.default_rng(11)
    shape = (dates, tickers)
    return xr.Dataset(
        {
            "returns": (("date", "ticker"), 0.02 * rng.standard_normal(shape).astype(np.float32)),
            "characteristics": (("date", "ticker", "char"), rng.normal(5.0, 1.0, (*shape, 2)).astype(np.float32)),
            "weights": (("portfolio", "date", "ticker"), np.full((1, *shape), 1.0 / tickers, dtype=np.float32)),
        },
        coords={
            "date": pd.bdate_range("2021-01-01", periods=dates).to_numpy("datetime64[ns]"),
            "ticker": [f"T{number:02d}" for number in range(tickers)],
            "char": ["beta", "size"],
            "portfolio": ["equal"],
        },
    )


def test_a_slice_is_judged_by_the_history_of_the_cube():
    cube = simulated_cube()
    whole = quality.cube_by_date(cube, None, "daily")
    ahead = cube.isel(date=slice(None, 110))  # overlaps the slice: an ingest that restates what the cube holds
    part = quality.cube_by_date(cube.isel(date=slice(100, None)), ahead, "daily")
    pd.testing.assert_frame_equal(part, whole[100:].reset_index(drop=True), rtol=1e-6)
    alone = quality.cube_by_date(cube.isel(date=slice(0, 50)), cube, "daily")  # a history that begins with the slice
    pd.testing.assert_frame_equal(alone, whole[:50], rtol=1e-6)


def test_tickers_that_were_renamed_are_not_those_of_the_cube():
    before = simulated_cube()
    names = [f"{name}.N" if place < 30 else name for place, name in enumerate(before["ticker"].values)]
    renamed = before.assign_coords(ticker=names)
    tables = quality.delivery_tables(before, renamed, renamed, "full")
    assert tables["delivery"]["known_tickers"].tolist() == [1.0 - 30 / before.sizes["ticker"]]
    assert (tables["withdrawn"]["withdrawn_row"] == 30).all()
    assert quality.delivery_tables(None, renamed, renamed, "full") == {}


def test_faults_of_a_cube_are_seen_on_their_date_and_named():
    cube = simulated_cube()
    cube["characteristics"][100, :, 1] *= 100.0
    cube["characteristics"][101, :, 0] = 5.0
    cube["characteristics"][102, :20, 1] = np.nan
    cube["characteristics"][103, 0, 0] = np.inf
    cube["returns"][104, 3] = np.inf
    cube["weights"][0, 105] *= 2.0
    cube["weights"][0, 106, 0] = np.nan
    cube["weights"][0, 107] = np.nan
    cube["returns"][108, 3:] = np.nan
    table = quality.cube_by_date(cube, None, "daily")
    calm = table[30:100]
    assert calm["characteristic_drift"].max() < 1.0
    assert calm["characteristic_spread"].min() > 0.5
    assert calm["characteristic_coverage"].min() == 1.0
    assert table["characteristic_drift"][100] > 50.0
    assert table["characteristic_drift_of"][100] == "size"
    assert table["characteristic_spread"][101] == 0.0
    assert table["characteristic_spread_of"][101] == "beta"
    assert table["characteristic_coverage"][102] == pytest.approx(1 / 3)
    assert table["characteristic_coverage_of"][102] == "size"
    assert table["infinite_value"][[103, 104, 105]].tolist() == [1, 1, 0]
    assert np.isinf(table["cube_return_bound"][104])
    assert table["weights_sum"][105] == pytest.approx(1.0, abs=1e-5)
    assert table["partial_weights"][[105, 106, 107]].tolist() == [0, 1, 0]
    assert np.isnan(table["weights_sum"][107])
    assert table["vanished_returns"][[107, 108, 109]].tolist() == [1.0, 0.1, 1.0]


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.exists(), reason="the 505-stock files are not part of the repository")
def test_known_bad_prints_are_found_unaided():
    frame = pd.read_parquet(SHARED / "sp500_5yr_daily.parquet")
    market = frame.set_index(["date", "ticker"]).to_xarray()
    suspect = market["suspect"].values == True  # noqa: E712  missing is not suspect
    market = market.drop_vars("suspect").astype(np.float64)
    flags = flags_of(market)
    assert flags["impossible_bar"].sum() == 12
    found = np.logical_or.reduce([flags[rule] for rule in jumps.RULES])
    assert suspect.sum() == 62
    assert (found & suspect).sum() >= 50
    assert found.sum() < 250
