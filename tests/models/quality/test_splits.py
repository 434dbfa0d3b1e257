"""The repair of splits: the right ratio, what stays alone, and the same numbers whatever the data begin or end with."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import changed, scaled, simulated_market

from models import quality
from models.characteristics.registry import compute

MARKET = simulated_market().assign(shares=xr.full_like(simulated_market()["close"], 1e7))
DAY, TICKER = 120, 5
SIGMAS = 6.0
SCALE_FREE = ["dolvol", "std_dolvol", "ill", "baspread", "mvel1", "turn", "std_turn", "zerotrade"]


def split(market: xr.Dataset, day: int, ticker: int, ratio: float, move: float = 0.0) -> xr.Dataset:
    """Split shares on a day on which the price moves besides, overnight."""
    out = scaled(market, slice(day, None), ticker, np.exp(move) / ratio)
    for name in ("volume", "shares"):
        out[name][day:, ticker] = out[name][day:, ticker] * ratio
    return out


def listed(splits: pd.DataFrame) -> list[tuple[str, float]]:
    return list(zip(splits["ticker"], splits["ratio"], strict=True))


@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0, 7.0, 20.0, 1.0 / 10.0])
@pytest.mark.parametrize(
    "fields", [["close"], ["close", "volume"], ["open", "high", "low", "close", "volume", "shares"]]
)
def test_prices_and_shares_are_put_on_one_footing(ratio, fields):
    market = split(MARKET, DAY, TICKER, ratio, move=0.044)[fields]
    splits = quality.propose_splits(market, SIGMAS)
    assert listed(splits) == [("T05", ratio)]
    assert splits["date"][0] == MARKET.indexes["date"][DAY]
    adjusted = quality.adjust_splits(market, splits)
    plain = scaled(MARKET, slice(DAY, None), TICKER, np.exp(0.044))[fields]
    xr.testing.assert_allclose(adjusted.drop_vars("split_ratio"), plain, rtol=1e-12)
    assert float(adjusted["split_ratio"][DAY, TICKER]) == ratio
    assert int(adjusted["split_ratio"].notnull().sum()) == 1
    assert splits["rest"][0] == pytest.approx(splits["move"][0] + np.log(ratio))


def test_what_is_no_split_and_what_is_undecided_stays():
    market = scaled(MARKET, slice(DAY, None), TICKER, 0.57)
    assert quality.propose_splits(market, SIGMAS).empty
    news = split(MARKET, DAY, TICKER, 2.0)
    news["volume"][DAY, TICKER] *= 20.0
    assert quality.propose_splits(news, SIGMAS).empty
    between = scaled(MARKET, slice(DAY, None), TICKER, 1.0 / np.sqrt(7.0 * 8.0))
    wild = between[["close"]] * np.exp(0.02 * np.random.default_rng(1).standard_normal(between["close"].shape))
    assert quality.propose_splits(wild, SIGMAS).empty
    assert quality.flag_rows(wild, _thresholds(), "daily").flags["split_like_jump"][DAY, TICKER]


def _thresholds() -> dict[str, float]:
    from schemas.checks import CheckOverrides, declared

    checks = declared(CheckOverrides(), "daily")
    return {name: check.threshold for name, check in checks.items() if check.threshold is not None}


def test_a_split_behind_a_halt_and_a_print_off_by_a_ratio_are_repaired():
    halted = changed(split(MARKET, DAY, TICKER, 2.0), "close", slice(DAY - 3, DAY), TICKER, np.nan)
    assert listed(quality.propose_splits(halted, SIGMAS)) == [("T05", 2.0)]
    printed = scaled(MARKET, DAY, TICKER, 0.5)
    splits = quality.propose_splits(printed, SIGMAS)
    assert listed(splits) == [("T05", 2.0), ("T05", 0.5)]
    adjusted = quality.adjust_splits(printed, splits)
    np.testing.assert_allclose(adjusted["close"], MARKET["close"], rtol=1e-12)


@settings(max_examples=10, deadline=None)
@given(
    first=st.integers(0, DAY - 1), last=st.integers(DAY, MARKET.sizes["date"]), ratio=st.sampled_from([1.5, 2.0, 0.1])
)
def test_a_part_of_the_data_is_adjusted_as_the_whole_is(first, last, ratio):
    """Deliveries that begin before or after another split, and end at any time, agree on every return."""
    market = split(split(MARKET, DAY, TICKER, ratio), 80, 2, 3.0)
    whole = quality.adjust_splits(market, quality.propose_splits(market, SIGMAS))
    part = market.isel(date=slice(first, last))
    part = quality.adjust_splits(part, quality.propose_splits(part, SIGMAS))
    returns, found = quality.period_returns(whole), quality.period_returns(part)
    np.testing.assert_allclose(found[1:], returns[first + 1 : last], rtol=1e-12, atol=1e-14)
    known = whole.assign(returns=(("date", "ticker"), returns))
    values = compute(known, SCALE_FREE).values[first:last]
    again = compute(part.assign(returns=(("date", "ticker"), found)), SCALE_FREE).values
    both = np.isfinite(again) & (np.arange(last - first) >= 63)[:, None, None]  # with enough to look back on
    np.testing.assert_allclose(again[both], values[both], rtol=2e-5, atol=1e-12)
