"""Bias by rank: whether a forecast is right about its own eigenportfolios, date by date, from the largest down.

Here belongs what a version publishes of it, of one date and the date before. The buckets of ranks and the portfolios
are those of `portfolios`; `protocol` judges the same over windows, beside peers.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from models.arrays import Float64Array
from models.evaluation.covariances import FactorForm
from models.evaluation.portfolios import eigenportfolios, rank_buckets

RANKS = tuple(rank_buckets(1_000))
"""Names of all buckets; a small universe lacks some of them."""
_DIRECTIONS = 20
"""Random directions among those that a model does not tell apart."""
_LEAST_STOCKS = 2


def variance_ratio_by_rank(version: xr.Dataset, returns: xr.DataArray) -> xr.DataArray:
    """Squared return over forecast variance, mean over the eigenportfolios of each bucket of ranks.

    Eigenportfolios are those of X Omega X' + D as of the date before, over the stocks whose return is known, and so is
    their variance. The mean of a bucket over dates is the square of its bias statistic, 1 if the forecasts are right.

    Parameters
    ----------
    version : xarray.Dataset
        ``loadings`` (date, ticker, factor), ``omega`` (date, factor, factor_) and ``specific_variance``
        (date, ticker), as published.
    returns : xarray.DataArray
        (date, ticker) returns per period that count, of at least these dates and tickers; NaN where missing.

    Returns
    -------
    xarray.DataArray
        (rank, date) float64; NaN where no forecast was made the date before, and for buckets without a portfolio.
    """
    dates, tickers = version.indexes["date"], version.indexes["ticker"]
    realised = returns.sel(date=dates, ticker=tickers).transpose("date", "ticker").values.astype(np.float64)
    loadings = version["loadings"].transpose("date", "ticker", "factor").values
    omega = version["omega"].transpose("date", "factor", "factor_").values
    specific = version["specific_variance"].transpose("date", "ticker").values
    known = np.isfinite(loadings).all(axis=2) & (specific > 0.0)
    found = np.full((len(RANKS), len(dates)), np.nan)
    for date in range(1, len(dates)):
        kept = known[date - 1] & np.isfinite(realised[date])
        if kept.sum() >= _LEAST_STOCKS and np.isfinite(omega[date - 1]).all():
            parts = (loadings[date - 1, kept], omega[date - 1], specific[date - 1, kept])
            found[:, date] = _ratios(FactorForm(*parts), realised[date, kept])
    return xr.DataArray(found, {"rank": np.array(RANKS), "date": dates}, ("rank", "date"))


def _ratios(covariance: FactorForm, returns: Float64Array) -> Float64Array:
    """Return the mean ratio of each bucket (rank,); the random directions are the same on dates with as many stocks."""
    draws = np.random.default_rng(0).standard_normal((_DIRECTIONS, len(returns)))
    held = eigenportfolios(covariance, draws)
    ratios = np.full(len(RANKS), np.nan)
    for bucket, weights in held.items():
        ratios[RANKS.index(bucket)] = np.mean((weights @ returns) ** 2 / covariance.variance(weights))
    return ratios
