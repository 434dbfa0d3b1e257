"""Summaries of a delivery beside what earlier ones have said: what it takes back, and whether it is of this universe.

Here belong comparisons of a record before and after. What the market looks like afterwards belongs in `summaries`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import BoolArray
from models.quality.arrays import labels

ACTIVE_DATES = 5


def withdrawn_rows(before: xr.Dataset, after: xr.Dataset) -> pd.DataFrame:
    """Return the rows that a record had and has no more: `date` and `ticker`, in order.

    Parameters
    ----------
    before, after : xarray.Dataset
        ``close`` or ``returns`` (date, ticker).
    """
    known = xr.DataArray(_known(before), coords=[before["date"], before["ticker"]])
    still = xr.DataArray(_known(after), coords=[after["date"], after["ticker"]])
    gone = known & ~still.reindex_like(known, fill_value=False)
    rows, columns = np.nonzero(gone.transpose("date", "ticker").values)
    return pd.DataFrame({"date": known.indexes["date"][rows], "ticker": labels(known["ticker"])[columns]})


def delivery_tables(
    before: xr.Dataset | None, delivery: xr.Dataset, after: xr.Dataset, kind: Literal["full", "increment"]
) -> dict[str, pd.DataFrame]:
    """Summarise what a delivery takes back of a record; nothing if there was none.

    Parameters
    ----------
    before, delivery, after : xarray.Dataset
        ``close`` or ``returns`` (date, ticker): what was said before, what is delivered, what is said afterwards.
    kind : {"full", "increment"}
        Whether the delivery has all tickers.

    Returns
    -------
    dict of str to DataFrame
        ``withdrawn``, one row per date of `before` within the delivery: how many of its rows go. ``delivery``, one row:
        `withdrawn_share` of all rows there; and, of a full delivery, `known_tickers`, the share of the tickers that
        were active around its last date and that it has. A source whose tickers were renamed has few of them.
    """
    if before is None:
        return {}
    first, last = delivery.indexes["date"][[0, -1]]
    spoken = before.sel(date=slice(first, last))
    counts = pd.Series(_known(spoken).sum(axis=1), index=spoken.indexes["date"])
    gone = withdrawn_rows(spoken, after)["date"].value_counts().reindex(counts.index, fill_value=0)
    whole = {"item": "all", "withdrawn_share": gone.sum() / max(counts.sum(), 1)}
    if kind == "full":
        recent = before.sel(date=slice(None, last)).isel(date=slice(-ACTIVE_DATES, None))
        recent = recent if recent.sizes["date"] else before.isel(date=slice(0, 1))
        active = labels(before["ticker"])[_known(recent).any(axis=0)]
        present = labels(delivery["ticker"])[_known(delivery).any(axis=0)]
        whole["known_tickers"] = float(np.isin(active, present).mean()) if len(active) else 1.0
    days = pd.DatetimeIndex(counts.index).strftime("%Y-%m-%d").to_numpy(dtype=object)
    tables = {"delivery": pd.DataFrame([whole])}
    if len(days):
        tables["withdrawn"] = pd.DataFrame({"date": days, "withdrawn_row": gone.to_numpy()})
    return tables


def _known(market: xr.Dataset) -> BoolArray:
    known: BoolArray = np.isfinite(
        market["returns" if "returns" in market else "close"].transpose("date", "ticker").values
    )
    return known
