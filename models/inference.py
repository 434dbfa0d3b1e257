"""Inference along time: Newey-West covariances, and regressions of many stocks on the same factors at once.

Here belong estimators that know dates and regressors but no model. Which series are regressed on which
belongs in the models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.base import FloatArray
from models.gram import solve_gram
from schemas.errors import ModelError


def automatic_lags(n_periods: int) -> int:
    """Newey-West lags floor(4 (T / 100)^(2/9)), the rule of thumb of Newey and West (1994)."""
    return int(4.0 * (n_periods / 100.0) ** (2.0 / 9.0))


def bartlett_weights(lags: int) -> FloatArray:
    """Weights 1 - l / (lags + 1) of the lags 1 to ``lags``."""
    return 1.0 - np.arange(1, lags + 1) / (lags + 1.0)


def newey_west_covariance(series: FloatArray, lags: int) -> FloatArray:
    """Covariance of the time-series mean of ``series``, robust to heteroskedasticity and autocorrelation.

    S / T with S = C_0 + sum_l (1 - l / (lags + 1)) (C_l + C_l') and C_l = (1 / T) sum_t d_t d_{t-l}', d the
    deviations from the mean. Divisors are T: no correction for degrees of freedom is made. Source: Newey and
    West (1987), eq. 5.

    Parameters
    ----------
    series : numpy.ndarray
        (date, k), finite, in order of time.
    lags : int
        Number of lags; 0 gives the usual covariance of a mean.

    Raises
    ------
    ModelError
        If the lags are negative or not fewer than the dates.
    """
    n_periods = len(series)
    _check_lags(lags, n_periods)
    deviations = series - series.mean(axis=0)
    total = deviations.T @ deviations
    for lag, weight in enumerate(bartlett_weights(lags), start=1):
        cross = deviations[lag:].T @ deviations[:-lag]
        total += weight * (cross + cross.T)
    covariance: FloatArray = total / n_periods**2
    return covariance


@dataclass(frozen=True, eq=False)
class TimeSeriesRegression:
    """Least squares of every stock's returns on a constant and the factors, each over its own history.

    Attributes
    ----------
    alpha, alpha_stderr : numpy.ndarray
        (ticker,) intercept and its standard error, per period.
    beta, beta_stderr : numpy.ndarray
        (ticker, factor) slopes and their standard errors.
    r_squared : numpy.ndarray
        (ticker,) centred R2: the share of the stock's variance that is systematic.
    residual_variance : numpy.ndarray
        (ticker,) residual sum of squares over n - k - 1, per period.
    n_obs : numpy.ndarray
        (ticker,) number of dates; the other fields are NaN where there are too few, or where they do not
        identify beta.
    """

    alpha: FloatArray
    beta: FloatArray
    alpha_stderr: FloatArray
    beta_stderr: FloatArray
    r_squared: FloatArray
    residual_variance: FloatArray
    n_obs: npt.NDArray[np.int64]


def time_series_regression(
    returns: FloatArray,
    factors: FloatArray,
    known: npt.NDArray[np.bool_],
    *,
    min_observations: int,
    newey_west_lags: int | None = None,
) -> TimeSeriesRegression:
    """Regress all stocks at once: one batched solve, whatever the histories.

    Parameters
    ----------
    returns : numpy.ndarray
        (date, ticker), decimals; values outside ``known`` are ignored, NaN included.
    factors : numpy.ndarray
        (date, factor); a date with a NaN enters nowhere.
    known : numpy.ndarray
        (date, ticker) which returns enter.
    min_observations : int
        Stocks with fewer dates get NaN; at least the number of parameters plus one is always required.
    newey_west_lags : int, optional
        Standard errors robust to autocorrelation up to so many dates (Bartlett kernel, no small-sample
        correction; a lag counts dates of the panel, so that the two sides of a gap are not neighbours).
        Default: the classical ones.
    """
    usable: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(factors), axis=1, keepdims=True)
    known = known & usable
    design = np.column_stack([np.ones(len(factors)), np.where(usable, factors, 0.0)])
    response = np.where(known, returns, 0.0)
    size, weight = design.shape[1], known.astype(np.float64)
    n_obs = known.sum(axis=0, dtype=np.int64)
    outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), size * size)
    gram = (weight.T @ outer).reshape(-1, size, size)
    identity = np.broadcast_to(np.eye(size), gram.shape)
    moments = np.concatenate([(response.T @ design)[..., None], identity], axis=2)
    solution, rank = solve_gram(gram, moments)
    coefficients, inverse = solution[..., 0], solution[..., 1:]
    residuals = (response - design @ coefficients.T) * weight

    bad = (n_obs < max(min_observations, size + 1)) | (rank < size)
    freedom = np.where(bad, np.nan, n_obs - size)
    squares = np.square(residuals).sum(axis=0)
    deviations = (response - response.sum(axis=0) / np.maximum(n_obs, 1)) * weight
    total = np.square(deviations).sum(axis=0)
    variance = squares / freedom
    if newey_west_lags is None:
        parameter_variance = np.diagonal(inverse, axis1=1, axis2=2) * variance[:, None]
    else:
        meat = _long_run_scores(design, residuals, newey_west_lags)
        parameter_variance = np.diagonal(inverse @ meat @ inverse, axis1=1, axis2=2)
    stderr = np.where(bad[:, None], np.nan, np.sqrt(parameter_variance))
    coefficients = np.where(bad[:, None], np.nan, coefficients)
    share = np.divide(squares, total, out=np.full_like(total, np.nan), where=~bad & (total > 0.0))
    return TimeSeriesRegression(
        alpha=coefficients[:, 0],
        beta=coefficients[:, 1:],
        alpha_stderr=stderr[:, 0],
        beta_stderr=stderr[:, 1:],
        r_squared=1.0 - share,
        residual_variance=variance,
        n_obs=n_obs,
    )


def _long_run_scores(design: FloatArray, residuals: FloatArray, lags: int) -> FloatArray:
    """(ticker, k, k) Bartlett-weighted sum of autocovariances of the scores x_t e_t, zero where unknown."""
    _check_lags(lags, len(design))
    scores = np.ascontiguousarray((residuals[:, :, None] * design[:, None, :]).transpose(1, 2, 0))
    total = scores @ scores.transpose(0, 2, 1)
    for lag, weight in enumerate(bartlett_weights(lags), start=1):
        cross = scores[..., lag:] @ scores[..., :-lag].transpose(0, 2, 1)
        total += weight * (cross + cross.transpose(0, 2, 1))
    return total


def _check_lags(lags: int, n_periods: int) -> None:
    if not 0 <= lags < n_periods:
        raise ModelError(f"newey_west_lags={lags} must not be negative, and fewer than the {n_periods} dates at hand.")
