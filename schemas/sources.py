"""Where data come from and how they are shaped: the `data` and `factors` parts of a run spec.

An origin says where rows come from (files, a query, a packaged dataset, a plugin); a shape says how they are to be
understood. Any origin goes with any shape. Reading belongs in `storage.sources`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, Strict, field_validator, model_validator

from schemas.base import Frozen, Name

Units = Literal["decimal", "percent"]
Encoding = Literal[
    "utf-8", "utf-16", "latin-1", "cp1250", "cp1251", "cp1252", "shift_jis", "gb18030", "big5", "euc_kr"
]  # fmt: skip


def _tells_a_month(form: str) -> str:
    parts = set(re.findall(r"%[-_0]?([A-Za-z])", form))
    if not (parts & set("YyFD") and parts & set("mbBhFjD")):
        raise ValueError("needs a year and a month, such as %d.%m.%Y")
    return form


DateFormat = Annotated[str, AfterValidator(_tells_a_month)]
Codes = tuple[Annotated[float, Strict()] | Annotated[str, Strict()], ...]
_DATE_FORMAT = "How dates are written as text, such as %d.%m.%Y; YYYY-MM-DD or YYYYMMDD if left out."
_MISSING_VALUES = (
    "Numbers or texts that stand for a missing cell, such as -99.99, beside an empty cell, NA and the like."
)
_DELISTING = (
    "Column of the return from the last price to what holders got when the stock was delisted, in the units of the "
    "returns; empty elsewhere. It is compounded with the return of its row, or is the return of a row without one."
)
_ADJUST = (
    "splits: adjust daily prices, volume and shares for jumps that a ratio of splits explains, and list them beside "
    "the ingest. Left out, such jumps are flagged only."
)


class FilesOrigin(Frozen):
    """Parquet, CSV or Arrow files: paths, globs or folders, all with the same columns."""

    kind: Literal["files"] = Field(default="files", description="Where the rows come from.")
    paths: tuple[Path, ...] = Field(
        min_length=1, description="Files, globs or folders; relative ones are taken from the folder of the config."
    )
    separator: Literal[",", ";", "\t", "|"] = Field(
        default=",", description="What stands between two cells of a CSV file."
    )
    encoding: Encoding = Field(
        default="utf-8", description="Encoding of CSV files; one that begins with the mark of UTF-16 is read as that."
    )
    header_line: int = Field(
        default=1,
        ge=1,
        description="Line of a CSV file that names the columns, counted from 1; what stands above it is left out.",
    )
    until: Literal["end", "blank_line"] = Field(
        default="end",
        description="Where the rows of a CSV file end: with the file, or at the first blank line below its header, "
        "where something else follows.",
    )
    file_name_as: str | None = Field(
        default=None,
        min_length=1,
        description="Name of a column to add that holds the name of each file without its suffix, where there is one "
        "file per ticker.",
    )

    @field_validator("paths", mode="before")
    @classmethod
    def _no_urls(cls, paths: Any) -> Any:
        for path in paths if isinstance(paths, list | tuple) else ():
            if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
                raise ValueError("a source of files is read from disk, not from a URL; fetch the file first")
        return paths

    def resolved(self, folder: Path) -> Self:
        """Return the same origin with relative paths taken from a folder."""
        return self.model_copy(update={"paths": tuple(folder / path.expanduser() for path in self.paths)})


class SqlOrigin(Frozen):
    """The rows of one SQL query; the URL of the database comes from ``FACTORCUBE_SQL_URL``."""

    kind: Literal["sql"] = Field(default="sql", description="Where the rows come from.")
    query: str = Field(min_length=1, description="The SELECT whose rows are read.")

    def resolved(self, folder: Path) -> Self:
        """Return the origin itself: it names no file."""
        del folder
        return self


class DuckdbOrigin(Frozen):
    """The rows of one query that DuckDB answers from files and, if named, a database file; it reads nothing else."""

    kind: Literal["duckdb"] = Field(default="duckdb", description="Where the rows come from.")
    query: str = Field(min_length=1, description="The SELECT whose rows are read.")
    tables: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], FilesOrigin] = Field(
        default={},
        description="Files that the query may read, by the name it calls them; the cells of CSV files are text there.",
    )
    database: Path | None = Field(
        default=None,
        description="A DuckDB file, which is only read; a relative one is taken from the folder of the config.",
    )

    def resolved(self, folder: Path) -> Self:
        """Return the same origin with relative paths taken from a folder."""
        tables = {name: files.resolved(folder) for name, files in self.tables.items()}
        database = None if self.database is None else folder / self.database.expanduser()
        return self.model_copy(update={"tables": tables, "database": database})


class PackageOrigin(Frozen):
    """A dataset that ships inside an installed package: real data that anybody has."""

    kind: Literal["package"] = Field(default="package", description="Where the rows come from.")
    name: Literal["skfolio_sp500", "skfolio_factors", "french"] = Field(description="Which dataset.")

    def resolved(self, folder: Path) -> Self:
        """Return the origin itself: it names no file."""
        del folder
        return self


class PluginOrigin(Frozen):
    """A vendor's source, found by the name of its entry point in the group ``factorcube.origins``."""

    kind: Literal["plugin"] = Field(default="plugin", description="Where the rows come from.")
    name: Name = Field(description="Name of the entry point.")
    options: dict[str, Any] = Field(default_factory=dict, description="What the plugin is given, as it is.")

    def resolved(self, folder: Path) -> Self:
        """Return the origin itself: it names no file."""
        del folder
        return self


