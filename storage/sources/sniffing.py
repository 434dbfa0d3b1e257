"""What a table seems to be, by the names of its columns and its cells: the guesses of `factorcube init`.

Frames in, findings out. Here belong guesses, each with the words that say so; nothing that a run reads comes through
here. Opening files belongs in `files`, what cells mean in `cells`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from schemas.cells import LARGEST_RETURN
from schemas.errors import SourceError
from schemas.spec import Frequency
from storage.sources.cells import Writing, is_numeric_or_text, is_text, not_a_number, to_date, to_number
from storage.sources.columns import is_ticker

_FORMS = ("%d.%m.%Y", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d-%b-%Y", "%d %b %Y", "%Y.%m.%d")
_TICKERS = ("tickers", "symbols", "name", "stock", "asset", "code", "instrument", "gvkey", "stock_id")
_ADJUSTED = ("adj close", "adj_close", "adjclose", "adjusted close", "adjusted_close")
_CLOSES = ("close", "price", "px_last", "last", "prc", "px")
_RETURNS = ("ret", "return", "returns", "monthly_return", "daily_return")
_OLD_CODES = (-99.99, -999.0, -9999.0)
_MOST_CODES = 10
_WIDEST_DAILY, _MONTHLY = 4.0, (25.0, 35.0)


@dataclass(frozen=True)
class Findings:
    """What a table seems to be.

    Attributes
    ----------
    source : dict
        The `data` part of a config, without its origin.
    frequency : {"daily", "monthly"}
        Length of a period.
    file_is_ticker : bool
        Whether each file is of one ticker, which only its name says.
    assumed : dict of str to str
        Why, by the key of `source` that was guessed and not read.
    unused : tuple of str
        Columns that the source does not name.
    """

    source: dict[str, Any]
    frequency: Frequency
    file_is_ticker: bool = False
    assumed: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


def sniff(table: pl.DataFrame, what: str) -> Findings:
    """Guess shape, columns, frequency and units of a table.

    Parameters
    ----------
    table : polars.DataFrame
        Rows as they stand in a file; text where it is text.
    what : str
        Name of the file, for messages.

    Raises
    ------
    SourceError
        If no column holds dates, the dates are neither daily nor monthly, or no column is a price or a return.
    """
    assumed: dict[str, str] = {}
    date, days, form = _date(table, what)
    source: dict[str, Any] = {"date": date} | ({"date_format": form} if form else {})
    if form is not None and (twin := _twin(form)) and _dates(table, date, twin).null_count() == 0:
        assumed["date_format"] = f"{twin} reads every date too"
    frequency = _frequency(days, what)
    values = [name for name, kind in table.schema.items() if name != date and is_numeric_or_text(kind)]
    writing = Writing()
    if _numbers(table, values, writing) < _numbers(table, values, Writing(decimal=",")):
        writing = Writing(decimal=",")
        source["decimal"] = ","
    lower = {name.lower(): name for name in reversed(values)}
    ticker = next((name for name in values if is_ticker(name)), None) or _first(lower, _TICKERS)
    close, returns = _first(lower, (*_ADJUSTED, *_CLOSES)), _first(lower, _RETURNS)
    if ticker is None and close is None and returns is None:
        return _wide(
            table, [name for name in values if _is_number(table, name, writing)], source, frequency, assumed, writing
        )
    if ticker is None and days.n_unique() < len(days):
        raise SourceError(f"{what}: dates come more than once and no column is called ticker; name it so, or permno")
    source |= {} if ticker is None else {"ticker": ticker}
    rest = [name for name in values if name not in {ticker, close, returns} and _is_number(table, name, writing)]
    if codes := _codes(table, [name for name in (returns or close,) if name], writing, what):
        writing = Writing(decimal=writing.decimal, missing=codes)
        source["missing_values"] = list(codes)
        assumed["missing_values"] = "no numbers, or numbers that no return can be"
    if returns is not None and rest:
        source |= {"shape": "long_panel", "returns": returns, "characteristics": rest}
        assumed["characteristics"] = "every other column of numbers; known at the close of its row's date"
        _units(source, table, [returns], frequency, assumed, writing)
    elif close is not None:
        source |= {"shape": "long_prices", "close": close} | _bar(lower, close, assumed)
    else:
        raise SourceError(f"{what}: has returns but no other column of numbers; give one column of returns per ticker")
    named = {name for value in source.values() for name in (value if isinstance(value, list) else [value])}
    unused = tuple(name for name in table.columns if name not in named)
    return Findings(source, frequency, ticker is None, assumed, unused)


def _date(table: pl.DataFrame, what: str) -> tuple[str, pl.Series, str | None]:
    """Return the first column that holds nothing but dates, the dates, and their form if it is not ISO."""
    for form in (None, *_FORMS):
        for column, kind in table.schema.items():
            if is_text(kind) or kind.is_temporal() or (kind.is_integer() and "date" in column.lower()):
                days = _dates(table, column, form)
                if len(days) and days.null_count() == 0:
                    return column, days, form
    raise SourceError(
        f"{what}: no column holds dates only; write them as YYYY-MM-DD, or write a config with `date_format` by hand"
    )


def _dates(table: pl.DataFrame, column: str, form: str | None) -> pl.Series:
    day = to_date(column, table.schema[column], "daily", Writing(date_format=form))
    monthly = to_date(column, table.schema[column], "monthly", Writing(date_format=form))
    if day is None or monthly is None:
        return pl.Series([None] * table.height, dtype=pl.Date)
    days = table.select(day).to_series()
    return days if days.null_count() == 0 else table.select(monthly).to_series()


def _twin(form: str) -> str | None:
    """Return the form that puts the month where this one has the day."""
    swapped = form.translate(str.maketrans("dm", "md"))
    return swapped if swapped in _FORMS and swapped != form else None


def _frequency(days: pl.Series, what: str) -> Frequency:
    gaps = np.diff(days.unique().sort().to_physical().to_numpy())
    gap = float(np.median(gaps)) if gaps.size else 1.0
    if gap <= _WIDEST_DAILY:
        return "daily"
    if _MONTHLY[0] <= gap <= _MONTHLY[1]:
        return "monthly"
    raise SourceError(f"{what}: its dates are {gap:.0f} days apart (median); a universe is daily or monthly")


def _first(lower: dict[str, str], names: Sequence[str]) -> str | None:
    return next((lower[name] for name in names if name in lower), None)


def _codes(table: pl.DataFrame, columns: list[str], writing: Writing, what: str) -> tuple[str | float, ...]:
    """Return the few words, and the numbers of old, that seem to stand for missing cells of prices or returns."""
    found: set[str] = set()
    for column in columns:
        words = table.filter(not_a_number(column, table.schema[column], writing))[column].unique().to_list()
        found |= set(map(str, words))
        if len(found) > _MOST_CODES:
            raise SourceError(f"{what}: the column '{column}' holds text, such as '{min(found)}', and no numbers")
    known = Writing(decimal=writing.decimal, missing=tuple(found))
    values = _values(table, columns, known)
    return (*sorted(found), *(code for code in _OLD_CODES if (values == code).any()))


def _bar(lower: dict[str, str], close: str, assumed: dict[str, str]) -> dict[str, str]:
    if close.lower() in _ADJUSTED:
        assumed["close"] = "adjusted; open, high and low beside it are not, so they are left out"
        names: tuple[str, ...] = ("volume",)
    else:
        assumed["close"] = "adjusted for splits and dividends; if it is not, see docs/data-quality.md"
        names = ("open", "high", "low", "volume")
    return {name: lower[name] for name in names if name in lower}


def _wide(
    table: pl.DataFrame,
    columns: list[str],
    source: dict[str, Any],
    frequency: Frequency,
    assumed: dict[str, str],
    writing: Writing,
) -> Findings:
    """Say of a table without a column of tickers that each column of numbers is a stock."""
    if not columns:
        raise SourceError("no column holds numbers; give prices or returns")
    unused = tuple(name for name in table.columns if name not in {source["date"], *columns})
    source |= {"tickers": columns} if unused else {}
    if codes := [code for code in _OLD_CODES if (_values(table, columns, writing) == code).any()]:
        writing = Writing(decimal=writing.decimal, missing=tuple(codes))
        source["missing_values"] = codes
        assumed["missing_values"] = "numbers that no return can be"
    if bool((_values(table, columns, writing) > 0.0).all()):
        assumed["shape"] = "all numbers are positive, so they are taken for prices, adjusted for splits and dividends"
        return Findings(source | {"shape": "wide_prices"}, frequency, assumed=assumed, unused=unused)
    assumed["shape"] = "some numbers are not positive, so they are taken for returns"
    source |= {"shape": "wide_returns"}
    _units(source, table, columns, frequency, assumed, writing)
    return Findings(source, frequency, assumed=assumed, unused=unused)


def _units(
    source: dict[str, Any],
    table: pl.DataFrame,
    columns: list[str],
    frequency: Frequency,
    assumed: dict[str, str],
    writing: Writing,
) -> None:
    values = np.abs(_values(table, columns, writing).to_numpy())
    typical = float(np.median(values[values > 0.0])) if values.any() else 0.0
    source["units"] = "percent" if typical > LARGEST_RETURN[frequency] else "decimal"
    assumed["units"] = f"a typical move in the file is {typical:.2g}"


def _values(table: pl.DataFrame, columns: list[str], writing: Writing) -> pl.Series:
    parts = [table.select(to_number(name, table.schema[name], writing)).to_series().rename("") for name in columns]
    return pl.concat(parts).drop_nans()


def _is_number(table: pl.DataFrame, column: str, writing: Writing) -> bool:
    return not table.select(not_a_number(column, table.schema[column], writing).any()).item()


def _numbers(table: pl.DataFrame, columns: list[str], writing: Writing) -> int:
    return sum(_is_number(table, name, writing) for name in columns)
