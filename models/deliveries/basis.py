"""Prices of one stock on two bases: what a vendor adjusts again with every split and dividend.

Here belongs finding that a delivery restates all prices of a stock by one ratio, and by which. A ratio of a few rows
is a correction of those rows and none of the basis.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from models.arrays import FloatArray, IntArray

LEAST_COMMON = 21
"""Dates that a stock must have in both for their ratio to be one of a basis."""
_AGREEING = 0.9
_PRICES = ("open", "high", "low")


def rebased(record: xr.Dataset, delivery: xr.Dataset, order: IntArray) -> tuple[xr.Dataset, list[str]]:
    """Put what a record has before a delivery that reaches its end on the basis of that delivery.

    Without it, the return between the last date of the one and the first of the other would be that of the new basis.
    Dates that were delivered after those that both have are on the new basis already.

    Parameters
    ----------
    record, delivery : xarray.Dataset
        Variables of `schemas.contracts.RECORD` on the same tickers. Closes, and with them all prices, volumes and
        shares have a ratio each: the median over the dates that both have, if nine of ten of at least `LEAST_COMMON`
        are within a tenth of its distance from one.
    order : numpy.ndarray
        (date,) of the record: which delivery brought it, in the order of coming.

    Returns
    -------
    record : xarray.Dataset
        The same, in other units where a ratio was found.
    tickers : list of str
        Whose closes were.
    """
    changes: dict[str, xr.DataArray] = {}
    common = record.indexes["date"].isin(delivery.indexes["date"])
    if common.sum() < LEAST_COMMON:
        return record, []
    older = xr.DataArray(order <= order[common].min(), dims="date", coords={"date": record["date"]})
    moved: list[str] = []
    for name in ("close", "volume", "shares"):
        if name not in record or name not in delivery:
            continue
        ratio = _ratio(record[name], delivery[name])
        if (ratio == 1.0).all():
            continue
        scale = xr.DataArray(ratio, dims="ticker", coords={"ticker": record["ticker"]})
        of = (name, *(price for price in _PRICES if price in record)) if name == "close" else (name,)
        changes |= {one: record[one].where(~older, record[one] * scale) for one in of}
        if name == "close":
            moved = [str(ticker) for ticker in record["ticker"].values[ratio != 1.0]]
    return record.assign(changes), moved


def _ratio(before: xr.DataArray, after: xr.DataArray) -> FloatArray:
    """Return (ticker,) by what a basis has changed; 1 where it has not."""
    common = before.indexes["date"].intersection(after.indexes["date"])
    old, new = (array.sel(date=common).transpose("date", "ticker").values for array in (before, after))
    both = np.isfinite(old) & np.isfinite(new) & (old > 0.0) & (new > 0.0)
    ratios = np.where(both, new / np.where(both, old, 1.0), np.nan)
    enough = both.sum(axis=0) >= LEAST_COMMON
    ratio = np.ones(ratios.shape[1])
    ratio[enough] = np.nanmedian(ratios[:, enough], axis=0)
    agreeing = (np.abs(ratios / ratio - 1.0) <= 0.1 * np.abs(ratio - 1.0)).sum(axis=0)
    return np.where(agreeing >= _AGREEING * both.sum(axis=0), ratio, 1.0)
