"""The factor covariance Omega = Cov(f), as of each date.

Here belong estimators that turn the history of factor returns into Omega, per period, without look-ahead.
Specific risk lives in `specific`, the risk of portfolios in `risk`.

The factor returns must speak one set of coordinates: those of a latent model refitted with another rotation
have to be rotated into line (`FactorModel.rotate`) before they are strung together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import Float64Array
from schemas.base import Argued
from schemas.errors import DataError, ModelError
from schemas.spec import CovarianceSpec

Dates = pd.DatetimeIndex | list[pd.Timestamp]


class FactorCovariance(CovarianceSpec, Argued):
    """Omega from the factor returns known as of a date, in squared decimals per period (not annualised).

    A date on which any factor return is NaN is no observation: Omega carries over it, and weights count
    observations, not calendar days. Omega is positive semi-definite by construction.

    "ewma" has the start and the centring corrected for bias, so that it equals
    ``pandas.DataFrame.ewm(halflife=...).cov()``. "ledoit_wolf" is that of Ledoit and Wolf (2004), A well-conditioned
    estimator for large-dimensional covariance matrices, equal to ``sklearn.covariance.ledoit_wolf`` on the
    observations up to the date. Parameters, all by name, are the fields of `schemas.spec.CovarianceSpec`: what a
    config says is what a notebook has.
    """

    def estimate(self, factor_returns: xr.DataArray) -> xr.DataArray:
        """Omega as of the last date.

        Parameters
        ----------
        factor_returns : xarray.DataArray
            (date, factor) decimals per period.

        Returns
        -------
        xarray.DataArray
            (factor, factor_) float64.

        Raises
        ------
        DataError
            If the dates are not sorted and unique, or a value is infinite.
        ModelError
            If there are no more observations than factors, or fewer than `min_observations`.
        """
        return self.path(factor_returns, factor_returns.indexes["date"][-1:]).isel(date=0, drop=True)

    def path(self, factor_returns: xr.DataArray, dates: Dates | None = None) -> xr.DataArray:
        """Omega as of each date, from the factor returns up to and including that date.

        "ewma" is one recursion over the history; "ledoit_wolf" is computed anew at every date, with one
        product of the observations with themselves.

        Parameters
        ----------
        factor_returns : xarray.DataArray
            (date, factor) decimals per period.
        dates : sequence of dates, optional
            Sorted as-of dates; by default those of `factor_returns`.

        Returns
        -------
        xarray.DataArray
            (date, factor, factor_) float64; NaN on dates before there are enough observations.

        Raises
        ------
        DataError
            If dates are not sorted and unique, or a value is infinite.
        ModelError
            If the last date does not have enough observations.
        """
        values = factor_returns.transpose("date", "factor").values.astype(np.float64)
        as_of, rows = rows_as_of(factor_returns, dates)
        complete = ~np.isnan(values).any(axis=1)
        observations = values[complete]
        counts = np.concatenate([[0], np.cumsum(complete)])[rows]
        names = factor_returns.indexes["factor"].to_numpy()
        required = max(self.min_observations, len(names) + 1)
        available = min(counts[-1], self.window or counts[-1]) if len(counts) else 0
        if available < required:
            raise ModelError(
                f"Omega of {len(names)} factors needs {required} dates with returns of all factors; it has "
                f"{available}. Use fewer factors, a longer history or window, or a smaller min_observations."
            )
        omega = np.full((len(as_of), len(names), len(names)), np.nan)
        enough = counts >= required
        estimator = self._ewma if self.method == "ewma" else self._ledoit_wolf
        omega[enough] = estimator(observations, counts[enough])
        coords = {"date": as_of, "factor": names, "factor_": names}
        return xr.DataArray(omega, dims=("date", "factor", "factor_"), coords=coords, name="omega")

    def _ewma(self, x: Float64Array, counts: npt.NDArray[np.int_]) -> Float64Array:
        """Covariance of the first c rows for every c in the sorted `counts`."""
        decay = 0.5 ** (1.0 / self.halflife)
        mean, second = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
        omega = np.empty((len(counts), *second.shape))
        mass = squares = 0.0
        start = 0
        for row, count in enumerate(counts):
            for f in x[start:count]:
                mass, squares = decay * mass + 1.0, decay**2 * squares + 1.0
                step = 1.0 / mass
                deviation = f - mean if self.centred else f
                gain = step * (1.0 - step) if self.centred else step
                second = (1.0 - step) * second + gain * np.outer(deviation, deviation)
                mean = mean + step * deviation
            start = count
            omega[row] = second / (1.0 - squares / mass**2) if self.centred else second
        return omega

    def _ledoit_wolf(self, x: Float64Array, counts: npt.NDArray[np.int_]) -> Float64Array:
        """Shrunk covariance of the first c rows (the last `window` of them) for every c in `counts`."""
        omega = np.empty((len(counts), x.shape[1], x.shape[1]))
        for row, count in enumerate(counts):
            sample = x[max(0, count - self.window) if self.window else 0 : count]
            omega[row] = _shrunk(sample - sample.mean(axis=0) if self.centred else sample)
        return omega


def _shrunk(x: Float64Array) -> Float64Array:
    """Ledoit and Wolf (2004), section 3.2: rho mu I + (1 - rho) S with rho = b^2 / d^2, of x (n, K)."""
    n, k = x.shape
    sample = x.T @ x / n
    mu = np.trace(sample) / k
    target = mu * np.eye(k)
    dispersion = np.square(sample - target).sum()
    error = (np.square(np.square(x).sum(axis=1)).sum() / n - np.square(sample).sum()) / n
    shrinkage = min(max(error, 0.0) / dispersion, 1.0) if dispersion > 0.0 else 0.0
    shrunk: Float64Array = (1.0 - shrinkage) * sample + shrinkage * target
    return shrunk


def rows_as_of(history: xr.DataArray, dates: Dates | None) -> tuple[pd.DatetimeIndex, npt.NDArray[np.int_]]:
    """As-of dates (by default those of `history`), and how many rows of `history` are known on each.

    Raises
    ------
    DataError
        If either the dates or those of `history` are not sorted and unique, or `history` has an infinite
        value.
    """
    known = pd.DatetimeIndex(history.indexes["date"])
    as_of = known if dates is None else pd.DatetimeIndex(dates)
    name = history.name or "history"
    for index, what in ((known, f"dates of {name}"), (as_of, "as-of dates")):
        if not (index.is_monotonic_increasing and index.is_unique):
            raise DataError(f"The {what} must be sorted and unique; sort them or drop the duplicates.")
    infinite = np.isinf(history.transpose("date", ...).values).reshape(len(known), -1).any(axis=1)
    if infinite.any():
        raise DataError(f"{name} is infinite on {known[infinite][0]:%Y-%m-%d}; a missing value must be NaN.")
    return as_of, known.searchsorted(as_of, side="right")
