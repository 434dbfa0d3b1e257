"""Long frames that a notebook brings, as dense arrays: dates, tickers, numbers and names, and factors beside them.

Here belongs what is refused of a frame; the rules are those of `schemas.cells` and `schemas.joining`, by which a run
reads files. What a panel makes of the arrays belongs in `assembly`.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.arrays import FloatArray
from models.panel.assembly import as_axis, as_dates
from schemas.cells import LARGEST_RATE, LARGEST_RETURN, WORST_RETURN
from schemas.errors import DataError
from schemas.joining import describe_mismatch


class Grid(NamedTuple):
    """Dense dates and tickers of a long frame, and where each of its rows lies on them."""

    row: npt.NDArray[np.intp]
    column: npt.NDArray[np.intp]
    dates: pd.DatetimeIndex
    tickers: npt.NDArray[np.str_]


def grid(table: pd.DataFrame, date: str, ticker: str) -> Grid:
    """Return where the rows of a frame lie; blanks around a ticker are no part of it.

    Raises
    ------
    DataError
        A column is missing, a date is not one, a ticker is missing, or a (date, ticker) appears twice.
    """
    stamps = as_dates(_column(table, date))
    names = _column(table, ticker)
    if names.isna().any():
        raise DataError(f"Column '{ticker}' must not have missing values.")
    names = names.astype("str").str.strip()
    if (names == "").any():
        raise DataError(f"Column '{ticker}' must not have empty names.")
    row, dates = pd.factorize(stamps, sort=True)
    column, tickers = pd.factorize(names, sort=True)
    repeated = np.flatnonzero(pd.Series(row * len(tickers) + column).duplicated())
    if len(repeated):
        key = f"({stamps[repeated[0]]:%Y-%m-%d}, {names.iloc[repeated[0]]})"
        raise DataError(f"The frame has more than one row for {key}; keep one of each date and ticker.")
    return Grid(row, column, as_axis(dates), np.array(tickers, dtype=np.str_))


def numbers(table: pd.DataFrame, name: str) -> FloatArray:
    """Return a column of numbers, NaN where missing.

    Raises
    ------
    DataError
        The column is missing, or holds no numbers.
    """
    column = _column(table, name)
    if not pd.api.types.is_numeric_dtype(column):
        raise DataError(f"Column '{name}' holds {column.dtype}, not numbers; convert it with pandas.to_numeric.")
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def excess_returns(table: pd.DataFrame, name: str, where: Grid) -> FloatArray:
    """Return a column of excess returns, of which none loses more than everything and the largest risk-free rate.

    A column that is typically larger than returns can be, such as a variable of another regression, is not judged.

    Raises
    ------
    DataError
        The column is missing or holds no numbers, or a return is less, as a code for a missing one is.
    """
    values = numbers(table, name)
    bad = np.flatnonzero(values < WORST_RETURN - max(LARGEST_RATE.values()))
    if bad.size and np.nanmedian(np.abs(values)) <= max(LARGEST_RETURN.values()):
        key = f"({where.dates[where.row[bad[0]]]:%Y-%m-%d}, {where.tickers[where.column[bad[0]]]})"
        raise DataError(
            f"Column '{name}' is {values[bad[0]]:g} for {key}, a loss of more than everything, in {bad.size} of "
            f"{len(values)} rows; returns are decimals, and codes for a missing one must be NaN."
        )
    return values


def names_of(table: pd.DataFrame, name: str) -> npt.NDArray[np.object_]:
    """Return names in a column, whole numbers among them as text; None where missing."""
    column = _column(table, name).convert_dtypes()
    if pd.api.types.is_float_dtype(column.dtype):
        raise DataError(f"Column '{name}' holds fractions, not names of industries.")
    return column.astype("string").str.strip().astype(object).where(column.notna(), None).to_numpy()


def aligned(factors: pd.DataFrame, dates: pd.DatetimeIndex) -> FloatArray:
    """Return (date, factor) returns on the dates of a panel, NaN and a warning where the factors have none.

    Raises
    ------
    DataError
        The factors label other periods than the panel: another end of the month, another frequency, other years.
    """
    known = as_axis(factors.index)
    mismatch = describe_mismatch(dates.to_numpy(), known.to_numpy())
    if mismatch is not None:
        raise DataError(f"`factors`: {mismatch}, such as by `index + pandas.offsets.MonthEnd(0)` for months.")
    lacking = dates.difference(known)
    if len(lacking):
        warnings.warn(
            f"{len(lacking)} of {len(dates)} dates of the panel have no factors, the first is "
            f"{lacking[0]:%Y-%m-%d}; nothing is regressed on factors there.",
            stacklevel=3,
        )
    return factors.set_axis(known).reindex(dates).to_numpy(dtype=np.float64)


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    if name not in table.columns:
        raise DataError(f"The frame has no column '{name}'; its columns are {', '.join(map(str, table.columns))}.")
    return table[name]
