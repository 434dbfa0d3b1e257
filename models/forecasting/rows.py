"""The rows of a version, made whole: imputed loadings, specific variance where covered, portfolio variance, scores.

Here belongs what follows from loadings, Omega and holdings of a date, and nothing of it looks at another date's, but
for the scores, which look at the date before. It is the one place where rows are made whole: of a retrain all at once,
of an update a few.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from models.arrays import NamedArrays
from models.evaluation import forecasts
from models.evaluation.attributed import earned
from models.evaluation.ranks import variance_ratio_by_rank
from models.forecasting.calibrating import calibrated
from models.forecasting.held import counted, reindexed
from models.risk.benchmark import active_risk
from models.risk.portfolio import RiskModel
from schemas.calibration import CalibrationSpec
from schemas.contracts import VERSION

FORECASTS = [
    "loadings",
    "loading_scale",
    "factor_returns",
    "omega",
    "specific_variance",
    "expected_returns",
    "weights",
    "portfolio_variance",
]
"""What the scores of the next date look at."""


def completed(
    joined: xr.Dataset,
    held: xr.Dataset,
    returns: xr.DataArray,
    spec: CalibrationSpec | None,
    state: NamedArrays | None = None,
    *,
    benchmarks: Mapping[str, str] | None = None,
) -> tuple[xr.Dataset, NamedArrays]:
    """Add what follows from the rows of fits and what is held, and calibrate them.

    Parameters
    ----------
    joined : xarray.Dataset
        From `models.forecasting.joining.join`.
    held : xarray.Dataset
        From `models.forecasting.held.holdings`, on the same dates and tickers.
    returns : xarray.DataArray
        (date, ticker) excess returns of at least these dates and tickers that may enter a stock's risk, NaN elsewhere.
    spec : CalibrationSpec or None
        How they are calibrated, if they are.
    state : dict[str, numpy.ndarray], optional
        Of the calibration, after the date before the first row.
    benchmarks : mapping of str to str, optional
        Portfolio to its benchmark, another portfolio of what is held.

    Returns
    -------
    rows : xarray.Dataset
        ``joined`` with imputed loadings, ``imputed``, ``weights``, and ``portfolio_variance`` with its parts; with
        benchmarks also ``portfolio_beta`` and ``tracking_error``. Specific variance is known where loadings are.
    state : dict[str, numpy.ndarray]
        Of the calibration, after the last row; empty without one.
    """
    filled, imputed = impute(joined["loadings"], held)
    covered = filled.notnull().all("factor")
    rows = joined.assign(
        loadings=filled,
        imputed=imputed,
        specific_variance=joined["specific_variance"].where(covered),
        weights=held["weights"],
    )
    after: NamedArrays = {}
    if spec is not None:
        place = {"date": rows.indexes["date"], "ticker": rows.indexes["ticker"]}
        rows, after = calibrated(rows, returns.sel(place), spec, state)
    risk = RiskModel(rows["loadings"], rows["omega"], rows["specific_variance"])
    rows = rows.merge(risk.decompose(rows["weights"]))
    return (rows.merge(active_risk(risk, rows["weights"], benchmarks)) if benchmarks else rows), after


def impute(loadings: xr.DataArray, held: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Give traded stocks without loadings of their own the cross-section's mean, and say which ones.

    A portfolio that holds a new listing has a risk, and the mean stock is the best guess of it.

    Parameters
    ----------
    loadings : xarray.DataArray
        (date, ticker, factor); NaN where a stock is not covered.
    held : xarray.Dataset
        As in `completed`.

    Returns
    -------
    filled : xarray.DataArray
        (date, ticker, factor) float32.
    imputed : xarray.DataArray
        (date, ticker) bool.
    """
    traded = held["estimation"] | (abs(held["weights"]) > 0).any("portfolio")
    covered = loadings.notnull().all("factor")
    values = loadings.transpose("date", "ticker", "factor").values.astype(np.float32)
    mean = np.full((len(values), values.shape[2]), np.nan, dtype=np.float32)
    for date, inside in enumerate(covered.transpose("date", "ticker").values):
        if inside.any():  # over covered stocks alone: others do not change the rounding
            mean[date] = values[date, inside].mean(axis=0, dtype=np.float64)
    known = xr.DataArray(np.isfinite(mean).all(axis=1), {"date": loadings["date"]}, ("date",))
    imputed = traded.transpose("date", "ticker") & ~covered & known
    filled = np.where(imputed.values[..., np.newaxis], mean[:, np.newaxis], values)
    return loadings.transpose("date", "ticker", "factor").copy(data=filled), imputed


def scored(
    rows: xr.Dataset, returns: xr.DataArray, mask: xr.DataArray, held: xr.Dataset, before: xr.Dataset | None = None
) -> xr.Dataset:
    """Add to rows how the forecasts of the date before each held, with suspected returns and without them.

    And by which factor each portfolio earned what it did.

    A refuted return counts in neither. R2 are over the estimation universe, which has no suspected return, and
    eigenportfolios earn no suspected return either.

    Parameters
    ----------
    rows : xarray.Dataset
        From `completed`.
    returns, mask : xarray.DataArray
        (date, ticker) excess returns per period and estimation universe of at least these dates and tickers.
    held : xarray.Dataset
        From `models.forecasting.held.holdings`, on the dates and tickers of the rows.
    before : xarray.Dataset, optional
        `FORECASTS` of the date before the first row, on the same tickers; without it that has no scores.
    """
    names = [name for name in FORECASTS if name in rows]
    seen = rows[names]
    trusted = reindexed(held["estimation"], returns)
    returns = counted(returns, held)
    if before is not None:
        seen = xr.concat([before[names], seen], "date", join="exact", coords="minimal", data_vars="all")
        place = {"date": rows.indexes["date"], "ticker": rows.indexes["ticker"]}
        nothing = xr.full_like(before["expected_returns"], np.nan, dtype=returns.dtype)
        returns, mask, trusted = (
            xr.concat([none, array.sel(place)], "date", join="exact", coords="minimal")
            for none, array in ((nothing, returns), (nothing.notnull(), mask), (nothing.notnull(), trusted))
        )
    series = forecasts.evaluate(seen, returns, mask, trusted)
    series = series[[name for name in series if name in VERSION]]
    effects = earned(seen.assign(portfolio_return=series["portfolio_return"]))
    series["attribution_factor"], series["attribution_specific"] = effects["factor"], effects["specific"]
    series["variance_ratio_by_rank"] = variance_ratio_by_rank(seen, returns.where(trusted))
    return rows.merge(series.sel(date=rows.indexes["date"]))


def out_of_sample(rows: xr.Dataset, first_fit: np.datetime64) -> xr.Dataset:
    """Say of each date whether the fit in force at it was made before it: all after the date of the first fit are."""
    return rows.assign(out_of_sample=("date", rows.indexes["date"] > first_fit))
