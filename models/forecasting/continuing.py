"""The days after a version: the same rows as a retrain makes, put after those that are there.

Here belongs how new rows join old ones, on an axis of tickers that only grows. Publishing them belongs in `tasks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from models.forecasting.following import Served
from models.forecasting.joining import join
from models.forecasting.rows import FORECASTS, completed, scored
from schemas.contracts import VERSION


def continued(
    old: xr.Dataset,
    served: Served,
    held: xr.Dataset,
    returns: xr.DataArray,
    mask: xr.DataArray,
    order: Sequence[str],
) -> xr.Dataset:
    """Put the rows of the dates after a version behind its own, which stay bit for bit.

    Parameters
    ----------
    old : xarray.Dataset
        The version that is continued, in memory.
    served : Served
        What its fit says of the new dates.
    held : xarray.Dataset
        From `models.forecasting.held.holdings`, of the new dates, over the tickers of ``served``.
    returns, mask : xarray.DataArray
        (date, ticker) excess returns and estimation universe of the new dates, over the same tickers.
    order : sequence of str
        Those tickers in the order in which they first appeared: in it the new ones join the axis.
    """
    dates, tickers, factors = held.indexes["date"], held.indexes["ticker"], [str(name) for name in old["factor"].values]
    rows = completed(join([served], dates, tickers, factors), held)
    rows["out_of_sample"] = ("date", np.ones(len(dates), dtype=np.bool_))
    before = _widened(old.isel(date=[-1])[FORECASTS], tickers.union(old.indexes["ticker"], sort=False))
    rows = scored(rows, returns, mask, held, before.sel(ticker=tickers))
    new = pd.Index(order)
    axis = old.indexes["ticker"].append(new[~new.isin(old.indexes["ticker"])])
    return _joined(_widened(old, axis), _widened(rows, axis))


def _widened(rows: xr.Dataset, tickers: pd.Index) -> xr.Dataset:
    """Bring rows to other tickers: those that it lacks have no numbers, and a weight of zero where one is defined."""
    if rows.indexes["ticker"].equals(tickers):
        return rows
    wide = rows.reindex(ticker=tickers, fill_value={"imputed": False})
    defined = rows["weights"].notnull().any("ticker")
    wide["weights"] = wide["weights"].where(wide["weights"].notnull() | ~defined, np.float32(0.0))
    return wide


def _joined(old: xr.Dataset, new: xr.Dataset) -> xr.Dataset:
    dated = [name for name, array in old.data_vars.items() if "date" in array.dims]
    both = xr.concat([old[dated], new[dated]], "date", join="exact", coords="minimal", data_vars="all")
    ordered = {name: both[name].transpose(*VERSION[str(name)].dims).drop_attrs() for name in dated}
    return old.drop_dims("date").assign(ordered).drop_attrs(deep=False)
