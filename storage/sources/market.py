"""A market source as one Dataset on (date, ticker), whatever its shape.

Here belong the four shapes of `schemas.sources` and what each becomes. Cells and rows are checked in
`frames`, units in `units`; whether prices are plausible is for the quality checks, which see them as they
are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import xarray as xr

from schemas.settings import Settings
from schemas.sources import LongPanel, LongPrices, MarketSource, WidePrices, WideReturns
from schemas.spec import Frequency
from storage.sources.calendars import check_frequency, check_sessions
from storage.sources.cells import writing_of
from storage.sources.columns import check_stocks
from storage.sources.frames import DATE, TICKER, Selection, Table, read_table
from storage.sources.limits import check_cells
from storage.sources.order import check_unique
from storage.sources.origins import open_origin
from storage.sources.units import check_returns, to_decimals

FloatArray = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]

_BAR = ("close", "open", "high", "low", "volume", "shares", "delisting_return")


@dataclass(frozen=True, eq=False)
class Market:
    """Rows of a market source that were checked, to be laid out on (date, ticker) some dates at a time.

    Attributes
    ----------
    name : str
        What was read, for messages.
    dates : pandas.DatetimeIndex
        Ascending.
    tickers : list of str
        Sorted.
    values : dict of str to ndarray
        Columns: (row,), or (date, ticker) of a wide table.
    row, column : ndarray or None
        (row,) positions of date and ticker, by date; None of a wide table.
    characteristics : tuple of str
        Names of those among the values that are stacked; their columns are called ``char:<name>``.
    """

    name: str
    dates: pd.DatetimeIndex
    tickers: list[str]
    values: dict[str, FloatArray]
    row: Codes | None = None
    column: Codes | None = None
    characteristics: tuple[str, ...] = ()

    def dataset(self, first: int = 0, last: int | None = None) -> xr.Dataset:
        """Lay out the dates from a first to before a last position; see `read_market`."""
        dates = self.dates[first:last]
        coords = {"date": dates, "ticker": np.array(self.tickers, dtype=np.str_)}
        dense = {name: self._dense(values, first, first + len(dates)) for name, values in self.values.items()}
        fields = {name: (("date", "ticker"), array) for name, array in dense.items() if not name.startswith("char:")}
        market = xr.Dataset(fields, coords=coords)
        if not self.characteristics:
            return market
        stacked = np.stack([dense[f"char:{name}"] for name in self.characteristics], axis=-1)
        market = market.assign_coords(char=np.array(self.characteristics, dtype=np.str_))
        return market.assign(characteristics=(("date", "ticker", "char"), stacked))

    def spans(self, dates: int) -> Iterator[xr.Dataset]:
        """Lay out all dates, so many at a time."""
        return (self.dataset(first, first + dates) for first in range(0, len(self.dates), dates))

    def _dense(self, values: FloatArray, first: int, last: int) -> FloatArray:
        if self.row is None or self.column is None:
            return values[first:last]
        low, high = np.searchsorted(self.row, [first, last])
        flat = np.full((last - first, len(self.tickers)), np.nan)
        flat[self.row[low:high] - first, self.column[low:high]] = values[low:high]
        return flat


def read_market(
    source: MarketSource,
    *,
    settings: Settings,
    frequency: Frequency,
    calendar: str,
) -> xr.Dataset:
    """Read prices or returns, and characteristics where the source has them.

    Parameters
    ----------
    source : MarketSource
        The `data` part of a run spec; relative paths already resolved.
    settings : Settings
        Where a SQL source finds its database.
    frequency : {"daily", "monthly"}
        Length of a period. Monthly dates become the calendar end of their month.
    calendar : str
        Exchange whose sessions daily dates must be; ``none`` takes them as they come.

    Returns
    -------
    xarray.Dataset
        dims (date, ticker), float64, NaN where missing; dates ascending datetime64[ns] at midnight, tickers
        sorted. ``close`` and any of ``open high low volume shares`` as they stand in the source; or
        ``returns`` as decimals, with ``characteristics`` (date, ticker, char) for a long panel. Either with
        ``delisting_return`` where the source has it.
        Characteristics at t are those known at the close of t: where the source lags them (``known:
        before_date``) each row's are stored at the date before it, those of the first date are dropped and
        those of the last date are not known yet.

    Raises
    ------
    SourceError
        If the source cannot be read as declared: files, columns, text in numbers, units, order of dates.
    DataError
        If keys are duplicated, dates are impossible, not sessions, or not of this frequency, or no row is
        left.
    ConfigError
        If the calendar is unknown, or a SQL source has no database.
    """
    whole = open_market(source, settings=settings, frequency=frequency, calendar=calendar).dataset()
    if "characteristics" in whole and isinstance(source, LongPanel) and source.known == "before_date":
        whole = whole.assign(characteristics=whole["characteristics"].shift(date=-1))
    return whole


def open_market(source: MarketSource, *, settings: Settings, frequency: Frequency, calendar: str) -> Market:
    """Read and check the rows of a market source; parameters and errors are those of `read_market`.

    Characteristics stand in the row of their source, whatever it says of when they are known.
    """
    origin = open_origin(source.origin, settings)
    if isinstance(source, WidePrices | WideReturns):
        columns = None if source.tickers is None else {ticker: ticker for ticker in source.tickers}
        selection = Selection(source.date, None, columns, frequency, writing=writing_of(source))
        table = read_table(origin, selection, settings.max_cells)
        market = _from_wide(table, "close" if isinstance(source, WidePrices) else "returns", frequency)
        if columns is None:
            check_stocks(market.name, market.dates, market.tickers, next(iter(market.values.values())))
    else:
        selection = Selection(source.date, source.ticker, _columns(source), frequency, writing=writing_of(source))
        table = read_table(origin, selection, settings.max_cells)
        market = _from_long(table, frequency, settings.max_cells)
    check_frequency(market.dates, frequency, market.name)
    if frequency == "daily":
        check_sessions(market.dates, calendar, market.name)
    if isinstance(source, WideReturns | LongPanel):
        for name in ("returns", "delisting_return"):
            if name in market.values:
                market.values[name] = to_decimals(market.values[name], source.units)
        column = source.returns if isinstance(source, LongPanel) else "returns"
        check_returns(market.name, {column: market.values["returns"]}, source.units, frequency)
    return replace(market, characteristics=source.characteristics) if isinstance(source, LongPanel) else market


def _columns(source: LongPrices | LongPanel) -> dict[str, str]:
    """Return the columns to read by the name they get."""
    if isinstance(source, LongPanel):
        columns = {"returns": source.returns} | {f"char:{name}": name for name in source.characteristics}
        return columns | ({"delisting_return": source.delisting_return} if source.delisting_return else {})
    return {field: column for field in _BAR if (column := getattr(source, field)) is not None}


def _from_wide(table: Table, field: str, frequency: Frequency) -> Market:
    rows = table.rows.sort(DATE, maintain_order=True)
    days = rows[DATE].unique().sort()
    keys = days.search_sorted(rows[DATE]).to_numpy().astype(np.int64)
    check_unique(table.name, rows[DATE], None, keys, len(days), monthly=frequency == "monthly")
    tickers = sorted(column for column in rows.columns if column != DATE)
    return Market(table.name, _index(days), tickers, {field: rows.select(tickers).to_numpy()})


def _from_long(table: Table, frequency: Frequency, max_cells: int) -> Market:
    """Put rows in the order of their dates; each column is let go once it is."""
    rows = table.rows
    days, names = rows[DATE].unique().sort(), rows[TICKER].unique().sort()
    fields = len(rows.columns) - 2
    check_cells(f"{table.name}: {len(days)} dates x {len(names)} tickers", len(days) * len(names) * fields, max_cells)
    row = days.search_sorted(rows[DATE]).to_numpy().astype(np.int32)
    column = rows[TICKER].cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int32)
    keys, size = row.astype(np.int64) * len(names) + column, len(days) * len(names)
    check_unique(table.name, rows[DATE], rows[TICKER], keys, size, monthly=frequency == "monthly")
    del keys
    order = np.argsort(row, kind="stable")
    values = {name: rows.drop_in_place(name).to_numpy()[order] for name in rows.columns if name not in (DATE, TICKER)}
    return Market(table.name, _index(days), names.to_list(), values, row[order], column[order])


def _index(days: pl.Series) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(days.to_numpy().astype("datetime64[ns]"))
