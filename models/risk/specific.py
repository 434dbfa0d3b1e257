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

from models.arrays import BoolArray, Float64Array, FloatArray, NamedArrays
from models.risk import regime
from models.risk.covariance import Dates, rows_as_of
from models.risk.structural import mixed, shrunk_in_groups, structural_volatility
from schemas.base import Argued
from schemas.errors import DataError, ModelError
from schemas.risk import RegimeSpec, SpecificSpec

_GREATEST_MISS = 100.0


class SpecificRisk(SpecificSpec, Argued):
    """Exponentially weighted specific variance about zero, in squared decimals per period (not annualised).

    Each stock has its own clock: a NaN residual is skipped and its variance carries. Weights are normalised,
    so that short histories are unbiased; it equals ``pandas`` ``(e**2).ewm(halflife=...,
    ignore_na=True).mean()``.

    Two rules repair what a history cannot say, both with the median, over covered stocks with enough history,
    as of the same date: a stock with fewer than `min_observations` residuals (a new listing) gets the median,
    and no stock less than `floor` times the median (a price that hardly moved is stale, not safe).

    Stages that may stand between, in this order: lags of Newey and West, weighed by the root of both dates' weights as
    in `moments.Moment`, so that a variance stays positive; a structural model and shrinkage in groups of size
    (`models.risk.structural`), which look at exposures and size; a regime of all stocks (`models.risk.regime`).

    Parameters, all by name, are the fields of `schemas.risk.SpecificSpec`: what a config says is what a notebook has.

    Examples
    --------
    >>> from models import IPCA, SpecificRisk
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> residuals = IPCA(n_factors=2).fit(panel).residuals(panel)
    >>> SpecificRisk(halflife=42.0).estimate(residuals).dims
    ('ticker',)
    """

    def estimate(self, residuals: xr.DataArray, coverage: xr.DataArray | None = None) -> xr.DataArray:
        """Specific variance (ticker) as of the last date; see `path`."""
        return self.path(residuals, residuals.indexes["date"][-1:], coverage).isel(date=0, drop=True)

    def path(
        self,
        residuals: xr.DataArray,
        dates: Dates | None = None,
        coverage: xr.DataArray | None = None,
        *,
        loadings: xr.DataArray | None = None,
        size: xr.DataArray | None = None,
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
        loadings : xarray.DataArray, optional
            (date, ticker, factor) known as of each date: what the structural stage learns from.
        size : xarray.DataArray, optional
            (date, ticker) capitalisation known as of each date; without it all stocks are one group.

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
        covered = _aligned(residuals, as_of, coverage, "coverage")
        exposures = _aligned(residuals, as_of, loadings, "loadings")
        sizes = _aligned(residuals, as_of, size, "size")
        values = residuals.transpose("date", "ticker").values
        variance = np.full((len(as_of), values.shape[1]), np.nan, dtype=np.float32)
        state, start = self.start(values.shape[1]), 0
        for row, stop in enumerate(rows):
            for observation in values[start:stop]:
                state = self.step(state, observation)
            start = stop
            at = [None if array is None else array[row] for array in (covered, exposures, sizes)]
            variance[row] = self.read(state, at[0], loadings=at[1], size=at[2])
        if not np.isfinite(variance[-1:]).any():
            raise ModelError(self.shortage())
        return _like(residuals, as_of, variance, "specific_variance")

    def imputed(
        self, residuals: xr.DataArray, dates: Dates | None = None, coverage: xr.DataArray | None = None
    ) -> xr.DataArray:
        """Where `path` uses the median for want of history, as (date, ticker) bool; same parameters."""
        as_of, rows = rows_as_of(residuals, dates)
        known = np.isfinite(residuals.transpose("date", "ticker").values)
        start = np.zeros((1, known.shape[1]), dtype=np.int32)
        counts = np.concatenate([start, np.cumsum(known, axis=0, dtype=np.int32)])[rows]
        covered = _aligned(residuals, as_of, coverage, "coverage")
        seen = counts > 0 if covered is None else covered
        return _like(residuals, as_of, seen & (counts < self.min_observations), "imputed")

    def shortage(self) -> str:
        """Say what is missing where no variance can be read."""
        return (
            f"No covered stock has {self.min_observations} residuals by the last as-of date; "
            "use a longer history or a smaller min_observations."
        )

    def start(self, n_stocks: int) -> NamedArrays:
        """Return the state before the first residual: arrays by name, to be kept and taken up; (ticker, ...) or ()."""
        state: NamedArrays = {
            "variance": np.zeros(n_stocks),
            "mass": np.zeros(n_stocks),
            "count": np.zeros(n_stocks, dtype=np.int64),
        }
        if self.newey_west_lags:
            state |= {"lagged": np.zeros(n_stocks), "recent": np.zeros((n_stocks, self.newey_west_lags))}
        return state if self.regime is None else state | regime.start()

    def step(self, state: NamedArrays, residuals: FloatArray) -> NamedArrays:
        """Return the state after one more date of residuals (ticker,), NaN where unknown: such a stock carries."""
        known = np.isfinite(residuals)
        values = residuals.astype(np.float64)
        mass = np.where(known, 0.5 ** (1.0 / self.halflife) * state["mass"] + 1.0, state["mass"])
        change = np.square(values) - state["variance"]
        variance = state["variance"] + np.where(known, change / np.maximum(mass, 1.0), 0.0)
        changed = {**state, "variance": variance, "mass": mass, "count": state["count"] + known}
        if self.newey_west_lags:
            changed |= self._lagged_step(state, np.where(known, values, 0.0), mass, known)
        if self.regime is not None:
            changed |= self._regime_step(self.regime, state, values, known)
        return changed

    def read(
        self,
        state: NamedArrays,
        covered: BoolArray | None = None,
        *,
        loadings: FloatArray | None = None,
        size: FloatArray | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return the variance (ticker,) of covered stocks as of the last date of a state; by default of those seen.

        Parameters
        ----------
        state : dict[str, numpy.ndarray]
            From `start` or `step`.
        covered : numpy.ndarray, optional
            (ticker,) bool.
        loadings : numpy.ndarray, optional
            (ticker, factor) known as of the date, NaN where a stock has none; without them no structural model.
        size : numpy.ndarray, optional
            (ticker,) capitalisation or market weight known as of the date; without it all stocks are one group.
        """
        count = state["count"]
        own = state["variance"] + state["lagged"] if self.newey_west_lags else state["variance"]
        seen = count > 0 if covered is None else covered
        trusted = seen & (count >= self.min_observations)
        if not trusted.any():
            return np.full(len(own), np.nan, dtype=np.float32)
        median = np.median(own if trusted.all() else own[trusted])
        variance = np.where(trusted, own, median)
        if self.structural is not None and loadings is not None:
            volatility = np.sqrt(np.maximum(own, max(self.floor * median, np.finfo(np.float64).tiny)))
            structural = structural_volatility(volatility, loadings, seen & (count >= self.structural.enough))
            blended = np.square(mixed(self.structural, volatility, structural, count))
            variance = np.where(np.isfinite(blended), blended, variance)
        if self.shrinkage is not None:
            sizes = np.ones(len(own)) if size is None else size.astype(np.float64)
            variance[seen] = shrunk_in_groups(self.shrinkage, variance[seen], sizes[seen])
        level = 1.0 if self.regime is None else regime.variance_factor(self.regime, state)
        repaired = level * np.maximum(variance, self.floor * median)
        return np.where(seen, repaired, np.nan).astype(np.float32)

    def _lagged_step(
        self, state: NamedArrays, values: Float64Array, mass: Float64Array, known: BoolArray
    ) -> NamedArrays:
        """Return the mean of 2 sum_j (1 - j / (L + 1)) e_t e_(t-j) by stock, and the residuals before the next one."""
        lag = np.arange(1, self.newey_west_lags + 1)
        weight = 2.0 * (1.0 - lag / (self.newey_west_lags + 1.0)) * 0.5 ** (lag / (2.0 * self.halflife))
        crossed = values * (state["recent"] @ weight)
        lagged = state["lagged"] + np.where(known, (crossed - state["lagged"]) / np.maximum(mass, 1.0), 0.0)
        recent = np.concatenate([values[:, None], state["recent"][:, :-1]], axis=1)
        return {"lagged": lagged, "recent": np.where(known[:, None], recent, state["recent"])}

    def _regime_step(self, spec: RegimeSpec, state: NamedArrays, values: Float64Array, known: BoolArray) -> NamedArrays:
        """Meet the forecasts of stocks with enough history, each squared miss cut at 100 variances."""
        met = known & (state["count"] >= self.min_observations) & (state["variance"] > 0.0)
        if not met.any():
            return {}
        squares = np.minimum(np.square(values[met]) / state["variance"][met], _GREATEST_MISS)
        return regime.step(spec, state, float(squares.sum()), float(met.sum()))


def _aligned(
    residuals: xr.DataArray, as_of: pd.DatetimeIndex, array: xr.DataArray | None, name: str
) -> npt.NDArray[Any] | None:
    """Values (date, ticker, ...) as of the dates, for the tickers of the residuals."""
    if array is None:
        return None
    try:
        chosen = array.sel(date=as_of, ticker=residuals.indexes["ticker"])
    except KeyError as error:
        raise DataError(f"{name} lacks dates or tickers of the residuals: {error.args[0]}") from error
    values: npt.NDArray[Any] = chosen.transpose("date", "ticker", ...).values
    return values.astype(bool) if name == "coverage" else values


def _like(residuals: xr.DataArray, as_of: pd.DatetimeIndex, values: npt.NDArray[Any], name: str) -> xr.DataArray:
    coords = {"date": as_of, "ticker": residuals.indexes["ticker"]}
    return xr.DataArray(values, dims=("date", "ticker"), coords=coords, name=name)
