"""A market source as one Dataset on (date, ticker), whatever its shape.

Here belong the four shapes of `schemas.sources` and what each becomes. Cells and rows are checked in
`frames`, units in `units`; whether prices are plausible is for the quality checks, which see them as they
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

_BAR = ("close", "open", "high", "low", "volume", "shares", "delisting_return")


@dataclass(frozen=True)
class _Dense:
    """Arrays (date, ticker) by name, on sorted axes."""

    dates: pd.DatetimeIndex
    tickers: list[str]
    values: dict[str, FloatArray]

    def dataset(self, names: Sequence[str]) -> xr.Dataset:
        coords = {"date": self.dates, "ticker": np.array(self.tickers, dtype=np.str_)}
        return xr.Dataset({name: (("date", "ticker"), self.values[name]) for name in names}, coords=coords)


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
    origin = open_origin(source.origin, settings)
    if isinstance(source, WidePrices | WideReturns):
        columns = None if source.tickers is None else {ticker: ticker for ticker in source.tickers}
        selection = Selection(source.date, None, columns, frequency, writing=writing_of(source))
        table = read_table(origin, selection, settings.max_cells)
        dense = _from_wide(table, "close" if isinstance(source, WidePrices) else "returns", frequency)
        if columns is None:
            check_stocks(table.name, dense.dates, dense.tickers, next(iter(dense.values.values())))
    else:
        selection = Selection(source.date, source.ticker, _columns(source), frequency, writing=writing_of(source))
        table = read_table(origin, selection, settings.max_cells)
        dense = _from_long(table, frequency, settings.max_cells)
    check_frequency(dense.dates, frequency, table.name)
    if frequency == "daily":
        check_sessions(dense.dates, calendar, table.name)
    if isinstance(source, WideReturns | LongPanel):
        for name in ("returns", "delisting_return"):
            if name in dense.values:
                dense.values[name] = to_decimals(dense.values[name], source.units)
        column = source.returns if isinstance(source, LongPanel) else "returns"
        check_returns(table.name, {column: dense.values["returns"]}, source.units, frequency)
    return _with_characteristics(dense, source) if isinstance(source, LongPanel) else dense.dataset(list(dense.values))


def _columns(source: LongPrices | LongPanel) -> dict[str, str]:
    """Return the columns to read by the name they get."""
    if isinstance(source, LongPanel):
        columns = {"returns": source.returns} | {f"char:{name}": name for name in source.characteristics}
        return columns | ({"delisting_return": source.delisting_return} if source.delisting_return else {})
    return {field: column for field in _BAR if (column := getattr(source, field)) is not None}


def _from_wide(table: Table, field: str, frequency: Frequency) -> _Dense:
    rows = table.rows.sort(DATE, maintain_order=True)
    days = rows[DATE].unique().sort()
    keys = days.search_sorted(rows[DATE]).to_numpy().astype(np.int64)
    check_unique(table.name, rows[DATE], None, keys, len(days), monthly=frequency == "monthly")
    tickers = sorted(column for column in rows.columns if column != DATE)
    return _Dense(_index(days), tickers, {field: rows.select(tickers).to_numpy()})


def _from_long(table: Table, frequency: Frequency, max_cells: int) -> _Dense:
    """Scatter rows into dense arrays by integer codes; each column is let go once it is dense."""
    rows = table.rows
    days, names = rows[DATE].unique().sort(), rows[TICKER].unique().sort()
    fields = len(rows.columns) - 2
    check_cells(f"{table.name}: {len(days)} dates x {len(names)} tickers", len(days) * len(names) * fields, max_cells)
    row = days.search_sorted(rows[DATE]).to_numpy().astype(np.int64)
    column = rows[TICKER].cast(pl.Enum(names)).to_physical().to_numpy()
    keys, shape = row * len(names) + column, (len(days), len(names))
    check_unique(table.name, rows[DATE], rows[TICKER], keys, shape[0] * shape[1], monthly=frequency == "monthly")
    values = {}
    for name in [name for name in rows.columns if name not in (DATE, TICKER)]:
        flat = np.full(shape[0] * shape[1], np.nan)
        flat[keys] = rows.drop_in_place(name).to_numpy()
        values[name] = flat.reshape(shape)
    return _Dense(_index(days), names.to_list(), values)


def _with_characteristics(dense: _Dense, source: LongPanel) -> xr.Dataset:
    """Stack the characteristics; where the source lags them, store each row's at the date before it."""
    stacked = np.stack([dense.values[f"char:{name}"] for name in source.characteristics], axis=-1)
    if source.known == "before_date":
        stacked[:-1], stacked[-1] = stacked[1:].copy(), np.nan
    market = dense.dataset([name for name in dense.values if not name.startswith("char:")]).assign_coords(
        char=np.array(source.characteristics, dtype=np.str_)
    )
    return market.assign(characteristics=(("date", "ticker", "char"), stacked))


def _index(days: pl.Series) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(days.to_numpy().astype("datetime64[ns]"))
