"""What is kept of a market is enough to go on with it: nothing before its end is looked at again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models import quality
from models.blocks import Blocks
from schemas.checks import CheckOverrides, declared

DATES = pd.bdate_range("2020-01-01", periods=260)
STOCKS = 9
THRESHOLDS = {
    name: check.threshold for name, check in declared(CheckOverrides(), "daily").items() if check.threshold is not None
}


def market(seed: int, around: int) -> xr.Dataset:
    """Prices of stocks of which some jump back and forth, are away, stand still, or have wrong bars, around a date."""
    rng = np.random.default_rng(seed)
    close = 20.0 * np.exp(rng.normal(0.0, 0.015, (len(DATES), STOCKS)).cumsum(axis=0))
    for stock in range(1, 6):
        day = around + int(rng.integers(-6, 7))
        close[day : day + int(rng.integers(1, 7)), stock] *= rng.choice([0.5, 1.5, 2.0])
    close[around - 15 : around + 20, 6] = close[around - 16, 6]
    back = around + int(rng.integers(0, 5))
    close[20:back, 7] = close[30:back, 5] = np.nan
    close[29, 5] = 0.0  # the last price before it was away, and none that another one compares with
    close[around + 2 :, 8] = np.nan
    fields = {
        "open": close * 1.001,
        "high": close * 1.004,
        "low": np.where(rng.random(close.shape) < 0.01, 2.0, 0.996) * close,
        "close": close,
        "volume": rng.integers(10**5, 10**6, close.shape).astype(float),
        "delisting_return": np.where(np.isfinite(close) | (rng.random(close.shape) < 0.98), np.nan, -0.3),
    }
    labels = {"date": DATES, "ticker": [f"S{n}" for n in range(STOCKS)]}
    return xr.Dataset({name: (("date", "ticker"), values) for name, values in fields.items()}, labels)


def surveyed(part: xr.Dataset) -> quality.Survey:
    """Look at all of a market."""
    return quality.Survey.of(Blocks(part), THRESHOLDS, "daily")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), known=st.integers(160, 240))
@example(seed=0, known=200)
def test_a_market_that_goes_on_is_surveyed_by_its_end(seed: int, known: int) -> None:
    """From no further back than is asked for, with stocks in another place; and after it was kept."""
    whole = market(seed, known)
    whole = whole.where((whole["ticker"] != "S1") | (whole["date"] >= DATES[known]))
    before = whole.isel(date=slice(known)).drop_sel(ticker="S1")
    start = known - quality.looked_back(THRESHOLDS)
    kept = quality.Survey.from_arrays(*surveyed(before).arrays())
    end = Blocks(whole.isel(date=slice(start, None)))
    found, said = kept.followed_by(end, THRESHOLDS, "daily", quality.Followed(start, known)).arrays()
    expected, named = surveyed(whole).arrays()
    assert said == named
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_stocks_without_a_row_may_be_left_out() -> None:
    whole = market(1, 200)
    empty = xr.full_like(whole.isel(ticker=[0]), np.nan).assign_coords(ticker=["R"])
    found = surveyed(xr.concat([empty, whole], "ticker")).among(quality.labels(whole["ticker"]))
    assert found is not None
    for name, array in surveyed(whole).arrays()[0].items():
        np.testing.assert_array_equal(found.arrays()[0][name], array, err_msg=name)
    assert found.among(np.array(["S0"])) is None
    assert found.among(np.array(["S0", "Q"])) is None
