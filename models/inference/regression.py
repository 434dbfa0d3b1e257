"""Inference along time: Newey-West covariances, and regressions of many stocks on the same factors at once.

Here belong estimators that know dates and regressors but no model. Which series are regressed on which
belongs in the models.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray
from models.statistics.gram import solve_gram
from schemas.errors import ConfigError, ModelError

CovType = Literal["nonrobust", "HC0", "HC1", "HC2", "HC3", "HAC"]  # the names of statsmodels
_CELLS_AT_ONCE = 2**22
"""Cells (date, ticker) that are regressed at a time: half a dozen arrays of 32 MiB."""
_LEAST_SLACK = 1e-10  # 1 - leverage below which an observation determines its own residual


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
    return long_run_covariance(series - series.mean(axis=0), lags) / len(series)


def long_run_covariance(deviations: FloatArray, lags: int) -> FloatArray:
    """Long-run covariance of (date, k) deviations d, the S of `newey_west_covariance`.

    Nothing is subtracted: the deviations are from what they are expected to be.

    Raises
    ------
    ModelError
        If the lags are negative or not fewer than the dates.
    """
    _check_lags(lags, len(deviations))
    total = deviations.T @ deviations
    for lag, weight in enumerate(bartlett_weights(lags), start=1):
        cross = deviations[lag:].T @ deviations[:-lag]
        total += weight * (cross + cross.T)
    covariance: FloatArray = total / len(deviations)
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
    return_variance : numpy.ndarray
        (ticker,) sample variance of the returns that enter, divisor n - 1, per period.
    residual_variance : numpy.ndarray
        (ticker,) residual sum of squares over n - k - 1, per period.
    classical_variance : numpy.ndarray
        (ticker, 1 + factor) residual_variance times the diagonal of (X'X)^-1: squared standard errors of alpha and beta
        under independent errors of one variance, whatever the ``cov_type``.
    n_obs : numpy.ndarray
        (ticker,) number of dates; the other fields are NaN where there are too few, or where they do not
        identify beta.
    """

    alpha: FloatArray
    beta: FloatArray
    alpha_stderr: FloatArray
    beta_stderr: FloatArray
    r_squared: FloatArray
    return_variance: FloatArray
    residual_variance: FloatArray
    classical_variance: FloatArray
    n_obs: npt.NDArray[np.int64]


