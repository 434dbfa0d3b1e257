"""Holdings of some dates as weights on all: values, shares, drift, and what the universe does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models.portfolios.holdings import held_between, priced, unknown_shares, weights_of_values
from schemas.errors import DataError

DATES = pd.bdate_range("2024-01-01", periods=6)
TICKERS = ["A", "B", "C"]
RETURNS = xr.DataArray(
    [[0.5, 0.5, 0.5], [0.1, 0.0, 0.0], [0.0, np.nan, -0.2], [0.1, 0.1, 0.1], [0.0, 0.3, 0.0], [0.2, 0.0, 0.0]],
    {"date": DATES, "ticker": TICKERS},
    ("date", "ticker"),
)
COVERAGE = xr.ones_like(RETURNS, dtype=np.bool_)
FIRST, LATER = DATES[0], DATES[3]


def held(dated: dict[pd.Timestamp, dict[str, float]], coverage: xr.DataArray = COVERAGE, **options: Any) -> np.ndarray:
    return held_between(dated, RETURNS, coverage, "book", **options).values


def test_positions_drift_from_the_close_of_their_date_until_the_next_and_cash_does_not() -> None:
    found = held({FIRST: {"A": 0.5, "C": 0.3}, LATER: {"B": 1.0}})
    value = np.array([[0.5, 0.0, 0.3], [0.55, 0.0, 0.3], [0.55, 0.0, 0.24]])  # the return of the first date came before
    np.testing.assert_allclose(found[:3], value / (value.sum(axis=1, keepdims=True) + 0.2), rtol=1e-6)
    np.testing.assert_array_equal(found[3:], [[0.0, 1.0, 0.0]] * 3)
    fixed = held({FIRST: {"A": 0.5, "C": 0.3}}, rebalanced=True)
    np.testing.assert_allclose(fixed, [[0.5, 0.0, 0.3]] * 6, rtol=1e-6)
    weekend = held({FIRST + pd.Timedelta(days=5): {"A": 1.0}, FIRST + pd.Timedelta(days=6): {"B": 1.0}})
    assert np.isnan(weekend[:5]).all()
    np.testing.assert_array_equal(weekend[5], [0.0, 1.0, 0.0])


def test_what_is_not_covered_is_made_up_for_by_its_side_and_moves_nothing() -> None:
    dated = {FIRST: {"A": 0.6, "B": 0.3, "GONE": 0.1, "C": -0.2}}
    found = held(dated, max_uncovered=0.1)
    np.testing.assert_allclose(found[0], [0.6 / 0.9, 0.3 / 0.9, -0.2], rtol=1e-6)
    bare = COVERAGE.copy()
    bare[2:, 1] = False
    wild = RETURNS.copy()
    wild[2:, 1] = np.nan
    after = held_between(dated, wild, bare, "book", max_uncovered=0.1).values
    assert (after[2:, 1] == 0.0).all()
    np.testing.assert_allclose(after.sum(axis=1), held(dated, max_uncovered=0.1).sum(axis=1), atol=0.05)
    assert unknown_shares(dated, pd.Index(TICKERS)).to_dict() == pytest.approx({"GONE": 0.1 / 1.2})


def test_shares_are_priced_at_the_close_of_their_date_and_values_are_over_their_sum() -> None:
    close = 10.0 * (1.0 + RETURNS.fillna(0.0)).cumprod("date")
    dated = priced({DATES[1]: {"A": 10, "B": 20}, DATES[-1] + pd.Timedelta(days=1): {"A": 1}}, close, "book")
    assert [*dated] == [DATES[1]], "what is held after the last date has no price yet"
    assert dated[DATES[1]] == pytest.approx({"A": 11 / 31, "B": 20 / 31})
    shares = close * xr.DataArray([10.0, 20.0, 0.0], dims="ticker")
    drifted = held_between(dated, RETURNS, COVERAGE, "book").sel(date=DATES[1:])
    np.testing.assert_allclose(drifted, (shares / shares.sum("ticker")).sel(date=DATES[1:]), rtol=1e-6)
    assert weights_of_values(pd.Series({"A": 3e6, "B": -1e6}), "book").to_dict() == {"A": 1.5, "B": -0.5}


def test_a_mistake_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"'book' on 2024-01-01: 25.0% of its gross weight .*\(GONE\), more than"):
        held({FIRST: {"A": 0.75, "GONE": 0.25}})
    with pytest.raises(DataError, match="no holdings on or before the last date"):
        held({DATES[-1] + pd.Timedelta(days=1): {"A": 1.0}})
    with pytest.raises(DataError, match="lost all of its capital by 2024-01-02"):
        held({FIRST: {"A": -12.0}})
    with pytest.raises(DataError, match="the universe has no prices; give values or weights"):
        priced({FIRST: {"A": 1.0}}, None, "book")
    with pytest.raises(DataError, match="shares of GONE on 2024-01-01, which has no price"):
        priced({FIRST: {"A": 1.0, "GONE": 1.0}}, RETURNS, "book")
    with pytest.raises(DataError, match="no size to take weights of"):
        weights_of_values(pd.Series({"A": 1.0, "B": -1.0}), "book")
