"""Bias by rank of eigenportfolios: against the dense covariance, and in a world of known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from models.evaluation.ranks import RANKS, variance_ratio_by_rank


def world(n_stocks: int, n_factors: int, n_dates: int) -> tuple[xr.Dataset, xr.DataArray]:
    """Return a version whose forecasts are true, and normal returns."""
    rng = np.random.default_rng(2)
    x, variance = rng.normal(size=(n_stocks, n_factors)), np.linspace(1.0, 0.2, n_factors) * 1e-4
    specific = rng.uniform(1e-4, 4e-4, n_stocks)
    returns = (rng.normal(size=(n_dates, n_factors)) * np.sqrt(variance)) @ x.T
    returns += rng.normal(size=(n_dates, n_stocks)) * np.sqrt(specific)
    coords = {"date": pd.bdate_range("2020-01-01", periods=n_dates), "ticker": [f"S{n:03d}" for n in range(n_stocks)]}
    version = xr.Dataset(
        {
            "loadings": (("date", "ticker", "factor"), np.tile(x, (n_dates, 1, 1))),
            "omega": (("date", "factor", "factor_"), np.tile(np.diag(variance), (n_dates, 1, 1))),
            "specific_variance": (("date", "ticker"), np.tile(specific, (n_dates, 1))),
        },
        coords,
    )
    return version, xr.DataArray(returns, coords, ("date", "ticker"))


def test_a_date_is_the_dense_eigenportfolios_of_the_date_before_over_stocks_that_are_known_on_both() -> None:
    version, returns = world(30, 3, 4)
    version["loadings"][1, 7, 0] = np.nan
    version["omega"][2] = np.nan
    returns[2, 4] = np.nan
    found = variance_ratio_by_rank(version, returns)
    kept = np.delete(np.arange(30), [4, 7])
    x, omega, d = version["loadings"][1, kept], version["omega"][1], version["specific_variance"][1, kept].values
    sigma, r = x.values @ omega.values @ x.values.T + np.diag(d), returns[2, kept].values
    weights = np.linalg.eigh(sigma / np.sqrt(np.outer(d, d)))[1][:, :-4:-1].T / np.sqrt(d)
    ratios = (weights @ r) ** 2 / np.einsum("pi,ij,pj->p", weights, sigma, weights)
    np.testing.assert_allclose(found.sel(rank="1")[2], ratios[0], rtol=1e-9)
    assert np.isnan(found[:, [0, 3]]).all(), "no forecast was made the date before"
    known = found["rank"].values[found[:, 2].notnull().values]
    assert known.tolist() == ["1", "2-5", "6-20", "last 20"]
    absurd = returns.copy(deep=True)
    absurd[2, 7] = 1e6
    xr.testing.assert_identical(variance_ratio_by_rank(version, absurd)[:, 2], found[:, 2])


@pytest.mark.parametrize(("told", "bias"), [(1.0, 1.0), (0.5, 2**0.5)])
def test_true_forecasts_have_no_bias_at_any_rank_and_low_ones_show_where(told: float, bias: float) -> None:
    version, returns = world(80, 3, 250)
    version["specific_variance"] *= told
    found = variance_ratio_by_rank(version, returns).mean("date").to_series().dropna() ** 0.5
    assert list(found.index) == [*RANKS[:4], "last 20"]
    np.testing.assert_allclose(found["1"], 1.0, atol=0.12)
    np.testing.assert_allclose(found[["6-20", "21-60", "last 20"]], bias, atol=0.06)
