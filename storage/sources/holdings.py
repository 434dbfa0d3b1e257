"""What a book holds, from the rows of an origin: weights, market values or shares by ticker, and by date.

Here belong the columns of holdings and what is wrong with their rows. What amounts become as weights belongs in
`models.portfolios.holdings`, which tickers a universe has is not known here.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import polars as pl

from schemas.base import first_of
from schemas.errors import DataError, SourceError
from schemas.settings import Settings
from schemas.sources import FilesOrigin, HoldingsSource
from schemas.spec import Frequency
from storage.sources.cells import writing_of
from storage.sources.frames import DATE, TICKER, Selection, Table, read_table
from storage.sources.origins import open_origin

AMOUNTS = ("weight", "value", "shares")
"""Names of the columns that may say how much is held, in a file that no config describes."""
_AMOUNT, _BOOK = "amount", "book"
_SHOWN = 5


def holdings_file(path: Path, book: str | None, settings: Settings) -> HoldingsSource:
    """Describe a file of holdings by the names of its columns: ticker, one amount, and maybe date and portfolio.

    Parameters
    ----------
    path : Path
        CSV, Parquet or Arrow.
    book : str, optional
        Name of a book of the column ``portfolio``.
    settings : Settings
        Most cells that it may declare.

    Raises
    ------
    SourceError
        If the file cannot be read, or does not have one of `AMOUNTS`.
    """
    origin = FilesOrigin(paths=(path,))
    name, rows = next(iter(open_origin(origin, settings).read().items()))
    columns = [column.strip() for column in rows.collect_schema()]
    amounts = [column for column in AMOUNTS if column in columns]
    if len(amounts) != 1:
        found = f"has {' and '.join(amounts)}" if amounts else f"has only {', '.join(columns)}"
        raise SourceError(f"{name}: holdings need one column of {', '.join(AMOUNTS)}; the file {found}")
    return HoldingsSource(
        origin=origin,
        date="date" if "date" in columns else None,
        portfolio="portfolio" if book is not None or "portfolio" in columns else None,
        book=book,
        **{amounts[0]: amounts[0]},
    )


def read_holdings(source: HoldingsSource, *, settings: Settings, frequency: Frequency) -> pd.DataFrame:
    """Read the holdings of one book.

    Parameters
    ----------
    source : HoldingsSource
        Relative paths already resolved.
    settings : Settings
        Where a SQL source finds its database.
    frequency : {"daily", "monthly"}
        Monthly dates become the calendar end of their month.

    Returns
    -------
    pandas.DataFrame
        ``ticker`` and ``amount``, and ``date`` where the source has dates, in their order.

    Raises
    ------
    SourceError
        If the source cannot be read as declared: files, columns, numbers.
    DataError
        If a ticker (and date) comes twice, an amount is missing, or there is no such book.
    """
    labels = {} if source.portfolio is None else {_BOOK: source.portfolio}
    selection = Selection(
        source.date, source.ticker, {_AMOUNT: source.amount}, frequency, labels, writing_of(source), ordered=False
    )
    table = read_table(open_origin(source.origin, settings), selection, settings.max_cells)
    rows = table.rows if source.portfolio is None else _of_book(table, source.book)
    keys = [TICKER] if source.date is None else [DATE, TICKER]
    _refuse(
        table.name, rows.filter(pl.col(_AMOUNT).is_nan()), keys, f"no {source.amount}; fill it in, or remove the row"
    )
    _refuse(table.name, rows.filter(rows.select(keys).is_duplicated()), keys, "more than one row; add them up")
    named = {TICKER: "ticker", _AMOUNT: "amount"} | ({} if source.date is None else {DATE: "date"})
    return pd.DataFrame({new: rows[old].to_numpy() for old, new in named.items()})


def _of_book(table: Table, book: str | None) -> pl.DataFrame:
    books = table.rows[_BOOK].drop_nulls().unique().sort().to_list()
    if book is None and len(books) > 1:
        raise DataError(
            f"{table.name}: holds {len(books)} portfolios ({first_of(books, _SHOWN)}); say which one is meant"
        )
    if book is not None and book not in books:
        raise DataError(f"{table.name}: there is no portfolio '{book}'; there is {first_of(books, _SHOWN)}")
    return table.rows if book is None else table.rows.filter(pl.col(_BOOK) == book)


def _refuse(name: str, rows: pl.DataFrame, keys: list[str], what: str) -> None:
    if not rows.is_empty():
        first = ", ".join(str(rows[key][0]) for key in keys)
        raise DataError(f"{name}: ({first}) has {what}")
