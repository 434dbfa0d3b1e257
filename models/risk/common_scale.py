"""A common factor of the scale of residuals: some dates are wild for all stocks at once.

Here belong the scale factor of residuals, and linear factors that a few wild residuals do not turn. How forecasts of
volatility enter a risk model belongs in `calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.arrays import Float64Array
from schemas.errors import ModelError

_ROUNDS = 15
_CUT = 3.0  # medians of absolute standardised residuals, beyond which one counts as that many
_CUT_AT_START = 5.0  # the same of returns, from which the linear factors start
_LEAST_SCALE = 0.5  # of the median scale: without it a stock or a date that is fitted well takes all the weight
_LONG_TAIL = 3.0  # degrees of freedom of the t distribution that gives the weights


@dataclass(frozen=True, eq=False)
class CommonScale:
    """Residuals e[t, i] = factor[t] loadings[i] u[t, i], with u alike for all stocks and dates.

    Attributes
    ----------
    factor : numpy.ndarray
        (date,) in the units of the residuals; NaN without any.
    loadings : numpy.ndarray
        (ticker,) with median one; NaN without any.
    """

    factor: Float64Array
    loadings: Float64Array


def scale_factor(residuals: Float64Array) -> CommonScale:
    """Estimate the common scale of (date, ticker) residuals, NaN where missing.

    Means of absolute residuals over the loadings of their stocks, then over the factors of their dates, in turn; what
    is beyond three medians counts as three, so that tails do not decide. Absolute residuals show what the quantiles of
    Chen, Dolado and Gonzalo (2021), "Quantile Factor Models", Econometrica 89, show of a factor that moves the scale
    alone.

    Raises
    ------
    ModelError
        If no residual differs from zero.
    """
    absolute = np.abs(residuals)
    moved = absolute > 0.0
    dates, stocks = np.any(moved, axis=1), np.any(moved, axis=0)
    if not dates.any():
        raise ModelError("Every residual is zero or missing: there is no scale. Give returns that the factors leave.")
    used = absolute[np.ix_(dates, stocks)]
    loadings = np.ones(used.shape[1])
    for _ in range(_ROUNDS):
        factor = _cut_mean((used / loadings).T)
        loadings = _cut_mean(used / factor[:, None])
        loadings = loadings / np.median(loadings)
    whole = CommonScale(np.full(len(dates), np.nan), np.full(len(stocks), np.nan))
    whole.factor[dates], whole.loadings[stocks] = factor, loadings
    return whole


def robust_factors(returns: Float64Array, n_factors: int) -> tuple[Float64Array, Float64Array]:
    """Linear factors of complete (date, ticker) returns about zero, under noise with long tails and a common scale.

    Principal components of returns that are cut at five medians of each stock, so that none is one wild return; then
    weighted least squares of returns on loadings and on factors in turn. Weights are those of a t distribution with
    three degrees of freedom (Lange, Little and Taylor 1989, Robust statistical modeling using the t distribution),
    about the scale of the date times that of the stock, neither below half of its median.

    Returns
    -------
    factors, loadings : numpy.ndarray
        (date, factor) and (ticker, factor), identified up to an invertible matrix between them.

    Raises
    ------
    ModelError
        If a return is missing, or there are not more dates and stocks than factors.
    """
    if not np.isfinite(returns).all() or not 1 <= n_factors < min(returns.shape):
        raise ModelError(
            f"Robust factors need complete returns, and more dates and stocks than n_factors={n_factors}: "
            f"these are {returns.shape[0]} dates of {returns.shape[1]} stocks. Fill gaps by PCA first."
        )
    most = _CUT_AT_START * np.median(np.abs(returns), axis=0)
    left, values, right = np.linalg.svd(np.clip(returns, -most, most), full_matrices=False)
    factors, loadings = left[:, :n_factors] * values[:n_factors], right[:n_factors].T
    for _ in range(2 * _ROUNDS):
        weights = _long_tailed(returns - factors @ loadings.T)
        factors = _regressed(loadings, returns, weights)
        loadings = _regressed(factors, returns.T, weights.T)
    return factors, loadings


def _cut_mean(values: Float64Array) -> Float64Array:
    """Mean (column,) of each column, nothing above three medians of it."""
    typical = np.nanmedian(values, axis=0)
    mean: Float64Array = np.nanmean(np.minimum(values, _CUT * np.where(typical > 0.0, typical, np.inf)), axis=0)
    return mean


def _long_tailed(residuals: Float64Array) -> Float64Array:
    absolute = np.abs(residuals)
    date = _floored(np.median(absolute, axis=1))
    stock = _floored(np.median(absolute / date[:, None], axis=0))
    scale = np.outer(date, stock)
    weights: Float64Array = np.square(np.median(date) / scale) / (1.0 + np.square(residuals / scale) / _LONG_TAIL)
    return weights


def _floored(scale: Float64Array) -> Float64Array:
    least = max(_LEAST_SCALE * float(np.median(scale)), float(np.finfo(np.float64).tiny))
    floored: Float64Array = np.maximum(scale, least)
    return floored


def _regressed(known: Float64Array, values: Float64Array, weights: Float64Array) -> Float64Array:
    """(row, factor) weighted least squares of each row of values (row, column) on known (column, factor)."""
    gram = np.einsum("rc,ck,cl->rkl", weights, known, known, optimize=True)
    slopes: Float64Array = np.linalg.solve(gram, ((weights * values) @ known)[..., None])[..., 0]
    return slopes