def time_series_regression(
    returns: FloatArray,
    factors: FloatArray,
    known: npt.NDArray[np.bool_],
    *,
    min_observations: int,
    cov_type: CovType = "nonrobust",
    newey_west_lags: int | None = None,
) -> TimeSeriesRegression:
    """Regress all stocks at once: one batched solve, whatever the histories; of many, block by block.

    Parameters
    ----------
    returns : numpy.ndarray
        (date, ticker), decimals, in the precision of their storage; values outside ``known`` are ignored, NaN included.
    factors : numpy.ndarray
        (date, factor); a date with a NaN enters nowhere.
    known : numpy.ndarray
        (date, ticker) which returns enter.
    min_observations : int
        Stocks with fewer dates get NaN; at least the number of parameters plus one is always required.
    cov_type : str
        Standard errors, by the names of statsmodels. With V = (X'X)^-1, x_t a row of X = [1, factors] and
        h_t = x_t'V x_t: "nonrobust" s^2 V; "HC0" V (sum e_t^2 x_t x_t') V (White 1980); "HC1" that times
        n / (n - k - 1); "HC2" and "HC3" with e_t^2 / (1 - h_t) and e_t^2 / (1 - h_t)^2 (MacKinnon and White 1985);
        "HAC" with Bartlett-weighted autocovariances of x_t e_t (Newey and West 1987), without small-sample
        correction. A lag counts dates of the panel, so that the two sides of a gap are not neighbours.
    newey_west_lags : int, optional
        Lags of "HAC". Default: `automatic_lags` of the number of dates.

    Raises
    ------
    ConfigError
        If the ``cov_type`` is unknown, or lags are given for another one than "HAC".
    ModelError
        If there are as many lags as dates.
    """
    lags = resolve_lags(cov_type, newey_west_lags, len(factors))
    usable: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(factors), axis=1, keepdims=True)
    design = np.column_stack([np.ones(len(factors)), np.where(usable, factors, 0.0)])
    at_once = max(1, _CELLS_AT_ONCE // max(1, len(factors)))
    parts = [
        _regression(returns[:, some], design, known[:, some] & usable, min_observations, cov_type, lags)
        for some in (slice(start, start + at_once) for start in range(0, max(1, returns.shape[1]), at_once))
    ]
    joined = {each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(parts[0])}
    return TimeSeriesRegression(**joined)


def _regression(
    returns: FloatArray,
    design: FloatArray,
    known: npt.NDArray[np.bool_],
    min_observations: int,
    cov_type: CovType,
    lags: int,
) -> TimeSeriesRegression:
    """Regress some stocks on (date, 1 + factor) regressors."""
    response = np.where(known, returns, 0.0).astype(np.float64, copy=False)
    size, weight = design.shape[1], known.astype(np.float64)
    n_obs = known.sum(axis=0, dtype=np.int64)
    gram = weighted_products(weight, design, design)
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
    residual_variance = squares / freedom
    classical = np.diagonal(inverse, axis1=1, axis2=2) * residual_variance[:, None]
    parameter_variance = classical
    if cov_type != "nonrobust":
        meat = _score_covariance(design, residuals, inverse, cov_type, lags)
        parameter_variance = np.diagonal(inverse @ meat @ inverse, axis1=1, axis2=2)
        if cov_type == "HC1":
            parameter_variance = parameter_variance * (n_obs / freedom)[:, None]
    stderr = np.where(bad[:, None], np.nan, np.sqrt(parameter_variance))
    coefficients = np.where(bad[:, None], np.nan, coefficients)
    share = np.divide(squares, total, out=np.full_like(total, np.nan), where=~bad & (total > 0.0))
    return TimeSeriesRegression(
        alpha=coefficients[:, 0],
        beta=coefficients[:, 1:],
        alpha_stderr=stderr[:, 0],
        beta_stderr=stderr[:, 1:],
        r_squared=1.0 - share,
        return_variance=total / np.where(bad, np.nan, n_obs - 1.0),
        residual_variance=residual_variance,
        classical_variance=classical,
        n_obs=n_obs,
    )


def resolve_lags(cov_type: CovType, newey_west_lags: int | None, n_periods: int) -> int:
    """Return the lags of a ``cov_type`` over ``n_periods`` dates: 0 unless it is "HAC".

    Raises
    ------
    ConfigError
        If the ``cov_type`` is unknown, or lags are given for another one than "HAC".
    ModelError
        If there are as many lags as dates.
    """
    if cov_type not in get_args(CovType):
        raise ConfigError(f"cov_type='{cov_type}' is not known; it is one of {', '.join(get_args(CovType))}.")
    if cov_type != "HAC":
        if newey_west_lags is not None:
            raise ConfigError(f"newey_west_lags={newey_west_lags} needs cov_type='HAC', not '{cov_type}'.")
        return 0
    lags = automatic_lags(n_periods) if newey_west_lags is None else newey_west_lags
    _check_lags(lags, n_periods)
    return lags


def weighted_products(weight: FloatArray, left: FloatArray, right: FloatArray) -> FloatArray:
    """(ticker, k, k) sums over dates of weight[t, i] left[t] right[t]', as one product of matrices."""
    size = left.shape[1]
    outer = (left[:, :, None] * right[:, None, :]).reshape(len(left), size * size)
    return (weight.T @ outer).reshape(-1, size, size)


def _score_covariance(
    design: FloatArray, residuals: FloatArray, inverse: FloatArray, cov_type: CovType, lags: int
) -> FloatArray:
    """(ticker, k, k) covariance of the summed scores x_t e_t; residuals are zero where unknown."""
    squares = np.square(residuals)
    if cov_type in ("HC2", "HC3"):
        size = design.shape[1]
        outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), size * size)
        slack = 1.0 - outer @ inverse.reshape(-1, size * size).T
        divisor = slack if cov_type == "HC2" else np.square(slack)
        unknown = np.where(residuals == 0.0, 0.0, np.nan)
        squares = np.divide(squares, divisor, out=unknown, where=slack > _LEAST_SLACK)
    total = weighted_products(squares, design, design)
    for lag, weight in enumerate(bartlett_weights(lags), start=1):
        cross = weighted_products(residuals[lag:] * residuals[:-lag], design[lag:], design[:-lag])
        total += weight * (cross + cross.transpose(0, 2, 1))
    return total


def _check_lags(lags: int, n_periods: int) -> None:
    if not 0 <= lags < n_periods:
        raise ModelError(f"newey_west_lags={lags} must not be negative, and fewer than the {n_periods} dates at hand.")
