"""Imputed loadings: who gets them, whose mean they are. Scores: by which returns forecasts are judged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from masking import ABSURD

from models.forecasting.held import counted, holdings
from models.forecasting.metrics import metrics_of
from models.forecasting.rows import FORECASTS, impute, scored

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


def judged_market() -> tuple[xr.Dataset, xr.DataArray, xr.Dataset]:
    """Return rows of a version that holds forty stocks alike, returns, and holdings with nothing suspected."""
    rng = np.random.default_rng(4)
    coords = {"date": pd.bdate_range("2020-01-01", periods=30), "ticker": [f"S{i:02d}" for i in range(40)]}
    of_stocks, values = ("date", "ticker"), rng.normal(0.0, 0.01, (30, 40))
    rows = xr.Dataset(
        {
            "loadings": (("date", "ticker", "factor"), np.ones((30, 40, 1), dtype=np.float32)),
            "factor_returns": (("date", "factor"), values.mean(axis=1, keepdims=True)),
            "omega": (("date", "factor", "factor_"), np.full((30, 1, 1), 1e-6)),
            "specific_variance": (of_stocks, np.full((30, 40), 1e-4, dtype=np.float32)),
            "expected_returns": (of_stocks, np.zeros((30, 40), dtype=np.float32)),
            "weights": (("portfolio", *of_stocks), np.full((1, 30, 40), 1 / 40, dtype=np.float32)),
            "portfolio_variance": (("portfolio", "date"), np.full((1, 30), 1e-4 / 40)),
            "out_of_sample": ("date", np.ones(30, dtype=np.bool_)),
        },
        {**coords, "factor": ["market"], "factor_": ["market"], "portfolio": ["all"]},
    )
    returns = xr.DataArray(values.astype(np.float32), coords, of_stocks)
    no = xr.zeros_like(returns, dtype=np.bool_)
    return rows, returns, holdings(rows.assign(estimation=~no)[["weights", "estimation"]])


def test_a_crash_that_is_suspected_counts_beside_numbers_without_it_and_a_refuted_one_nowhere() -> None:
    rows, returns, held = judged_market()
    crash, undone = (10, 3), (20, 5)
    returns.values[crash], returns.values[undone] = -0.6, 90.0
    for cell in (crash, undone):
        held["estimation"].values[cell] = False
    held["refuted"].values[undone] = True
    mask = held["estimation"]
    found = scored(rows, returns, mask, held)
    values = returns.values.astype(np.float64)
    with_crash, without = found["portfolio_return"][0], found["portfolio_return_without_suspects"][0]
    assert float(with_crash[10]) == pytest.approx(values[10].mean())
    assert float(without[10]) == pytest.approx(np.delete(values[10], 3).mean())
    for series in (with_crash, without):
        assert float(series[20]) == pytest.approx(np.delete(values[20], 5).mean())
    metrics = metrics_of(found, {"total_r2": None}, 252)
    assert metrics["bias_statistic.all"] > 1.5
    assert 0.7 < metrics["bias_statistic_without_suspects.all"] < 1.3
    assert metrics["qlike.all"] > metrics["qlike_without_suspects.all"] + 1.0
    assert metrics["realised_volatility.all"] > metrics["realised_volatility_without_suspects.all"]
    for absurd in ABSURD:
        judged = {"portfolio_return", "qlike", "standardised_return", "attribution_specific"}
        for cell, moved in ((undone, set()), (crash, judged)):
            other = returns.copy(deep=True)
            other.values[cell] = absurd
            again = scored(rows, other, mask, held)
            assert {str(name) for name in found if not found[name].identical(again[name])} == moved
    chosen = counted(returns, held, "left_out")
    assert np.argwhere(np.isnan(chosen.values)).tolist() == [[10, 3], [20, 5]]


def test_rows_added_one_by_one_have_the_scores_of_all_at_once() -> None:
    rows, returns, held = judged_market()
    held["estimation"].values[29, 3], held["refuted"].values[29, 3] = False, True
    mask = held["estimation"]
    whole = scored(rows, returns, mask, held)
    last = {"date": slice(29, None)}
    alone = scored(
        rows.isel(last),
        returns.isel(last),
        mask.isel(last),
        held.isel(last),
        rows[[name for name in FORECASTS if name in rows]].isel(date=[28]),
    )
    xr.testing.assert_identical(alone, whole.isel(last))
