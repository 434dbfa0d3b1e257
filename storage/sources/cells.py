"""What counts as a date, as a number and as missing: a column as written becomes what it means.

Dates may be dates, timestamps at midnight, ISO text (``2017-01-03``), or ``20170103`` as text or integer, or text of
the form that the source declares; monthly files may also say ``201701`` or ``2017-01``. A timestamp with a time zone or
an offset counts as the day that it shows there. Anything else, such as a time of day, is not a date. Numbers may be
text that reads as a number. The rules themselves are those of `schemas.cells`, which frames in a notebook follow too.
Saying what is wrong with a cell belongs in `frames`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from schemas.cells import DATE_FORMATS, LONGEST_DATE, MIDNIGHT, MISSING, MONTH_FORMATS
from schemas.sources import FactorSource, HoldingsSource, IndustrySource, MarketSource
from schemas.spec import Frequency


@dataclass(frozen=True)
class Writing:
    """How the cells of a source are written.

    Attributes
    ----------
    date_format : str or None
        Form of dates as text; None for those of `schemas.cells.DATE_FORMATS`.
    missing : tuple of float or str
        What stands for a missing cell, beside the texts of `schemas.cells.MISSING`.
    decimal : str
        Decimal mark of numbers as text.
    """

    date_format: str | None = None
    missing: tuple[float | str, ...] = ()
    decimal: str = "."

    @property
    def codes(self) -> list[float]:
        """The numbers among what is missing."""
        return [float(code) for code in self.missing if not isinstance(code, str)]

    @property
    def words(self) -> list[str]:
        """Every text that is missing."""
        return [*MISSING, *(code.strip() for code in self.missing if isinstance(code, str))]


PLAIN = Writing()


def writing_of(source: MarketSource | FactorSource | IndustrySource | HoldingsSource) -> Writing:
    """Return how the cells of a source are written."""
    decimal = "." if isinstance(source, IndustrySource) else source.decimal
    return Writing(source.date_format, source.missing_values, decimal)


def to_date(column: str, dtype: pl.DataType, frequency: Frequency, writing: Writing = PLAIN) -> pl.Expr | None:
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
        if writing.date_format is not None:
            day = _in_form(text, writing.date_format, frequency)
        else:
            longer = text.str.len_bytes() > LONGEST_DATE
            plain = pl.when(longer).then(text.str.replace(MIDNIGHT, "")).otherwise(text)
            forms = [_dated(plain, form, length) for form, length in DATE_FORMATS.items()]
            if frequency == "monthly":
                forms += [_dated(plain, form, length, " 01", " %d") for form, length in MONTH_FORMATS.items()]
            day = pl.coalesce(forms)
    else:
        return None
    return day.dt.month_end() if frequency == "monthly" else day


def to_number(column: str, dtype: pl.DataType, writing: Writing = PLAIN) -> pl.Expr:
    """Return a column as Float64, NaN where missing; collecting it fails on text that is no number."""
    number = _parsed(column, writing, strict=True) if is_text(dtype) else pl.col(column).cast(pl.Float64)
    if codes := writing.codes:
        single = [float(np.float32(code)) for code in codes] if dtype == pl.Float32 else codes
        number = pl.when(~number.is_in(single)).then(number)
    return number.fill_null(float("nan"))


def to_name(column: str, writing: Writing = PLAIN) -> pl.Expr:
    """Return a column of names as text without blanks around it, null where missing."""
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(~text.is_in([*writing.words, *(f"{code:g}" for code in writing.codes)])).then(text)


def not_a_number(column: str, dtype: pl.DataType, writing: Writing = PLAIN) -> pl.Expr:
    """Return whether cells hold text that is neither a number nor missing."""
    if not is_text(dtype):
        return pl.lit(value=False)
    return pl.col(column).is_not_null() & _parsed(column, writing, strict=False).is_null()


def is_text(dtype: pl.DataType) -> bool:
    """Return whether a type holds text."""
    return dtype in (pl.String, pl.Categorical, pl.Enum)


def is_numeric_or_text(dtype: pl.DataType) -> bool:
    """Return whether a column of a type may hold numbers."""
    return dtype.is_numeric() or is_text(dtype) or dtype == pl.Null


def _dated(text: pl.Expr, form: str, length: int | None, day: str = "", day_form: str = "") -> pl.Expr:
    digits = text if length is None else pl.when(text.str.len_bytes() == length).then(text)
    return (digits + day if day else digits).str.to_date(form + day_form, strict=False)


def _in_form(text: pl.Expr, form: str, frequency: Frequency) -> pl.Expr:
    """Parse dates of a declared form; months need no day in it, and a time of day in it must be midnight."""
    if frequency == "monthly" and not any(part in form for part in ("%d", "%e", "%j", "%F", "%D")):
        text, form = text + " 01", form + " %d"
    if not any(part in form for part in ("%H", "%I", "%M", "%S", "%T", "%R", "%z", "%p")):
        return text.str.to_date(form, strict=False)
    moment = text.str.to_datetime(form, strict=False)
    return pl.when(moment.dt.time() == pl.time(0, 0, 0)).then(moment.dt.date())


def _parsed(column: str, writing: Writing, *, strict: bool) -> pl.Expr:
    text = pl.col(column).cast(pl.String).str.strip_chars()
    number = text
    if writing.decimal == ",":  # a point is a thousands separator then, or a decimal one: text, whichever it is
        number = (
            pl.when(text.str.contains(".", literal=True))
            .then(pl.lit("?"))
            .otherwise(text.str.replace(",", ".", literal=True))
        )
    return pl.when(text.is_in(writing.words)).then(pl.lit("NaN")).otherwise(number).cast(pl.Float64, strict=strict)
