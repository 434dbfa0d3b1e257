"""What a fit says of the dates it serves: loadings, factor returns, specific variance, and what it explains.

A fit made as of a date serves the as-of dates from then until the next refit. A panel's row t holds X[t-1] beside r[t];
the row after an as-of date t therefore holds the loadings known at t. Everything is computed block by block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models import FactorModel, Panel
from models.families.base import contributing
from schemas.spec import SpecificSpec
from tasks.registry import specific_of

Arrays = dict[str, npt.NDArray[Any]]


def project(
    model: FactorModel,
    panel: Panel,
    as_of: pd.Timestamp,
    until: pd.Timestamp,
    specific: SpecificSpec,
    *,
    earliest: bool,
) -> Arrays:
    """Project a fitted model over the history and over the dates it serves.

    Parameters
    ----------
    model : FactorModel
        Fitted on dates up to `as_of`.
    panel : Panel
        Dates up to `until` at least; the last may be the next session, without a return.
    as_of, until : pandas.Timestamp
        The fit serves the as-of dates from `as_of` (inclusive) to `until` (exclusive): panel rows after `as_of` up to
        and including `until`.
    specific : SpecificSpec
        How specific variance is estimated.
    earliest : bool
        The first fit also gives the loadings of all dates before, in sample.

    Returns
    -------
    dict[str, numpy.ndarray]
        ``panel_date`` (row) and ``loadings`` (row, ticker, factor), ``expected_returns`` (row, ticker) of the rows
        served; ``history`` (date) and ``factor_returns`` (date, factor) from the first date to `until`;
        ``specific_variance`` (as-of, ticker) with ``as_of_date`` (as-of).
    """
    known = panel.sel(end=until)
    first_row = 0 if earliest else int(known.dates.searchsorted(as_of, side="right"))
    loadings, expected, factors, residuals = [], [], [], []
    row = 0
    for block in known.blocks():
        exposure = model.loadings(block).transpose("date", "ticker", "factor").astype(np.float32)
        realised = model.factor_returns(block).transpose("date", "factor").astype(np.float64)
        factors.append(realised.values)
        explaining = realised.copy(data=contributing(realised.values))
        residuals.append((block.returns - (exposure * explaining).sum("factor", skipna=False)).astype(np.float32))
        served = slice(max(first_row - row, 0), len(block.dates))
        if served.start < served.stop:
            loadings.append(exposure.values[served])
            expected.append(_expected(model, known, row + served.start, row + served.stop))
        row += len(block.dates)
    served_as_of = _as_of_dates(panel, as_of, until)
    variance = specific_of(specific).path(xr.concat(residuals, "date"), served_as_of, _everyone(panel, served_as_of))
    return {
        "panel_date": _days(known.dates[first_row:]),
        "loadings": np.concatenate(loadings),
        "expected_returns": np.concatenate(expected),
        "history": _days(known.dates),
        "factor_returns": np.concatenate(factors),
        "as_of_date": _days(served_as_of),
        "specific_variance": variance.values,
    }


def _expected(model: FactorModel, panel: Panel, start: int, stop: int) -> npt.NDArray[np.float32]:
    """Compute expected returns of rows from these and the row before, whose factor returns a model may look at."""
    before = min(start, 1)
    rows = Panel(panel.data.isel(date=slice(start - before, stop)).load())
    values = model.expected_returns(rows).transpose("date", "ticker").values[before:]
    return values.astype(np.float32)


def _as_of_dates(panel: Panel, as_of: pd.Timestamp, until: pd.Timestamp) -> pd.DatetimeIndex:
    dates = panel.dates
    return dates[(dates >= as_of) & (dates < until)]


def _everyone(panel: Panel, dates: pd.DatetimeIndex) -> xr.DataArray:
    """Ask for a variance of every stock; those without history of their own get the median."""
    shape = (len(dates), len(panel.tickers))
    coords = {"date": dates, "ticker": panel.data["ticker"].values}
    return xr.DataArray(np.ones(shape, dtype=bool), dims=("date", "ticker"), coords=coords)


def _days(dates: pd.DatetimeIndex) -> npt.NDArray[np.int64]:
    return dates.to_numpy().astype("datetime64[D]").astype(np.int64)
