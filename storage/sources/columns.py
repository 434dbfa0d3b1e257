"""What can be said of a table by the names of its columns, and which columns of a wide table are no stocks.

Here belong names that are missing, misspelt, there twice or other than those of the first file. Cells and rows belong
in `frames`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl

from schemas.base import first_of
from schemas.cells import ROW_NUMBERS
from schemas.errors import SourceError

_ENOUGH = 20
"""Fewest rows by which a column is judged by its values alone."""

_TICKER_NAMES = ("ticker", "symbol", "permno", "isin", "sedol", "cusip", "ric", "secid", "id")


def stripped(what: str, schema: pl.Schema) -> dict[str, str]:
    """Return the columns that are written with blanks around their name, by the name without.

    Raises
    ------
    SourceError
        If a column is there twice, without its blanks or by the word of polars for the second of two.
    """
    names: dict[str, str] = {}
    for column in schema:
        name, copied, _ = column.strip().rpartition("_duplicated_")
        if not copied or name not in names:
            name = column.strip()
        if name in names:
            raise SourceError(f"{what}: the column '{name}' is there twice; remove one")
        names[name] = column
    return {column: name for name, column in names.items() if name != column}


def check_named(what: str, wanted: Sequence[str | None], columns: Sequence[str], ticker: str | None) -> None:
    """Refuse a table without a column that is asked for; None asks for nothing.

    Raises
    ------
    SourceError
        Naming the column, and the nearest there is.
    """
    for column in wanted:
        if column is not None and column not in columns:
            one_each = "; with one file per ticker, set `file_name_as` in the origin" if column == ticker else ""
            raise SourceError(f"{what}: no column '{column}' ({_hint(column, columns)}{one_each})")


def check_same(what: str, columns: Sequence[str], first: str, expected: Sequence[str]) -> None:
    """Refuse a part that has other columns than the first.

    Raises
    ------
    SourceError
        Naming what it lacks, and what it has more.
    """
    lacks = [column for column in expected if column not in columns]
    more = [column for column in columns if column not in expected]
    if lacks or more:
        said = [f"it lacks {_listed(lacks)}"] * bool(lacks) + [f"it has {_listed(more)} more"] * bool(more)
        raise SourceError(
            f"{what}: its columns are not those of {first}: {' and '.join(said)}; give files of one kind only"
        )


def check_stock_names(what: str, columns: Sequence[str]) -> None:
    """Refuse columns of a wide table whose name says that they are an index and not a stock.

    Raises
    ------
    SourceError
        Naming the first.
    """
    for column in columns:
        if re.fullmatch(ROW_NUMBERS, column):
            shown = f"'{column}'" if column else "without a name"
            raise SourceError(f"{what}: the column {shown} is an index and no stock; {_LEAVE_OUT}")


def check_stocks(what: str, dates: pd.DatetimeIndex, tickers: Sequence[str], values: npt.NDArray[np.float64]) -> None:
    """Refuse columns of a wide table whose values say that they are no stock: row numbers, or a part of the date.

    Parameters
    ----------
    what : str
        What is being read, for the message.
    dates : pandas.DatetimeIndex
        Ascending.
    tickers : sequence of str
        Names of the columns.
    values : numpy.ndarray
        (date, ticker).

    Raises
    ------
    SourceError
        Naming the first.
    """
    enough = len(dates) >= _ENOUGH
    for column in np.flatnonzero((np.diff(values[:_ENOUGH], axis=0) == 1.0).all(axis=0)).tolist():
        if enough and (np.diff(values[:, column]) == 1.0).all():
            raise SourceError(f"{what}: the column '{tickers[column]}' counts the rows and is no stock; {_LEAVE_OUT}")
    parts = {"year": dates.year, "quarter": dates.quarter, "month": dates.month, "day": dates.day}
    for part, numbers in (parts | {"weekday": dates.day_of_week, "dayofyear": dates.day_of_year}).items():
        own = numbers.to_numpy(dtype=np.float64)
        telling = enough and np.ptp(own) > 0
        for column in np.flatnonzero((values[:_ENOUGH] == own[:_ENOUGH, np.newaxis]).all(axis=0)).tolist():
            name = tickers[column]
            if (telling or name.lower() == part) and (values[:, column] == own).all():
                raise SourceError(f"{what}: the column '{name}' holds the {part} and is no stock; {_LEAVE_OUT}")


_LEAVE_OUT = "leave it out of the file, or name the stocks in `tickers`"


def is_ticker(column: str) -> bool:
    """Whether a column is called as one of tickers is in a long table."""
    return column.lower() in _TICKER_NAMES


def _hint(word: str, columns: Sequence[str]) -> str:
    """Name the nearest column, whatever its case, or the first few."""
    lower = {column.lower(): column for column in reversed(columns)}
    close = difflib.get_close_matches(word.lower(), list(lower), n=1, cutoff=0.6)
    if close:
        return f"did you mean '{lower[close[0]]}'? name it in the config"
    if len(columns) == 1:
        return f"the only column is {columns[0][:40]!r}: are the columns separated by commas?"
    return f"the columns are {_listed(columns)}; name the right one in the config"


def _listed(columns: Sequence[str]) -> str:
    return first_of([f"{column[:40]!r}" for column in columns], 8)
