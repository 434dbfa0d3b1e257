"""What counts as a date, as a number and as missing: a column as written becomes what it means.

Dates may be dates, timestamps at midnight, ISO text (``2017-01-03``), or ``20170103`` as text or integer;
monthly files may also say ``201701`` or ``2017-01``. A timestamp with a time zone counts as the day that it
shows in that zone. Anything else, such as a time of day, is not a date. Numbers may be text that reads as a
number; `MISSING` counts as missing. Saying what is wrong with a cell belongs in `frames`.
"""

from __future__ import annotations

import polars as pl

from schemas.spec import Frequency

MISSING = ["", ".", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None"]
"""Text that counts as a missing number."""


def to_date(column: str, dtype: pl.DataType, frequency: Frequency) -> pl.Expr | None:
    """Return a column as Date, null where a cell is not a date; None if the whole type cannot hold dates.

    Monthly dates become the calendar end of their month.
    """
    cell = pl.col(column)
    day: pl.Expr
    if dtype == pl.Date:
        day = cell
    elif dtype == pl.Datetime:
        local = cell.dt.replace_time_zone(None)
        day = pl.when(local.dt.time() == pl.time(0, 0, 0)).then(local.dt.date())
    elif is_text(dtype) or dtype.is_integer():
        text = cell.cast(pl.String).str.strip_chars()
        plain = text.str.replace("T", " ").str.replace(r" 00:00(:00(\.0+)?)?$", "")
        forms = [plain.str.to_date("%Y-%m-%d", strict=False), text.str.to_date("%Y%m%d", strict=False)]
        if frequency == "monthly":
            forms.append((text.str.replace("-", "") + "01").str.to_date("%Y%m%d", strict=False))
        day = pl.coalesce(forms)
    else:
        return None
    return day.dt.month_end() if frequency == "monthly" else day


def to_number(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return a column as Float64, NaN where missing; collecting it fails on text that is no number."""
    number = _parsed(column, strict=True) if is_text(dtype) else pl.col(column).cast(pl.Float64)
    return number.fill_null(float("nan"))


def not_a_number(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return whether cells hold text that is neither a number nor missing."""
    if not is_text(dtype):
        return pl.lit(value=False)
    return pl.col(column).is_not_null() & _parsed(column, strict=False).is_null()


def is_text(dtype: pl.DataType) -> bool:
    """Return whether a type holds text."""
    return dtype in (pl.String, pl.Categorical, pl.Enum)


def is_numeric_or_text(dtype: pl.DataType) -> bool:
    """Return whether a column of a type may hold numbers."""
    return dtype.is_numeric() or is_text(dtype) or dtype == pl.Null


def _parsed(column: str, *, strict: bool) -> pl.Expr:
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(text.is_in(MISSING)).then(pl.lit("NaN")).otherwise(text).cast(pl.Float64, strict=strict)
