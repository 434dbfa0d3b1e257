"""Tickers that come back as another company.

Here belongs telling the companies apart that have had a ticker one after the other. What follows from it belongs in
`models.characteristics`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from models.arrays import FloatArray, IntArray

_OTHER_PRICE = 2.0
"""Times the last price before, up or down, from which on a price is another one."""
_SAME_PRICE = 12
"""How many times longer a stock may stay away if its price is not another one, or not known."""


class Before(NamedTuple):
    """What is known of tickers before the first date of a market, (ticker,).

    Attributes
    ----------
    position : ndarray
        Of the last date that has a price or return, counted from the first date of the market: -1 is the date before.
    price : ndarray
        Its close or return; NaN if there is none.
    """

    position: IntArray
    price: FloatArray


def absences(market: xr.Dataset, before: Before | None = None) -> FloatArray:
    """How long a ticker was away where it comes back, (date, ticker); 0 everywhere else.

    In periods in which other stocks have data. Of one that comes back at a similar price, or without a price, a
    twelfth: a company that was suspended for months is the same one.

    Parameters
    ----------
    market : xarray.Dataset
        ``close`` or ``returns`` (date, ticker).
    before : Before, optional
        What was before its first date. Default: nothing.
    """
    name = "close" if "close" in market else "returns"
    values = market[name].transpose("date", "ticker").values
    if before is None:
        before = Before(np.full(values.shape[1], -1), np.full(values.shape[1], np.nan))
    known, begun = np.isfinite(values), np.isfinite(before.price)
    position = np.arange(len(values))[:, np.newaxis]
    last = np.full(values.shape, -1)
    last[1:] = np.maximum.accumulate(np.where(known, position, -1), axis=0)[:-1]
    inside = last >= 0
    since = np.where(inside, last, before.position)
    away = np.where(known & (inside | begun), position - since - 1.0, 0.0)
    if name == "returns":
        return away / _SAME_PRICE
    with np.errstate(divide="ignore", invalid="ignore"):
        price = np.where(inside, np.take_along_axis(values, np.maximum(last, 0), axis=0), before.price)
        moved = np.abs(np.log(values / price))
    return np.where(moved > np.log(_OTHER_PRICE), away, away / _SAME_PRICE)


def listings(market: xr.Dataset, most: float) -> IntArray:
    """Return which company of its ticker a row belongs to, (date, ticker), from 0; after more than `most` a new one."""
    number: IntArray = np.cumsum(absences(market) > most, axis=0, dtype=np.int64)
    return number
