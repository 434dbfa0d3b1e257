"""Betas through time, and betas that borrow from their cross-section.

Here belong rolling and expanding regressions of many stocks at once, and the shrinkage of betas. One regression per
stock over one span, with robust errors, belongs in `inference`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from models.arrays import FloatArray
from models.statistics.gram import date_spans, solve_gram
from schemas.errors import ModelError

Shrinkage = Literal["vasicek", "blume"]
BLUME_INTERCEPT, BLUME_SLOPE = 0.343, 0.677  # Blume (1971): betas of 1954-61 on those of 1947-54


def shrink_vasicek(beta: FloatArray, sampling_variance: FloatArray) -> FloatArray:
    """Shrink each beta towards the mean of its cross-section, the more the less is known of it.

    (m / v + b_i / s_i^2) / (1 / v + 1 / s_i^2), the posterior mean under a normal prior. The prior is the cross-section
    itself, as usual in practice: m the mean and v the sample variance of the estimates; with fewer than two, or all
    equal, nothing is shrunk. Source: Vasicek (1973); Elton, Gruber, Brown and Goetzmann, Modern Portfolio
    Theory, ch. 7.

    Parameters
    ----------
    beta : numpy.ndarray
        (..., ticker) least-squares betas on one factor; NaN where unknown, and there only.
    sampling_variance : numpy.ndarray
        (..., ticker) squared classical standard errors.
    """
    known = np.isfinite(beta)
    count = known.sum(axis=-1, keepdims=True)
    mean = np.where(known, beta, 0.0).sum(axis=-1, keepdims=True) / np.maximum(count, 1)
    squares = np.square(np.where(known, beta - mean, 0.0)).sum(axis=-1, keepdims=True)
    prior = squares / np.maximum(count - 1, 1)
    total = prior + sampling_variance
    weight = np.divide(prior, total, out=np.ones_like(total), where=(prior > 0.0) & (total > 0.0))
    shrunk: FloatArray = mean + weight * (beta - mean)
    return shrunk


def shrink_blume(beta: FloatArray, intercept: float = BLUME_INTERCEPT, slope: float = BLUME_SLOPE) -> FloatArray:
    """Predict the beta of the next period, ``intercept + slope * beta``; by default with the published coefficients.

    Source: Blume (1971), betas of July 1954 to June 1961 regressed on those of the seven years before. See
    `blume_coefficients` for one's own.
    """
    return intercept + slope * beta


def blume_coefficients(earlier: FloatArray, later: FloatArray) -> tuple[float, float]:
    """Intercept and slope of the cross-sectional regression of later betas on earlier ones (Blume 1971).

    Parameters
    ----------
    earlier, later : numpy.ndarray
        (ticker,) betas of two spans that do not overlap; stocks without one of the two are left out.

    Raises
    ------
    ModelError
        If fewer than three stocks have both, or the earlier betas are all equal.
    """
    known = np.isfinite(earlier) & np.isfinite(later)
    if known.sum() < 3 or np.ptp(earlier[known]) == 0.0:
        raise ModelError(
            f"Blume's regression needs three stocks with different betas in both spans, not {known.sum()}."
        )
    design = np.column_stack([np.ones(known.sum()), earlier[known]])
    (intercept, slope), *_ = np.linalg.lstsq(design, later[known])
    return float(intercept), float(slope)


def beta_paths(
    returns: FloatArray,
    factors: FloatArray,
    known: npt.NDArray[np.bool_],
    *,
    window: int | None,
    min_observations: int,
) -> xr.Dataset:
    """Regress every stock on a constant and the factors as of every date, over its last ``window`` dates or all so far.

    The value at t is that of `models.inference.regression.time_series_regression` over the dates up to and including t
    that have all factors, so that nothing after t enters; a date without factors carries the values of the date before.
    One pass computes the moments of all windows: expanding ones as cumulative sums, rolling ones as the sum of a suffix
    and a prefix of two neighbouring blocks of ``window`` dates (van Herk 1992), so that no sum is ever subtracted and
    an outlier leaves no trace once it has left the window.

    Parameters
    ----------
    returns : numpy.ndarray
        (date, ticker), decimals per period; values outside ``known`` are ignored.
    factors : numpy.ndarray
        (date, factor).
    known : numpy.ndarray
        (date, ticker) which returns enter.
    window : int, optional
        Number of dates, counting those with all factors; None for expanding windows.
    min_observations : int
        Returns in the window below which a stock has NaN.

    Returns
    -------
    xarray.Dataset
        ``alpha`` (date, ticker), ``beta`` (date, ticker, factor), ``alpha_stderr``, ``beta_stderr`` (classical),
        ``r_squared``, ``residual_variance``, ``n_obs``; without coordinates.

    Raises
    ------
    ModelError
        If the window is not longer than the number of regressors.
    """
    size = factors.shape[1] + 1
    if window is not None and window <= size:
        raise ModelError(
            f"window={window} is too short for {size - 1} factors and an intercept; use at least {size + 1}."
        )
    usable = np.isfinite(factors).all(axis=1)
    design = np.column_stack([np.ones(int(usable.sum())), factors[usable]])
    n_tickers = returns.shape[1]
    found: dict[str, FloatArray] = {
        name: np.full((len(returns), n_tickers), np.nan)
        for name in ("alpha", "alpha_stderr", "r_squared", "residual_variance")
    }
    found |= {name: np.full((len(returns), n_tickers, size - 1), np.nan) for name in ("beta", "beta_stderr")}
    found["n_obs"] = np.zeros((len(returns), n_tickers))
    carried = np.cumsum(usable) - 1  # position among usable dates of the last one up to each date
    served = carried >= 0
    for span in date_spans(n_tickers, len(design) * (size + 1) ** 2):
        weight = known[usable, span].astype(np.float64)
        response = np.where(known[usable, span], returns[usable, span], 0.0)
        part = _regress(design, response, weight, window, min_observations)
        for name, values in part.items():
            found[name][served, span] = values[carried[served]]
    dims = ("date", "ticker", "factor")
    data = xr.Dataset({name: (dims[: values.ndim], values) for name, values in found.items()})
    return data.assign(n_obs=data["n_obs"].astype(np.int64))


def _regress(
    design: FloatArray, response: FloatArray, weight: FloatArray, window: int | None, min_observations: int
) -> dict[str, FloatArray]:
    """Regressions of some stocks over all windows, from their moments [X, r]'[X, r]."""
    n_dates, size = design.shape
    joint = np.empty((n_dates, response.shape[1], size + 1))
    joint[..., :size] = design[:, None, :] * weight[..., None]
    joint[..., size] = response
    rows, columns = np.triu_indices(size + 1)
    moments = np.empty((n_dates, response.shape[1], size + 1, size + 1))
    for row, column in zip(rows, columns, strict=True):
        sums = _window_sums(joint[..., row] * joint[..., column], window)
        moments[..., row, column] = moments[..., column, row] = sums
    flat = moments.reshape(-1, size + 1, size + 1)
    gram, cross, square = flat[:, :size, :size], flat[:, :size, size:], flat[:, size, size]
    identity = np.broadcast_to(np.eye(size), gram.shape)
    solution, rank = solve_gram(gram, np.concatenate([cross, identity], axis=2))
    coefficients, inverse = solution[..., 0], solution[..., 1:]
    n_obs = gram[:, 0, 0]
    bad = (n_obs < max(min_observations, size + 1)) | (rank < size)
    explained = np.einsum("bk,bk->b", coefficients, cross[..., 0])
    residual = np.maximum(square - explained, 0.0)
    total = square - np.square(cross[:, 0, 0]) / np.maximum(n_obs, 1.0)
    variance = residual / np.where(bad, np.nan, n_obs - size)
    stderr = np.sqrt(np.diagonal(inverse, axis1=1, axis2=2) * variance[:, None])
    coefficients = np.where(bad[:, None], np.nan, coefficients)
    share = np.divide(residual, total, out=np.full_like(total, np.nan), where=~bad & (total > 0.0))
    found = {
        "alpha": coefficients[:, 0],
        "beta": coefficients[:, 1:],
        "alpha_stderr": stderr[:, 0],
        "beta_stderr": stderr[:, 1:],
        "r_squared": 1.0 - share,
        "residual_variance": variance,
        "n_obs": n_obs,
    }
    return {name: values.reshape(n_dates, -1, *values.shape[1:]) for name, values in found.items()}


def _window_sums(values: FloatArray, window: int | None) -> FloatArray:
    """Return sums over the last ``window`` rows up to and including each row, or over all of them."""
    n_dates = len(values)
    if window is None or window >= n_dates:
        return np.cumsum(values, axis=0)
    n_blocks = -(-n_dates // window)
    padded = np.zeros((n_blocks * window, values.shape[1]))
    padded[:n_dates] = values
    blocks = padded.reshape(n_blocks, window, -1)
    sums = np.cumsum(blocks, axis=1)
    suffix = np.cumsum(blocks[:-1, ::-1], axis=1)[:, ::-1]
    sums[1:, :-1] += suffix[:, 1:]
    return sums.reshape(n_blocks * window, -1)[:n_dates]
