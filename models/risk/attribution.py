"""What a portfolio earned, and by what: factors, and what is specific, period by period and linked over a span.

Here belongs the attribution of realised returns. Attribution of forecast risk belongs in `contributions`, whether
forecasts held in `models.evaluation`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from models.arrays import Float64Array
from schemas.errors import DataError


def attribute(exposures: xr.DataArray, factor_returns: xr.DataArray, portfolio_returns: xr.DataArray) -> xr.Dataset:
    """Split realised portfolio returns into factors and a specific rest: r_P[t] = sum_k x_k[t-1] f_k[t] + s[t].

    Parameters
    ----------
    exposures : xarray.DataArray
        ([portfolio,] date, factor) as of the date: `RiskModel.exposures` of weights by date.
    factor_returns : xarray.DataArray
        (date, factor) over the period that ends at the date, in the same coordinates.
    portfolio_returns : xarray.DataArray
        ([portfolio,] date) realised at the date by the weights of the date before: ``portfolio_return`` of a version.

    Returns
    -------
    xarray.Dataset
        ``factor`` ([portfolio,] date, factor), ``specific`` and ``portfolio_return`` ([portfolio,] date), labelled by
        the date of the return. NaN on the first date, and where something is missing.

    Raises
    ------
    DataError
        If dates or factors are not the same ones, or dates are not sorted and unique.

    Examples
    --------
    >>> import pandas as pd
    >>> import xarray as xr
    >>> from models import RiskModel, attribute
    >>> dates = pd.bdate_range("2024-01-01", periods=2)
    >>> exposures = xr.DataArray([[1.0], [0.9]], {"date": dates, "factor": ["market"]}, ("date", "factor"))
    >>> factor_returns = exposures.copy(data=[[0.01], [0.02]])
    >>> realised = xr.DataArray([0.011, 0.025], {"date": dates}, ("date",))
    >>> attribute(exposures, factor_returns, realised)["specific"].values.round(4).tolist()
    [nan, 0.005]
    """
    for dim in ("date", "factor"):
        if not exposures.indexes[dim].equals(factor_returns.indexes[dim]):
            raise DataError(f"exposures and factor_returns do not have the same {dim} axis; align them first.")
    dates = exposures.indexes["date"]
    if not (dates.equals(portfolio_returns.indexes["date"]) and dates.is_monotonic_increasing and dates.is_unique):
        raise DataError("exposures and portfolio_returns must have the same dates, sorted and unique.")
    factor = exposures.astype(np.float64).shift(date=1) * factor_returns.astype(np.float64)
    total = portfolio_returns.astype(np.float64)
    specific = total - factor.sum("factor", skipna=False)
    known = specific.notnull()
    parts = {"factor": factor.where(known), "specific": specific, "portfolio_return": total.where(known)}
    ordered = ("portfolio", "date", "factor")
    return xr.Dataset(
        {name: part.drop_attrs().transpose(*ordered, missing_dims="ignore") for name, part in parts.items()}
    )


def link(attribution: xr.Dataset) -> xr.Dataset:
    """Link the effects of single periods so that they sum to the compounded return.

    Returns compound, effects of single periods do not. With k[t] = ln(1 + r[t]) / r[t] and K = ln(1 + R) / R of the
    compounded return R, an effect of period t counts k[t] / K times (Carino 1999, Combining attribution effects over
    time); the limit of k for r = 0 is 1.

    Parameters
    ----------
    attribution : xarray.Dataset
        From `attribute`. Dates on which it is NaN are left out: the span is what lies between them, and ``n_dates``
        says how much of it is known.

    Returns
    -------
    xarray.Dataset
        ``factor`` ([portfolio,] factor), ``specific``, ``portfolio_return`` R and ``n_dates`` ([portfolio]). Factors
        and specific sum to R. NaN for a portfolio without a known date.

    Raises
    ------
    DataError
        If a return is -1 or less: nothing is left to compound.

    Examples
    --------
    >>> import pandas as pd
    >>> import xarray as xr
    >>> from models import attribute, link
    >>> dates = pd.bdate_range("2024-01-01", periods=3)
    >>> exposures = xr.DataArray(3 * [[1.0]], {"date": dates, "factor": ["market"]}, ("date", "factor"))
    >>> factor_returns = exposures.copy(data=[[0.0], [0.1], [0.1]])
    >>> realised = xr.DataArray([0.0, 0.1, 0.1], {"date": dates}, ("date",))
    >>> round(float(link(attribute(exposures, factor_returns, realised))["factor"].sum()), 4)
    0.21
    """
    returns = attribution["portfolio_return"]
    if (returns <= -1.0).any():
        lost = returns.where(returns <= -1.0).dropna("date", how="all").indexes["date"][0]
        raise DataError(f"a portfolio lost everything by {lost:%Y-%m-%d}; returns that end at -1 cannot be linked.")
    known = returns.notnull()
    n_dates = known.sum("date")
    logs = xr.apply_ufunc(np.log1p, returns.where(known, 0.0))
    total_log = logs.sum("date").where(n_dates > 0)
    compounded = xr.apply_ufunc(np.expm1, total_log)
    scale = xr.apply_ufunc(_log_ratio, returns) / xr.apply_ufunc(_log_ratio, compounded)
    parts = {
        "factor": (attribution["factor"] * scale).sum("date").where(n_dates > 0),
        "specific": (attribution["specific"] * scale).sum("date").where(n_dates > 0),
        "portfolio_return": compounded,
        "n_dates": n_dates,
    }
    return xr.Dataset(parts)


def _log_ratio(returns: Float64Array) -> Float64Array:
    """Return ln(1 + r) / r, which is 1 at 0."""
    at_zero = returns == 0.0
    ratio: Float64Array = np.where(at_zero, 1.0, np.log1p(returns) / np.where(at_zero, 1.0, returns))
    return ratio


def _ordered(array: xr.DataArray) -> xr.DataArray:
    return array.drop_attrs().transpose("portfolio", "date", "factor", missing_dims="ignore")
