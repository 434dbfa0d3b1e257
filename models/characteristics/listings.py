"""Windows that do not reach across two companies of one ticker.

Here belongs laying the companies of a ticker side by side and putting what was computed of them together again. Which
companies there are is said in `models.quality.listings`.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import CodeArray, IntArray
from models.quality.listings import listings

Data = TypeVar("Data", xr.Dataset, xr.DataArray)


class Listings:
    """The companies of every ticker, over some dates.

    Parameters
    ----------
    number : numpy.ndarray
        (date, ticker): which company of its ticker a row belongs to, from 0.
    companies : numpy.ndarray, optional
        (ticker,): how many companies each ticker has over all dates, if these are not all.
    """

    def __init__(self, number: CodeArray, companies: IntArray | None = None) -> None:
        self.number = number
        self.companies: IntArray = number.max(axis=0, initial=0) + 1 if companies is None else companies
        self._first = np.cumsum(self.companies) - self.companies
        self._of = np.repeat(np.arange(len(self.companies)), self.companies)

    @classmethod
    def of(cls, market: xr.Dataset, dates: pd.DatetimeIndex, most: float) -> Listings:
        """Tell the companies of a market apart.

        Parameters
        ----------
        market : xarray.Dataset
            ``close`` or ``returns`` (date, ticker).
        dates : pandas.DatetimeIndex
            Dates on which windows are taken, those of the market among them.
        most : float
            Periods that a ticker may be away (`models.quality.listings.absences`).
        """
        number = xr.DataArray(
            listings(market, most), dims=("date", "ticker"), coords={"date": market["date"], "ticker": market["ticker"]}
        )
        return cls(number.reindex(date=dates, method="ffill", fill_value=0).values)

    def apart(self, data: Data) -> Data:
        """Give each company a column of its own, missing while another one has the ticker."""
        if len(self._of) == len(self._first):
            return data
        own = self.number[:, self._of] == np.arange(len(self._of)) - self._first[self._of]
        names = [f"{data['ticker'].values[of]}\0{place}" for place, of in enumerate(self._of)]
        split = data.isel(ticker=self._of).assign_coords(ticker=names)
        mine = xr.DataArray(own, dims=("date", "ticker"), coords={"date": data["date"], "ticker": names})
        return split.where(mine, other=False) if getattr(data, "dtype", None) == np.bool_ else split.where(mine)

    def together(self, data: xr.DataArray, tickers: xr.DataArray) -> xr.DataArray:
        """Give each ticker on each date the values of the company that has it then."""
        if len(self._of) == len(self._first):
            return data
        ordered = data.transpose("date", "ticker", ...)
        place = (self._first + self.number).reshape(*self.number.shape, *(1,) * (ordered.ndim - 2))
        chosen = ordered.isel(ticker=np.zeros(len(self._first), dtype=int)).assign_coords(ticker=tickers.values)
        return chosen.copy(data=np.take_along_axis(ordered.values, place, axis=1))
