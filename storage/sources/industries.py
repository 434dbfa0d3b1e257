"""The industry of each stock on the dates of a market, from one row per ticker or from dated rows.

Here belongs what a classification says at each date. A dated row holds from its date until the next row of the ticker,
and never before it. Which stocks and dates there are is the market's to say; in which order a cube numbers industries
belongs in `models.panel.assembly`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import xarray as xr

from schemas.errors import DataError
from schemas.settings import Settings
from schemas.sources import IndustrySource
from schemas.spec import Frequency
from storage.sources.cells import writing_of
from storage.sources.frames import DATE, TICKER, Selection, Table, read_table
from storage.sources.origins import open_origin

_NAME = "name"
_UNKNOWN, _SAME = -1, -2
"""Codes of a stock whose industry is not known from here on, and of one whose industry stays what it was."""


def read_industries(
    source: IndustrySource | None, *, settings: Settings, frequency: Frequency, market: xr.Dataset
) -> xr.Dataset | None:
    """Read a classification and lay it on the dates and tickers of a market.

    Parameters
    ----------
    source : IndustrySource or None
        The `industries` part of a run spec; relative paths already resolved.
    settings : Settings
        Where a SQL source finds its database.
    frequency : {"daily", "monthly"}
        Length of a period. A monthly row holds from the end of its month on.
    market : xarray.Dataset
        As `read_market` gives it.

    Returns
    -------
    xarray.Dataset or None
        ``industry`` (date, ticker) int32 positions along ``industry_name``, whose names are sorted; -1 where unknown,
        and before a stock first appears in the market. None without a source.

    Raises
    ------
    SourceError
        If the source cannot be read as declared: files, columns, order of dates.
    DataError
        If a ticker (and date) comes twice, dates are impossible, or no stock of the market has an industry.
    """
    dates = pd.DatetimeIndex(market.indexes["date"])
    tickers = [str(ticker) for ticker in market["ticker"].values]
    found = open_industries(source, settings=settings, frequency=frequency, tickers=tickers)
    if found is None:
        return None
    everywhere = found.on(dates)
    known = np.where(_appeared(market), everywhere["industry"].values, _UNKNOWN)
    return everywhere.assign(industry=(("date", "ticker"), known))


@dataclass(frozen=True, eq=False)
class Industries:
    """A classification, to be laid on dates: names of industries in order, and rows of tickers of the market."""

    tickers: list[str]
    names: pl.Series
    rows: pl.DataFrame

    def on(self, dates: pd.DatetimeIndex) -> xr.Dataset:
        """Return what holds at some dates, also before a stock appears; see `read_industries`."""
        return xr.Dataset(
            {"industry": (("date", "ticker"), _held(self.rows, self.names, dates, self.tickers))},
            coords={
                "date": dates,
                "ticker": np.array(self.tickers, dtype=np.str_),
                "industry_name": np.array(self.names.to_list(), dtype=np.str_),
            },
        )


def open_industries(
    source: IndustrySource | None, *, settings: Settings, frequency: Frequency, tickers: list[str]
) -> Industries | None:
    """Read a classification of the tickers of a market; parameters and errors are those of `read_industries`."""
    if source is None:
        return None
    labels = {_NAME: source.industry}
    selection = Selection(source.date, source.ticker, {}, frequency, labels, writing_of(source))
    table = read_table(open_origin(source.origin, settings), selection, settings.max_cells)
    _check_once(table, source.date is not None)
    rows = table.rows.filter(pl.col(TICKER).is_in(tickers))
    names = rows[_NAME].drop_nulls().unique().sort()
    if names.is_empty():
        raise DataError(
            f"{table.name}: no stock of the market has an industry in it; the market's first ticker is '{tickers[0]}', "
            f"that of column '{source.ticker}' is '{table.rows[TICKER][0]}'"
        )
    return Industries(tickers, names, rows)


def _held(rows: pl.DataFrame, names: pl.Series, dates: pd.DatetimeIndex, tickers: list[str]) -> npt.NDArray[np.int32]:
    """Return the code that holds at each date: that of the last row of the ticker on or before it."""
    codes = rows[_NAME].replace_strict(names, pl.Series(range(len(names))), default=_UNKNOWN, return_dtype=pl.Int32)
    column = pd.Index(tickers).get_indexer(pd.Index(rows[TICKER].to_list()))
    if DATE not in rows.columns:
        held = np.full(len(tickers), _UNKNOWN, dtype=np.int32)
        held[column] = codes.to_numpy()
        return np.broadcast_to(held, (len(dates), len(tickers)))
    order = rows[DATE].arg_sort().to_numpy()  # of rows between two dates of the market the last one counts
    row = dates.searchsorted(pd.DatetimeIndex(rows[DATE].to_numpy().astype("datetime64[ns]")))
    set_at = np.full((len(dates) + 1, len(tickers)), _SAME, dtype=np.int32)
    set_at[0] = _UNKNOWN
    set_at[row[order], column[order]] = codes.to_numpy()[order]
    last = np.maximum.accumulate(np.where(set_at != _SAME, np.arange(len(set_at))[:, np.newaxis], 0), axis=0)
    return np.take_along_axis(set_at, last, axis=0)[: len(dates)]


def _appeared(market: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Whether a stock has had any number up to a date."""
    fields = [array.transpose("date", "ticker", ...).values for array in market.data_vars.values()]
    known = [np.isfinite(values) if values.ndim == 2 else np.isfinite(values).any(axis=2) for values in fields]
    seen: npt.NDArray[np.bool_] = np.logical_or.accumulate(np.logical_or.reduce(known), axis=0)
    return seen


def _check_once(table: Table, dated: bool) -> None:
    key = [TICKER, DATE] if dated else [TICKER]
    doubled = table.rows.filter(table.rows.select(key).is_duplicated())
    if not doubled.is_empty():
        shown = ", ".join(str(doubled[column][0]) for column in key)
        advice = "keep one row of each ticker and date" if dated else "keep one row of each ticker, or name the `date`"
        raise DataError(f"{table.name}: ({shown}) has more than one industry; {advice}")