Origin = Annotated[FilesOrigin | SqlOrigin | DuckdbOrigin | PackageOrigin | PluginOrigin, Field(discriminator="kind")]
_WHERE: dict[str, Any] = {
    "paths": True, "query": True, "name": True, "options": True, "database": True, "tables": {"__all__": {"paths"}}
}  # fmt: skip


def _reading(source: Frozen) -> dict[str, Any]:
    return source.model_dump(mode="json", exclude={"origin": _WHERE})


class _Source(Frozen):
    origin: Origin = Field(description="Where the rows come from.")
    date: str = Field(default="date", description="Column of the dates.")
    date_format: DateFormat | None = Field(default=None, description=_DATE_FORMAT)
    missing_values: Codes = Field(default=(), description=_MISSING_VALUES)
    decimal: Literal[".", ","] = Field(default=".", description="Decimal mark of numbers that are written as text.")

    def resolved(self, folder: Path) -> Self:
        """Return the same source with relative paths of files taken from a folder."""
        return self.model_copy(update={"origin": self.origin.resolved(folder)})

    def reading(self) -> dict[str, Any]:
        """Return what decides how the bytes of the source are understood, and nothing of where they lie."""
        return _reading(self)


class LongPrices(_Source):
    """One row per date and ticker, with the columns of a price bar."""

    shape: Literal["long_prices"] = Field(default="long_prices", description="How the rows are to be understood.")
    ticker: str = Field(default="ticker", description="Column of the tickers.")
    close: str = Field(default="close", description="Column of the closing price that returns are computed from.")
    open: str | None = Field(default=None, description="Column of the opening price.")
    high: str | None = Field(default=None, description="Column of the highest price.")
    low: str | None = Field(default=None, description="Column of the lowest price.")
    volume: str | None = Field(default=None, description="Column of the volume in shares.")
    shares: str | None = Field(default=None, description="Column of the shares outstanding.")
    delisting_return: str | None = Field(default=None, description=_DELISTING)
    adjust: Literal["splits"] | None = Field(default=None, description=_ADJUST)


class WidePrices(_Source):
    """One column of closing prices per ticker."""

    shape: Literal["wide_prices"] = Field(default="wide_prices", description="How the rows are to be understood.")
    tickers: tuple[str, ...] | None = Field(default=None, description="Columns to read; all but the date if left out.")
    adjust: Literal["splits"] | None = Field(default=None, description=_ADJUST)


class WideReturns(_Source):
    """One column of simple returns per ticker."""

    shape: Literal["wide_returns"] = Field(default="wide_returns", description="How the rows are to be understood.")
    tickers: tuple[str, ...] | None = Field(default=None, description="Columns to read; all but the date if left out.")
    units: Units = Field(default="decimal", description="Units of the returns.")


