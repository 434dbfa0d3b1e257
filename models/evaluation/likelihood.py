"""Gaussian likelihood of cross-sections: whether the whole covariance was right, not only that of some portfolios.

Here belongs ln p(r) under N(0, S) and the Mahalanobis distance r'S^-1 r, of days under one forecast and of many dates
with a forecast each. A stock whose return is not known is left out: its marginal density is what remains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from models.arrays import BoolArray, Float64Array, FloatArray, IntArray
from models.evaluation.covariances import Covariance

_LOG_TWO_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True, eq=False)
class CrossSections:
    """What the Gaussian density says of the returns of each date.

    Attributes
    ----------
    log_likelihood : numpy.ndarray
        (date,) ln p of the stocks together; divide by `n_stocks` for the mean per stock-day.
    mahalanobis : numpy.ndarray
        (date,) r'S^-1 r, chi-square with `n_stocks` degrees of freedom if the forecast is true.
    n_stocks : numpy.ndarray
        (date,) stocks with a forecast and a return; both others are NaN where it is 0.
    """

    log_likelihood: Float64Array
    mahalanobis: Float64Array
    n_stocks: IntArray


def gaussian(covariance: Covariance, returns: Float64Array) -> CrossSections:
    """Judge the days that one forecast holds for.

    Parameters
    ----------
    covariance : Covariance
        Of n stocks, per period.
    returns : numpy.ndarray
        (date, n) returns, NaN where not known. Days on which the same stocks are known are judged together.
    """
    known = np.isfinite(returns)
    distance, log_determinant = np.full(len(returns), np.nan), np.full(len(returns), np.nan)
    patterns, which = np.unique(known, axis=0, return_inverse=True)
    for place, pattern in enumerate(patterns):
        if pattern.any():
            days = which == place
            part = covariance if pattern.all() else covariance.restricted(pattern)
            r = returns[days][:, pattern].T
            distance[days] = (r * part.solve(r)).sum(axis=0)
            log_determinant[days] = part.log_determinant()
    return _assembled(distance, log_determinant, known.sum(axis=1))


def gaussian_by_date(
    loadings: FloatArray, omega: FloatArray, specific_variance: FloatArray, returns: FloatArray
) -> CrossSections:
    """Judge dates that have a forecast each, all at once.

    Stocks that are not known are given no loadings, a specific variance of 1 and a return of 0, which adds nothing to
    either sum.

    Parameters
    ----------
    loadings : numpy.ndarray
        X (date, n, K); NaN where a stock is not covered.
    omega : numpy.ndarray
        (date, K, K) per period; a date without one is NaN in the result.
    specific_variance : numpy.ndarray
        (date, n) per period; a stock without a positive one is left out.
    returns : numpy.ndarray
        (date, n) realised, beside the forecasts that were made for them.
    """
    r, d, x = (np.asarray(part, dtype=np.float64) for part in (returns, specific_variance, loadings))
    forecast: BoolArray = np.asarray(np.isfinite(omega).all(axis=(1, 2)), dtype=np.bool_)
    known = np.isfinite(r) & np.isfinite(d) & (d > 0.0) & np.isfinite(x).all(axis=2) & forecast[:, None]
    values, vectors = np.linalg.eigh(np.where(forecast[:, None, None], omega, 0.0).astype(np.float64))
    root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    deviation = np.sqrt(np.where(known, d, 1.0))
    whitened = (np.where(known[..., None], x, 0.0) @ root) / deviation[..., None]
    y = np.where(known, r, 0.0) / deviation
    lower = np.linalg.cholesky(whitened.swapaxes(1, 2) @ whitened + np.eye(omega.shape[1]))
    projected = np.linalg.solve(lower, whitened.swapaxes(1, 2) @ y[..., None])[..., 0]
    distance = np.square(y).sum(axis=1) - np.square(projected).sum(axis=1)
    log_determinant = 2.0 * (np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1) + np.log(deviation).sum(axis=1))
    return _assembled(distance, log_determinant, known.sum(axis=1))


def _assembled(distance: Float64Array, log_determinant: Float64Array, n_stocks: IntArray) -> CrossSections:
    distance = np.where(n_stocks > 0, distance, np.nan)
    density = -(n_stocks * _LOG_TWO_PI + log_determinant + distance) / 2.0
    return CrossSections(density, distance, n_stocks)
