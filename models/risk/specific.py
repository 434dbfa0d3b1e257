"""Specific risk: the variance of each stock's residual, as of each date.

Here belong estimators of D = diag(Var(e)), per period, without look-ahead. The factor covariance lives in
`covariance`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, FloatArray, NamedArrays
from models.risk.covariance import Dates, rows_as_of
from schemas.base import Argued
from schemas.errors import DataError, ModelError
from schemas.risk import SpecificSpec


class SpecificRisk(SpecificSpec, Argued):
    """Exponentially weighted specific variance about zero, in squared decimals per period (not annualised).

    Each stock has its own clock: a NaN residual is skipped and its variance carries. Weights are normalised,
    so that short histories are unbiased; it equals ``pandas`` ``(e**2).ewm(halflife=...,
    ignore_na=True).mean()``.

    Two rules repair what a history cannot say, both with the median, over covered stocks with enough history,
    as of the same date: a stock with fewer than `min_observations` residuals (a new listing) gets the median,
    and no stock less than `floor` times the median (a price that hardly moved is stale, not safe).

    Parameters, all by name, are the fields of `schemas.risk.SpecificSpec`: what a config says is what a notebook has.
    """

    def estimate(self, residuals: xr.DataArray, coverage: xr.DataArray | None = None) -> xr.DataArray:
        """Specific variance (ticker) as of the last date; see :meth:`path`."""
        return self.path(residuals, residuals.indexes["date"][-1:], coverage).isel(date=0, drop=True)

    def path(
        self, residuals: xr.DataArray, dates: Dates | None = None, coverage: xr.DataArray | None = None
    ) -> xr.DataArray:
        """Specific variance as of each date, from the residuals up to and including that date.

        Parameters
        ----------
        residuals : xarray.DataArray
            (date, ticker) decimals per period, NaN where unknown.
        dates : sequence of dates, optional
            Sorted as-of dates; by default those of `residuals`.
        coverage : xarray.DataArray, optional
            (date, ticker) bool, whether a stock has loadings as of the date; it must hold the as-of dates and
            the tickers. By default a stock is covered from its first residual on.

        Returns
        -------
        xarray.DataArray
            (date, ticker) float32; NaN where not covered, and on dates before any stock has enough residuals.

        Raises
        ------
        DataError
            If dates are not sorted and unique, a residual is infinite, or `coverage` lacks a date or a
            ticker.
        ModelError
            If no covered stock has enough residuals as of the last date.
        """
        as_of, rows = rows_as_of(residuals, dates)
        covered = _coverage(residuals, as_of, coverage)
        values = residuals.transpose("date", "ticker").values
        variance = np.full((len(as_of), values.shape[1]), np.nan, dtype=np.float32)
        state, start = self.start(values.shape[1]), 0
        for row, stop in enumerate(rows):
            for observation in values[start:stop]:
                state = self.step(state, observation)
            start = stop
            variance[row] = self.read(state, None if covered is None else covered[row])
        if not np.isfinite(variance[-1:]).any():
            raise ModelError(self.shortage())
        return _like(residuals, as_of, variance, "specific_variance")

    def imputed(
        self, residuals: xr.DataArray, dates: Dates | None = None, coverage: xr.DataArray | None = None
    ) -> xr.DataArray:
        """Where :meth:`path` uses the median for want of history, as (date, ticker) bool; same parameters."""
        as_of, rows = rows_as_of(residuals, dates)
        known = np.isfinite(residuals.transpose("date", "ticker").values)
        start = np.zeros((1, known.shape[1]), dtype=np.int32)
        counts = np.concatenate([start, np.cumsum(known, axis=0, dtype=np.int32)])[rows]
        covered = _coverage(residuals, as_of, coverage)
        seen = counts > 0 if covered is None else covered
        return _like(residuals, as_of, seen & (counts < self.min_observations), "imputed")

    def shortage(self) -> str:
        """Say what is missing where no variance can be read."""
        return (
            f"No covered stock has {self.min_observations} residuals by the last as-of date; "
            "use a longer history or a smaller min_observations."
        )

    def start(self, n_stocks: int) -> NamedArrays:
        """Return the state before the first residual: arrays (ticker,) by name, to be kept and taken up."""
        return {
            "variance": np.zeros(n_stocks),
            "mass": np.zeros(n_stocks),
            "count": np.zeros(n_stocks, dtype=np.int64),
        }

    def step(self, state: NamedArrays, residuals: FloatArray) -> NamedArrays:
        """Return the state after one more date of residuals (ticker,), NaN where unknown: such a stock carries."""
        known = np.isfinite(residuals)
        mass = np.where(known, 0.5 ** (1.0 / self.halflife) * state["mass"] + 1.0, state["mass"])
        change = np.square(residuals.astype(np.float64)) - state["variance"]
        variance = state["variance"] + np.where(known, change / np.maximum(mass, 1.0), 0.0)
        return {"variance": variance, "mass": mass, "count": state["count"] + known}

    def read(self, state: NamedArrays, covered: BoolArray | None = None) -> npt.NDArray[np.float32]:
        """Return the variance (ticker,) of covered stocks as of the last date of a state; by default of those seen."""
        own, count = state["variance"], state["count"]
        seen = count > 0 if covered is None else covered
        trusted = seen & (count >= self.min_observations)
        if not trusted.any():
            return np.full(len(own), np.nan, dtype=np.float32)
        median = np.median(own[trusted])
        repaired = np.where(trusted, np.maximum(own, self.floor * median), median)
        return np.where(seen, repaired, np.nan).astype(np.float32)


def _coverage(
    residuals: xr.DataArray, as_of: pd.DatetimeIndex, coverage: xr.DataArray | None
) -> npt.NDArray[np.bool_] | None:
    if coverage is None:
        return None
    try:
        chosen = coverage.sel(date=as_of, ticker=residuals.indexes["ticker"])
    except KeyError as error:
        raise DataError(f"coverage lacks dates or tickers of the residuals: {error.args[0]}") from error
    covered: npt.NDArray[np.bool_] = chosen.transpose("date", "ticker").values.astype(bool)
    return covered


def _like(residuals: xr.DataArray, as_of: pd.DatetimeIndex, values: npt.NDArray[Any], name: str) -> xr.DataArray:
    coords = {"date": as_of, "ticker": residuals.indexes["ticker"]}
    return xr.DataArray(values, dims=("date", "ticker"), coords=coords, name=name)
