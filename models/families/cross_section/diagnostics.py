"""How good the regressions of a cross-sectional model are, date by date, and on average.

Here belong standard errors of premia, t-statistics, variance inflation, R2, the stability of exposures and counts.
What they are computed from belongs in `regression`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from models.arrays import FloatArray
from models.inference.regression import newey_west_covariance

_SIGNIFICANT = 2.0


def exposure_stability(exposures: npt.NDArray[np.floating[Any]], weights: FloatArray, lag: int) -> FloatArray:
    """Weighted correlation (date, style) of exposures with those ``lag`` dates before.

    Parameters
    ----------
    exposures : numpy.ndarray
        (date, ticker, style); NaN where unknown.
    weights : numpy.ndarray
        (date, ticker) of the later date; stocks enter if it is positive and both exposures are known.
    lag : int
        At least 1; the first ``lag`` dates have NaN.
    """
    stability = np.full((len(exposures), exposures.shape[2]), np.nan)
    for style in range(exposures.shape[2]):
        later = exposures[lag:, :, style].astype(np.float64)
        earlier = exposures[: len(later), :, style].astype(np.float64)
        held = np.where(np.isfinite(later) & np.isfinite(earlier), weights[lag:], 0.0)
        total = held.sum(axis=1, keepdims=True)
        share = np.divide(held, total, out=np.zeros_like(held), where=total > 0.0)
        deviations = []
        for values in (later, earlier):
            known = np.where(share > 0.0, values, 0.0)
            deviations.append(known - (share * known).sum(axis=1, keepdims=True))
        cross, first, second = (
            (share * left * right).sum(axis=1)
            for left, right in ((deviations[0], deviations[1]), (deviations[0],) * 2, (deviations[1],) * 2)
        )
        scale = np.sqrt(first * second)
        np.divide(cross, scale, out=stability[lag:, style], where=scale > 0.0)
    return stability


def t_statistics(factor_returns: FloatArray, standard_errors: FloatArray) -> FloatArray:
    """Factor returns over their standard errors, (date, factor); NaN where a return is known without error.

    The return of an industry is: with only one on a date, its deviation from the market is zero by definition.
    """
    unknown = np.full_like(factor_returns, np.nan)
    return np.divide(factor_returns, standard_errors, out=unknown, where=standard_errors > 0.0)


def premia_errors(factor_returns: FloatArray, lags: Callable[[int], int]) -> FloatArray:
    """(factor,) Newey-West standard errors of the means, each over the dates that have the factor.

    Parameters
    ----------
    factor_returns : numpy.ndarray
        (date, factor); NaN where there is none. With fewer than 2 returns the error is NaN.
    lags : callable
        Number of autocovariances for a number of dates.
    """
    errors = np.full(factor_returns.shape[1], np.nan)
    known = np.isfinite(factor_returns)
    always = known.all(axis=0)
    complete = factor_returns[:, always]
    errors[always] = np.sqrt(np.diagonal(newey_west_covariance(complete, lags(len(complete)))))
    for factor in np.flatnonzero(~always & (known.sum(axis=0) > 1)):
        series = factor_returns[known[:, factor], factor, None]
        errors[factor] = np.sqrt(newey_west_covariance(series, lags(len(series)))[0, 0])
    return errors


def averages(t_statistics: FloatArray, vif: FloatArray, r_squared: FloatArray) -> dict[str, FloatArray]:
    """Mean of abs(t) and share of abs(t) > 2 by factor, mean VIF of the styles (NaN before them), mean R2.

    Parameters
    ----------
    t_statistics : numpy.ndarray
        (date, factor); NaN where there is none.
    vif : numpy.ndarray
        (date, style), the last factors.
    r_squared : numpy.ndarray
        (date,).
    """
    size = np.abs(t_statistics)
    known = np.isfinite(size)
    count = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    inflation = np.full(t_statistics.shape[1], np.nan)
    inflation[t_statistics.shape[1] - vif.shape[1] :] = _mean(vif)
    return {
        "mean_abs_t": _mean(size),
        "share_significant": (known & (size > _SIGNIFICANT)).sum(axis=0) / count,
        "mean_vif": inflation,
        "mean_r_squared": _mean(r_squared[:, None])[0],
    }


def dataset(
    by_factor: dict[str, FloatArray], by_style: dict[str, FloatArray], by_date: dict[str, Any], coords: dict[str, Any]
) -> xr.Dataset:
    """Label arrays (date, factor), (date, style) and (date,)."""
    named: dict[str, Any] = {name: (("date", "factor"), values) for name, values in by_factor.items()}
    named |= {name: (("date", "style"), values) for name, values in by_style.items()}
    named |= {name: (("date",), values) for name, values in by_date.items()}
    return xr.Dataset(named, coords=coords)


def _mean(values: FloatArray) -> FloatArray:
    """Mean over the dates that have a value; NaN if none has."""
    known = np.isfinite(values)
    count = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    mean: FloatArray = np.where(known, values, 0.0).sum(axis=0) / count
    return mean