class LongPanel(_Source):
    """One row per date and ticker, with a return and characteristics."""

    shape: Literal["long_panel"] = Field(default="long_panel", description="How the rows are to be understood.")
    ticker: str = Field(default="ticker", description="Column of the tickers.")
    returns: str = Field(default="ret", description="Column of the simple returns.")
    characteristics: tuple[str, ...] = Field(min_length=1, description="Columns of the characteristics.")
    known: Literal["at_date", "before_date"] = Field(
        default="at_date",
        description="Whether a row's characteristics are known at its date, or already lagged to explain its return.",
    )
    units: Units = Field(default="decimal", description="Units of the returns.")
    delisting_return: str | None = Field(default=None, description=_DELISTING)


MarketSource = Annotated[LongPrices | WidePrices | WideReturns | LongPanel, Field(discriminator="shape")]


class IndustrySource(Frozen):
    """The industry of each stock: one row per ticker, or one row per ticker and date from which it holds."""

    origin: Origin = Field(description="Where the rows come from.")
    ticker: str = Field(default="ticker", description="Column of the tickers.")
    industry: str = Field(description="Column of the names of the industries; empty where unknown.")
    date: str | None = Field(
        default=None,
        description="Column of the date from which a row holds, until the next row of the ticker. Left out: one row "
        "per ticker, which holds at all dates, the early ones included.",
    )
    date_format: DateFormat | None = Field(default=None, description=_DATE_FORMAT)
    missing_values: Codes = Field(default=(), description=_MISSING_VALUES)

    def resolved(self, folder: Path) -> Self:
        """Return the same source with relative paths of files taken from a folder."""
        return self.model_copy(update={"origin": self.origin.resolved(folder)})

    def reading(self) -> dict[str, Any]:
        """Return what decides how the bytes of the source are understood, and nothing of where they lie."""
        return _reading(self)


class HoldingsSource(Frozen):
    """What a book holds: one row per ticker, or per date and ticker, and for several books one more column."""

    origin: Origin = Field(description="Where the rows come from.")
    ticker: str = Field(default="ticker", description="Column of the tickers.")
    date: str | None = Field(default="date", description="Column of the dates; null if all rows are of one.")
    weight: str | None = Field(default=None, description="Column of the weights; what they lack to 1 is cash.")
    value: str | None = Field(default=None, description="Column of the market values, in one currency.")
    shares: str | None = Field(default=None, description="Column of the numbers of shares.")
    portfolio: str | None = Field(default=None, description="Column of the names of books, where there are several.")
    book: str | None = Field(default=None, description="Which of them; needs `portfolio`.")
    date_format: DateFormat | None = Field(default=None, description=_DATE_FORMAT)
    missing_values: Codes = Field(default=(), description=_MISSING_VALUES)
    decimal: Literal[".", ","] = Field(default=".", description="Decimal mark of numbers that are written as text.")

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if len([name for name in self.amounts if name is not None]) != 1:
            raise ValueError("name the column of one amount: `weight`, `value` or `shares`")
        if self.book is not None and self.portfolio is None:
            raise ValueError("`book` is one of the names in a column; name it as `portfolio`")
        return self

    def resolved(self, folder: Path) -> Self:
        """Return the same source with relative paths of files taken from a folder."""
        return self.model_copy(update={"origin": self.origin.resolved(folder)})

    @property
    def amounts(self) -> tuple[str | None, str | None, str | None]:
        """Columns of the weights, values and shares; one of them is named."""
        return self.weight, self.value, self.shares

    @property
    def amount(self) -> str:
        """Column that says how much is held."""
        return next(name for name in self.amounts if name is not None)


class FactorSource(_Source):
    """Observed factors and the risk-free rate, one row per date."""

    columns: tuple[str, ...] = Field(default=(), description="Columns of observed factors.")
    risk_free: str | None = Field(default=None, description="Column of the risk-free rate per period.")
    units: Units = Field(description="Units of the file; Fama-French files are in percent.")
    carry_risk_free: int = Field(
        default=0, ge=0, description="Periods after the last date of the file through which its last rate is carried."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.columns and self.risk_free is None:
            raise ValueError("name at least one factor column or the risk_free column")
        return self
