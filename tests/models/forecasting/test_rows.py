"""Imputed loadings: who gets them, and that they are the mean of the stocks that have their own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models.forecasting.rows import impute

TICKERS = ["A", "B", "C", "new", "partly", "absent", "long", "short"]


def cross_section() -> tuple[xr.DataArray, xr.Dataset]:
    """Return loadings of A, B and C on three dates (nobody's on the second), and who is traded or held besides."""
    nan = np.nan
    first = [[1.0, 0.0], [2.0, 4.0], [6.0, 5.0], [nan, nan], [9.0, nan], [nan, nan], [nan, nan], [nan, nan]]
    loadings = np.array([first, np.full((8, 2), nan), first], dtype=np.float32)
    loadings[2, 2] = nan
    coords = {"date": pd.bdate_range("2020-01-01", periods=3), "ticker": TICKERS}
    estimation = np.tile([True, True, True, True, True, False, False, False], (3, 1))
    weights = np.zeros((2, 3, 8), dtype=np.float32)
    weights[0, :, 6], weights[1, :, 7] = 0.5, -0.5
    held = xr.Dataset(
        {
            "estimation": (("date", "ticker"), estimation),
            "weights": (("portfolio", "date", "ticker"), weights),
        },
        coords,
    )
    return xr.DataArray(loadings, {**coords, "factor": ["f", "g"]}, ("date", "ticker", "factor")), held


def test_who_is_traded_or_held_without_loadings_gets_the_mean_of_those_who_have_all_of_theirs() -> None:
    loadings, held = cross_section()
    filled, imputed = impute(loadings, held)
    given = {date: [*imputed["ticker"].values[imputed.values[date]]] for date in range(3)}
    assert given == {0: ["new", "partly", "long", "short"], 1: [], 2: ["C", "new", "partly", "long", "short"]}
    for date, mean in ((0, [3.0, 3.0]), (2, [1.5, 2.0])):  # not the median, nor what is known of "partly"
        np.testing.assert_array_equal(filled[date].sel(ticker=given[date]), [mean] * len(given[date]))
        own = [ticker for ticker in TICKERS if ticker not in given[date]]
        np.testing.assert_array_equal(filled[date].sel(ticker=own), loadings[date].sel(ticker=own))
    np.testing.assert_array_equal(filled[1], loadings[1], "a date without a stock that has loadings")
    assert filled.dtype == np.float32


def test_a_portfolio_that_is_not_defined_on_a_date_holds_nobody() -> None:
    loadings, held = cross_section()
    held["weights"][:, 0] = np.nan
    _, imputed = impute(loadings, held)
    assert [*imputed["ticker"].values[imputed.values[0]]] == ["new", "partly"]


@pytest.mark.parametrize("order", [("ticker", "date", "factor"), ("factor", "ticker", "date")])
def test_the_order_of_dimensions_does_not_matter(order: tuple[str, ...]) -> None:
    loadings, held = cross_section()
    straight, flags = impute(loadings, held)
    turned, same = impute(loadings.transpose(*order), held.transpose("ticker", "date", "portfolio"))
    xr.testing.assert_identical(turned.transpose(*straight.dims), straight)
    xr.testing.assert_identical(same.transpose(*flags.dims), flags)
