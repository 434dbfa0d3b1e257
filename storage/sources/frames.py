"""From the raw rows of an origin to a clean table: the columns asked for, real dates, and float64 numbers.

Here belongs everything that can be said of one cell or one row: it is missing, it is text, it is no date,
it is out of order. What counts as a date or a number is said in `cells`; what names of columns tell, in `columns`; what
the columns mean (prices, returns, factors) belongs in `market` and `factors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from schemas.cells import DATE_ADVICE, EARLIEST
from schemas.errors import DataError, SourceError
from schemas.spec import Frequency
from storage.sources.cells import PLAIN, Writing, is_numeric_or_text, is_text, not_a_number, to_date, to_name, to_number
from storage.sources.columns import check_named, check_same, check_stock_names, is_ticker, stripped
from storage.sources.limits import check_cells
from storage.sources.order import check_order
from storage.sources.origins import Origin

DATE, TICKER = "__date__", "__ticker__"
"""Names of the key columns of a clean table; no ticker or factor is called that."""

_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


@dataclass(frozen=True)
class Selection:
    """What to read of an origin.

    Attributes
    ----------
    date_column : str or None
        Column of the dates; None for rows that hold at all dates.
    ticker_column : str or None
        Column of the tickers of a long table; None for one row per date.
    values : Mapping[str, str] or None
        Columns of numbers by the name they get; None for all columns but the date.
    frequency : {"daily", "monthly"}
        Monthly dates become the calendar end of their month.
    labels : Mapping[str, str]
        Columns of names by the name they get.
    writing : Writing
        How cells are written.
    ordered : bool
        Whether dates must ascend, of each ticker of a long table.
    """

    date_column: str | None
    ticker_column: str | None
    values: Mapping[str, str] | None
    frequency: Frequency
    labels: Mapping[str, str] = field(default_factory=dict)
    writing: Writing = PLAIN
    ordered: bool = True


@dataclass(frozen=True)
class Table:
    """Clean rows, and what they were read from, for messages.

    Attributes
    ----------
    name : str
        The first part of the origin, and how many more there are.
    rows : polars.DataFrame
        Columns `DATE` (Date; if asked for), `TICKER` (String; long tables only), the values (Float64, NaN where
        missing) and the labels (String, null where missing). The parts of the origin follow one another.
    """

    name: str
    rows: pl.DataFrame


def read_table(origin: Origin, selection: Selection, max_cells: int) -> Table:
    """Read and check the rows of an origin, which may not declare more than so many cells.

    Raises
    ------
    SourceError
        If a part cannot be read, has other columns than the first, lacks a column, holds text or an infinite
        value in a numeric column, has dates out of order, or declares too much.
    DataError
        If a date is missing or impossible, a ticker is missing, or no row is left.
    """
    parts = origin.read()
    columns: list[str] | None = None
    values = selection.values
    tables = []
    declared = 0
    for name, given in parts.items():
        frame = _named(name, given)
        schema = frame.collect_schema()
        if columns is None:
            columns = list(schema)
            values = _values(name, columns, selection)
        check_same(name, list(schema), next(iter(parts)), columns)
        declared += _rows(name, frame) * (len(values or {}) + len(selection.labels) + 1)
        check_cells(name, declared, max_cells)
        tables.append(_clean(name, frame, schema, selection, values or {}))
    table = pl.concat(tables) if tables else pl.DataFrame()
    if table.is_empty():
        raise DataError(f"{_names(parts)}: no rows")
    return Table(_names(parts), table)


def _named(name: str, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Take blanks off the names of columns."""
    try:
        schema = frame.collect_schema()
    except pl.exceptions.DuplicateError:
        raise SourceError(f"{name}: has the column already that `file_name_as` would add; give another name") from None
    except _FAILURES as error:
        raise _unreadable(name, error) from None
    return frame.rename(renamed) if (renamed := stripped(name, schema)) else frame


def _rows(name: str, frame: pl.LazyFrame) -> int:
    """Return how many rows a part declares; of Parquet and Arrow files only the metadata are read."""
    try:
        return int(frame.select(pl.len()).collect().item())
    except _FAILURES as error:
        raise _unreadable(name, error) from None


def _values(name: str, columns: list[str], selection: Selection) -> dict[str, str]:
    wanted = (*(selection.values or {}).values(), *selection.labels.values())
    check_named(name, (selection.date_column, selection.ticker_column, *wanted), columns, selection.ticker_column)
    if selection.values is not None:
        return dict(selection.values)
    stocks = [column for column in columns if column != selection.date_column]
    check_stock_names(name, stocks)
    return {column: column for column in stocks}


def _clean(
    name: str, frame: pl.LazyFrame, schema: pl.Schema, selection: Selection, values: Mapping[str, str]
) -> pl.DataFrame:
    for column in values.values():
        if not is_numeric_or_text(schema[column]):
            raise SourceError(
                f"{name}: column '{column}' holds {schema[column]}, not numbers; leave it out or convert it"
            )
    day = None if selection.date_column is None else _day(name, schema, selection.date_column, selection)
    keys = [] if day is None else [day.alias(DATE)]
    if selection.ticker_column is not None:
        keys.append(pl.col(selection.ticker_column).cast(pl.String).str.strip_chars().alias(TICKER))
    how = selection.writing
    numbers = [to_number(column, schema[column], how).alias(alias) for alias, column in values.items()]
    labels = [_label(name, schema, column, how).alias(alias) for alias, column in selection.labels.items()]
    try:
        table = frame.select(*keys, *numbers, *labels).collect()
    except pl.exceptions.InvalidOperationError as error:
        raise _bad_number(name, frame, schema, selection, values) or _unreadable(name, error) from None
    except _FAILURES as error:
        raise _unreadable(name, error) from None
    if day is not None:
        if table[DATE].null_count():
            raise _bad_date(name, frame.filter(day.is_null()), selection)
        _check_range(name, table, selection)
    _check_tickers(name, table)
    if day is not None and selection.ordered:
        check_order(name, table[DATE], table[TICKER] if TICKER in table.columns else None)
    _check_finite(name, table, values)
    return table


