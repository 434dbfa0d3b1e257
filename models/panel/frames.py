"""Frames that a notebook brings, as dense arrays: dates, tickers, numbers and names, and factors beside them.

Here belong how wide frames and datasets become a long one, and what is refused of that; the rules are those of
`schemas.cells` and `schemas.joining`, by which a run reads files. What a panel makes of the arrays belongs in
`assembly`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import FloatArray
from models.panel.assembly import as_axis, as_dates
from schemas.cells import LARGEST_RATE, LARGEST_RETURN, WORST_RETURN
from schemas.errors import DataError
from schemas.joining import describe_mismatch

RETURNS, INDUSTRY = "returns", "industry"
"""Columns of the long frames that wide ones and datasets become."""
_KEY = ["date", "ticker"]
_VARIABLES = {
    RETURNS: (*_KEY,),
    "characteristics": (*_KEY, "char"),
    INDUSTRY: (*_KEY,),
    "factors": ("date", "observed_factor"),
}


def long_table(frame: Any, date: str, ticker: str) -> pd.DataFrame:
    """Return a long frame of pandas or polars as one of pandas, whose date and ticker are columns and no index.

    Raises
    ------
    DataError
        It is no frame.
    """
    if not hasattr(frame, "columns"):
        raise DataError(
            f"A panel is built from a pandas or polars frame with a row for each date and ticker, not from "
            f"{_called(frame)}; Panel.from_wide takes frames of dates by tickers, Panel.from_xarray a Dataset, "
            "Panel.from_arrays plain arrays."
        )
    table: pd.DataFrame = frame if isinstance(frame, pd.DataFrame) else frame.to_pandas()
    levels = [name for name in table.index.names if name in {date, ticker} and name not in table.columns]
    return table.reset_index(levels) if levels else table


def long_of_wide(
    returns: pd.DataFrame, characteristics: Mapping[str, pd.DataFrame], industry: pd.DataFrame | None
) -> pd.DataFrame:
    """Put frames of dates by tickers side by side, as one long frame with a row for each of their cells.

    Raises
    ------
    DataError
        One is no frame, names a date or a ticker twice, or one that the returns lack.
    """
    if not isinstance(characteristics, Mapping):
        raise DataError(
            f"`characteristics` must map names to frames of dates by tickers, not be {_called(characteristics)}."
        )
    further = [*characteristics.items(), *([] if industry is None else [(INDUSTRY, industry)])]
    known = _keyed(RETURNS, returns)
    columns = {RETURNS: known}
    for name, frame in further:
        if name in columns:
            raise DataError(f"No characteristic can be called '{name}'; rename it.")
        columns[name] = _keyed(name, frame)
        for axis, labels, those in zip(_KEY, columns[name].axes, known.axes, strict=True):
            unknown = labels.difference(those)
            if len(unknown):
                raise DataError(
                    f"'{name}' has the {axis} {_shown(unknown[0])}, one of {len(unknown)} that the returns lack; give "
                    "all frames the dates and tickers of the returns."
                )
    series = {
        name: frame.reindex(index=known.index, columns=known.columns).to_numpy().ravel()
        for name, frame in columns.items()
    }
    index = pd.MultiIndex.from_product(known.axes, names=_KEY)
    return pd.DataFrame(series, index).reset_index()


def long_of_xarray(dataset: xr.Dataset) -> pd.DataFrame:
    """Return the variables of a dataset by date and ticker as one long frame, a characteristic a column.

    Raises
    ------
    DataError
        It is no dataset, lacks the returns, or has a variable that is none of a panel's, has other dimensions, or no
        labels along them.
    """
    if not isinstance(dataset, xr.Dataset):
        raise DataError(
            f"Panel.from_xarray takes an xarray Dataset with the variable '{RETURNS}', not {_called(dataset)}."
        )
    if RETURNS not in dataset:
        raise DataError(f"The dataset has no variable '{RETURNS}'; it has {', '.join(map(str, dataset)) or 'none'}.")
    for name, array in dataset.items():
        if name not in _VARIABLES:
            raise DataError(
                f"The dataset has a variable '{name}', which is none of {', '.join(_VARIABLES)}: drop it, or use "
                "Panel.from_cube if the dataset is a cube."
            )
        if {*array.dims} != {*_VARIABLES[str(name)]}:
            raise DataError(f"'{name}' has dimensions {array.dims}; it needs {_VARIABLES[str(name)]}.")
        bare = [dim for dim in array.dims if dim not in array.coords]
        if bare:
            raise DataError(f"'{name}' has no labels along '{bare[0]}'; give them with assign_coords.")
    parts = dataset[[name for name in (RETURNS, INDUSTRY) if name in dataset]].reset_coords(drop=True)
    if "characteristics" in dataset:
        values = dataset["characteristics"].reset_coords(drop=True)
        chars = values.assign_coords(char=values["char"].astype(str)).to_dataset("char")
        taken = [str(name) for name in chars if name in parts]
        if taken:
            raise DataError(f"No characteristic can be called '{taken[0]}'; rename it.")
        parts = parts.assign(chars.data_vars)
    return parts.to_dataframe(dim_order=_KEY).reset_index()


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


def _keyed(name: str, frame: Any) -> pd.DataFrame:
    """Give a wide frame dates and names of tickers as its labels, each of which it has once."""
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"'{name}' must be a pandas DataFrame of dates by tickers, not {_called(frame)}.")
    keyed = frame.set_axis(as_dates(frame.index)).set_axis(frame.columns.astype("str").str.strip(), axis=1)
    for axis, labels in (("date", keyed.index), ("ticker", keyed.columns)):
        if not labels.is_unique:
            raise DataError(
                f"'{name}' has the {axis} {_shown(labels[labels.duplicated()][0])} twice; keep one of them."
            )
    return keyed


def _shown(label: Any) -> str:
    return f"{label:%Y-%m-%d}" if isinstance(label, pd.Timestamp) else str(label)


def _called(value: Any) -> str:
    return f"a {type(value).__module__.partition('.')[0]} {type(value).__name__}"
