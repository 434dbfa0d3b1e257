"""The days after a version: the same rows as a retrain makes, over an axis of tickers that only grows.

Here belongs how new rows follow old ones. Publishing them belongs in `tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import NamedArrays
from models.forecasting.calibrating import on_tickers
from models.forecasting.following import Served
from models.forecasting.joining import join
from models.forecasting.rows import FORECASTS, completed, scored
from models.panel import Panel
from schemas.calibration import CalibrationSpec
from schemas.contracts import VERSION


def continued(
    old: xr.Dataset,
    served: Served,
    held: xr.Dataset,
    new: Panel,
    order: Sequence[str],
    calibration: tuple[CalibrationSpec | None, NamedArrays] = (None, {}),
    benchmarks: Mapping[str, str] | None = None,
) -> tuple[xr.Dataset, NamedArrays]:
    """Make the rows of the dates after a version, which follow its own.

    Parameters
    ----------
    old : xarray.Dataset
        The version that is continued; it may be lazy, its last row is read, and what has no dates.
    served : Served
        What its fit says of the new dates.
    held : xarray.Dataset
        From `models.forecasting.held.holdings`, of the new dates, over the tickers of ``served``.
    new : Panel
        Rows of the new dates, over the same tickers.
    order : sequence of str
        Those tickers in the order in which they first appeared: in it the new ones join the axis.
    calibration : (CalibrationSpec or None, dict[str, numpy.ndarray])
        How rows are calibrated, and the state after the last row of the version, on its tickers.
    benchmarks : mapping of str to str, optional
        As in `models.forecasting.rows.completed`.

    Returns
    -------
    rows : xarray.Dataset
        Those of the new dates, over the tickers of the version and the new ones; what has no dates is the version's.
    state : dict[str, numpy.ndarray]
        Of the calibration after the last of them, on its tickers.
    """
    dates, tickers, n_factors = held.indexes["date"], held.indexes["ticker"], served.loadings.shape[2]
    spec, state = calibration
    if spec is not None:
        state = on_tickers(state, spec, old.indexes["ticker"], tickers, n_factors)
    joined = join([served], dates, tickers, [str(name) for name in old["factor"].values[:n_factors]])
    rows, state = completed(joined, held, new.returns.where(new.usable), spec, state, benchmarks=benchmarks)
    rows["out_of_sample"] = ("date", np.ones(len(dates), dtype=np.bool_))
    before = old[[name for name in FORECASTS if name in old]].isel(date=[-1]).load()
    before = _widened(before, tickers.union(old.indexes["ticker"], sort=False))
    rows = scored(rows, new.returns, new.mask, held, before.sel(ticker=tickers))
    known = pd.Index(order)
    axis = old.indexes["ticker"].append(known[~known.isin(old.indexes["ticker"])])
    if spec is not None:
        state = on_tickers(state, spec, tickers, axis, n_factors)
    rows = _widened(rows, axis)
    dated = [str(name) for name, array in old.data_vars.items() if "date" in array.dims]
    ordered = {name: rows[name].transpose(*VERSION[name].dims).drop_attrs() for name in dated}
    timeless = old.drop_dims("date").load().reindex(ticker=axis)
    return timeless.assign(ordered).drop_attrs(deep=False), state


def behind(old: xr.Dataset, rows: xr.Dataset) -> xr.Dataset:
    """Put rows from `continued` behind those of their version, or a part of either behind the same part.

    Parameters
    ----------
    old : xarray.Dataset
        The version, in memory, or some of its last dates and of its variables.
    rows : xarray.Dataset
        The rows that follow, with the same variables. What has no dates is taken from here.
    """
    wide = _widened(old, rows.indexes["ticker"]) if "ticker" in rows.indexes else old
    dated = [name for name, array in rows.data_vars.items() if "date" in array.dims]
    both = xr.concat([wide[dated], rows[dated]], "date", join="exact", coords="minimal", data_vars="all")
    ordered = {name: both[name].transpose(*rows[name].dims).drop_attrs() for name in dated}
    return rows.drop_dims("date").assign(ordered)


def _widened(rows: xr.Dataset, tickers: pd.Index) -> xr.Dataset:
    """Bring rows to other tickers: those that it lacks have no numbers, and a weight of zero where one is defined."""
    if rows.indexes["ticker"].equals(tickers):
        return rows
    wide = rows.reindex(ticker=tickers, fill_value={"imputed": False})
    defined = rows["weights"].notnull().any("ticker")
    wide["weights"] = wide["weights"].where(wide["weights"].notnull() | ~defined, np.float32(0.0))
    return wide
