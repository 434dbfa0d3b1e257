"""A header of two rows, as pandas writes columns of two levels and yfinance a download of several tickers.

::

    Price,Close,Close,Volume,Volume
    Ticker,AAPL,MSFT,AAPL,MSFT
    Date,,,,
    2024-01-02,185.6,370.9,82488700,25258600

Such a table is read as a long one, with the columns Date, Ticker, Close and Volume.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from schemas.errors import SourceError

_TICKERS = {"ticker", "tickers", "symbol", "symbols"}
_FIELDS = {"open", "high", "low", "close", "adj close", "volume", "dividends", "stock splits", "capital gains"}


def has_levels(head: Sequence[Sequence[str]]) -> bool:
    """Whether the first three rows of a file are two rows of names and one that names the dates alone."""
    if len(head) < 3 or len(head[0]) < 2:
        return False
    names, index = [*head[0][1:], *head[1][1:]], head[2]
    undated = not any(mark.isdigit() for mark in head[1][0] + index[0])
    return bool(index[0].strip()) and undated and not any(index[1:]) and all(name.strip() for name in names)


def stacked(what: str, head: Sequence[Sequence[str]], rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows as one per date and ticker, with a column for each field.

    Parameters
    ----------
    what : str
        What is being read, for the message.
    head : sequence of sequence of str
        The three rows of the header.
    rows : polars.LazyFrame
        What follows them, a column for each of their cells.

    Raises
    ------
    SourceError
        If it cannot be told which row holds the tickers, or a field of a ticker is there twice.
    """
    first, second, (date, *_) = ([cell.strip() for cell in row] for row in head)
    level = _level(what, first, second)
    label, *tickers = (first, second)[level]
    fields = (second, first)[level][1:]
    columns = rows.collect_schema().names()
    found: dict[str, dict[str, str]] = {field: {} for field in fields}
    for field, ticker, column in zip(fields, tickers, columns[1:], strict=True):
        if ticker in found[field]:
            raise SourceError(f"{what}: the column '{field}' of {ticker} is there twice; remove one")
        found[field][ticker] = column
    known = list(dict.fromkeys(tickers))
    dates = pl.col(columns[0]).alias(date)
    parts: list[pl.LazyFrame] = []
    for field, of in found.items():
        cells = [(pl.col(of[ticker]) if ticker in of else pl.lit(None, pl.String)).alias(ticker) for ticker in known]
        part = rows.select(dates, *cells).unpivot(index=date, variable_name=label or "Ticker", value_name=field)
        parts.append(part.select(field) if parts else part)
    return pl.concat(parts, how="horizontal")


def _level(what: str, first: Sequence[str], second: Sequence[str]) -> int:
    """Return which of the two rows holds the tickers."""
    for level, row in enumerate((first, second)):
        if row[0].lower() in _TICKERS:
            return level
    for level, row in enumerate((second, first)):
        if {name.lower() for name in row[1:]} <= _FIELDS:
            return level
    raise SourceError(
        f"{what}: its header has two rows, and neither is called Ticker; write one row per date and ticker"
    )