def _day(name: str, schema: pl.Schema, column: str, selection: Selection) -> pl.Expr:
    day = to_date(column, schema[column], selection.frequency, selection.writing)
    if day is None:
        raise SourceError(f"{name}: column '{column}' holds {schema[column]}, not dates; write dates as YYYY-MM-DD")
    return day


def _label(name: str, schema: pl.Schema, column: str, writing: Writing) -> pl.Expr:
    if not (is_text(schema[column]) or schema[column].is_integer()):
        raise SourceError(f"{name}: column '{column}' holds {schema[column]}, not names; write text or whole numbers")
    return to_name(column, writing)


def _bad_date(name: str, rows: pl.LazyFrame, selection: Selection) -> DataError:
    first = rows.head(1).collect()
    given = first[str(selection.date_column)].cast(pl.String)[0]
    shown = "is missing" if given is None else f"is '{given}', which is not a date"
    form = selection.writing.date_format
    advice = f"{DATE_ADVICE}, or set `date_format` (such as %d.%m.%Y)"
    if form is not None:
        shown, advice = shown.replace("a date", f"a date of the form {form}"), "correct the cell, or `date_format`"
    return DataError(
        f"{name}: the date in column '{selection.date_column}'{_owner(first, selection)} {shown}; {advice}"
    )


def _check_range(name: str, table: pl.DataFrame, selection: Selection) -> None:
    latest = datetime.now(UTC).date() + timedelta(days=1)
    if selection.frequency == "monthly":
        latest = (latest.replace(day=1) + timedelta(days=32)).replace(day=1) - timedelta(days=1)
    strange = table.filter(~pl.col(DATE).is_between(EARLIEST, latest)).head(1)
    if not strange.is_empty():
        raise DataError(f"{name}: impossible date{_where(strange)}; dates must lie between {EARLIEST} and today")


def _check_tickers(name: str, table: pl.DataFrame) -> None:
    if TICKER in table.columns:
        nameless = table.filter(pl.col(TICKER).is_null() | (pl.col(TICKER).str.strip_chars() == ""))
        if not nameless.is_empty():
            first = f", the first is of {nameless[DATE][0]}" if DATE in table.columns else ""
            raise DataError(f"{name}: {nameless.height} rows have no ticker{first}")


def _check_finite(name: str, table: pl.DataFrame, values: Mapping[str, str]) -> None:
    infinite = table.select(pl.col(*values).is_infinite().any()) if values else pl.DataFrame()
    for alias in infinite.columns:
        if infinite[alias][0]:
            row = table.filter(pl.col(alias).is_infinite()).head(1)
            raise SourceError(
                f"{name}: column '{values[alias]}' holds an infinite value{_where(row)}; leave it empty if missing"
            )


def _bad_number(
    name: str, frame: pl.LazyFrame, schema: pl.Schema, selection: Selection, values: Mapping[str, str]
) -> SourceError | None:
    """Find the first cell that does not read as a number."""
    for column in dict.fromkeys(values.values()):
        bad = frame.filter(not_a_number(column, schema[column], selection.writing)).head(1).collect()
        if not bad.is_empty():
            given = str(bad[column][0])
            return SourceError(
                f"{name}: column '{column}' holds text where a number is expected: '{given}'"
                f"{_owner(bad, selection)}{_when(bad, selection)}; {_remedy(column, given, selection)}"
            )
    return None


def _remedy(column: str, given: str, selection: Selection) -> str:
    if selection.ticker_column is None and is_ticker(column):
        return "with one row per date and ticker, set a `shape` of long rows"
    if "," in given and "." not in given and selection.writing.decimal == ".":
        return "set `decimal: ','` if it is a decimal comma"
    return "correct the cell, leave it empty if it is missing, or list it under `missing_values`"


def _owner(row: pl.DataFrame, selection: Selection) -> str:
    ticker = None if selection.ticker_column is None else row[selection.ticker_column][0]
    return "" if ticker is None else f" of ticker {ticker}"


def _when(row: pl.DataFrame, selection: Selection) -> str:
    return "" if selection.date_column is None else f" on {row[selection.date_column][0]}"


def _where(row: pl.DataFrame) -> str:
    ticker = f", ticker {row[TICKER][0]}" if TICKER in row.columns else ""
    return f" (date {row[DATE][0]}{ticker})"


def _unreadable(name: str, error: Exception) -> SourceError:
    reason = str(error).strip().split("\n", 1)[0]
    return SourceError(f"{name}: cannot be read: {reason}; is it complete, and of the kind that its name says?")


def _names(parts: Mapping[str, pl.LazyFrame]) -> str:
    names = list(parts)
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
