"""The rows of one SQL query as an origin, through any SQLAlchemy URL.

The URL comes from the settings and may hold a password: no message and no fingerprint repeats any part of it.
The query is meant to read: it is one statement, it must begin with SELECT or WITH, and the session in which it runs may
only read where the database can be told so (`READ_ONLY`). Elsewhere its transaction is rolled back at the end, which a
function or a driver that commits by itself gets around: there the rights of the URL's user must be to read only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import polars as pl
from pydantic import SecretStr
from sqlalchemy import create_engine, make_url
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from schemas.addresses import check_address
from schemas.contracts import SourceFile
from schemas.errors import ConfigError, SourceError
from storage.sources.limits import check_cells

READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
    "duckdb": "",
}
"""Databases that hold a query to reading: what they are told before it. DuckDB is told when it is opened."""
_ROWS_AT_ONCE = 200_000


class SqlOrigin:
    """The rows of one query.

    Parameters
    ----------
    query : str
        One SELECT (or WITH ... SELECT), passed to the database as it is.
    url : SecretStr or None
        SQLAlchemy URL.
    max_cells : int
        Most cells that the query may give.

    Raises
    ------
    ConfigError
        If there is no URL, it is not one or names a link-local address, or the query does not read.
    """

    def __init__(self, query: str, url: SecretStr | None, max_cells: int) -> None:
        if url is None:
            raise ConfigError("a source of kind sql needs FACTORCUBE_SQL_URL in the environment, an SQLAlchemy URL")
        verb = (query.split(maxsplit=1) or [""])[0]
        if verb.upper() not in {"SELECT", "WITH"}:
            raise ConfigError(f"a query must begin with SELECT or WITH, not '{verb}'")
        if ";" in query.strip().removesuffix(";"):
            raise ConfigError(
                "a query must be one statement: take the ';' out of it (in a text, write it as a function)"
            )
        self._query = query
        self._url = url
        self._max_cells = max_cells
        self.name = f"sql-{hashlib.sha256(query.encode()).hexdigest()[:12]}"

    def read(self) -> dict[str, pl.LazyFrame]:
        """Return the rows of the query; a column of mixed types becomes text."""
        return {f"query {self.name}": self._rows.lazy()}

    def fingerprint(self) -> tuple[SourceFile, ...]:
        """Return the digest of the query as name, and the SHA-256 of its rows whatever order they came in."""
        rows = self._rows.sort(self._rows.columns)
        return (SourceFile(name=self.name, sha256=hashlib.sha256(rows.write_csv().encode()).hexdigest()),)

    @cached_property
    def _rows(self) -> pl.DataFrame:
        engine = self._engine()
        try:
            with engine.connect() as connection:
                if first := READ_ONLY.get(engine.dialect.name):
                    connection.exec_driver_sql(first)
                options = {"stream_results": True}
                result = connection.exec_driver_sql(self._query, execution_options=options)
                names = self._unique(list(result.keys()))
                parts, cells = [], 0
                for rows in result.partitions(_ROWS_AT_ONCE):
                    cells += len(rows) * len(names)
                    check_cells(f"query {self.name}", cells, self._max_cells)
                    parts.append(_frame(names, rows))
                connection.rollback()
        except (SQLAlchemyError, OSError, TypeError, ValueError) as error:  # drivers raise their own on bad options
            raise SourceError(
                f"query {self.name}: the {engine.dialect.name} database refused it: {self._safe(error)}"
            ) from None
        finally:
            engine.dispose()
        return _concatenate(parts) if parts else pl.DataFrame({name: [] for name in names})

    def _unique(self, names: list[str]) -> list[str]:
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise SourceError(f"query {self.name}: it gives the column '{doubled[0]}' twice; name each column once")
        return names

    def _engine(self) -> Engine:
        try:
            url = make_url(self._url.get_secret_value())
            if url.host or url.query:
                check_address(url.render_as_string(), "FACTORCUBE_SQL_URL")
            if url.get_backend_name() == "sqlite" and not _exists(url):
                raise SourceError("FACTORCUBE_SQL_URL: there is no such SQLite file, and none is made")
            options = {"read_only": True} if url.get_backend_name() == "duckdb" else {}
            return create_engine(url, connect_args=options)
        except (ArgumentError, NoSuchModuleError, ValueError):
            raise ConfigError(
                "FACTORCUBE_SQL_URL is not an SQLAlchemy URL such as postgresql://user@host/database"
            ) from None
        except ModuleNotFoundError as error:
            raise ConfigError(f"FACTORCUBE_SQL_URL: install the database driver '{error.name}'") from None

    def _safe(self, error: Exception) -> str:
        """Return the first line of a database's message with every part of the URL taken out."""
        message = str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]
        url = make_url(self._url.get_secret_value())
        values = [value for item in url.query.values() for value in ([item] if isinstance(item, str) else item)]
        for secret in (self._url.get_secret_value(), str(url), url.password, *values, url.username, url.host):
            for form in {str(secret or ""), quote(str(secret or "")), quote_plus(str(secret or ""))} - {""}:
                message = message.replace(form, "***")
        return message


def only_reads(url: SecretStr) -> bool:
    """Whether the database of a URL can be held to reading; True for what is no URL, which is refused elsewhere."""
    try:
        return make_url(url.get_secret_value()).get_backend_name() in READ_ONLY
    except (ArgumentError, ValueError):
        return True


def _exists(url: URL) -> bool:
    """Whether an SQLite file is there: SQLite would make it. What is no plain path is left to SQLite."""
    name = url.database or ":memory:"
    return name.startswith((":", "file:")) or Path(name).exists()


def _frame(names: Sequence[str], rows: Sequence[Any]) -> pl.DataFrame:
    return pl.DataFrame(
        [_series(name, list(values)) for name, values in zip(names, zip(*rows, strict=True), strict=True)]
    )


def _series(name: str, values: list[Any]) -> pl.Series:
    try:
        return pl.Series(name, values, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)


def _concatenate(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    texts = [name for name in parts[0].columns if any(part.schema[name] == pl.String for part in parts)]
    return pl.concat([part.with_columns(pl.col(texts).cast(pl.String)) for part in parts], how="vertical_relaxed")
