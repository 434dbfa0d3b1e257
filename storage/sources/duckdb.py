"""The rows of one DuckDB query over files as an origin: joins, filters and arithmetic that no shape has a key for.

Files come in through `files`, as they do for any other source, and are handed to DuckDB as tables; DuckDB itself opens
no file but the database that is named, and changes nothing (`storage.duck`). So it is known what a query has read. What
its columns mean belongs in `frames` and `market`.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import polars as pl

from schemas import sources as specs
from schemas.contracts import SourceFile
from schemas.errors import ConfigError, SourceError
from storage.duck import connected
from storage.files import sha256_file
from storage.sources.columns import check_same
from storage.sources.files import FilesOrigin
from storage.sources.limits import check_cells

if TYPE_CHECKING:
    import duckdb


class DuckdbOrigin:
    """The rows of one query.

    Parameters
    ----------
    spec : schemas.sources.DuckdbOrigin
        The query, the files that it may read by name, and the database file, if any. Relative paths are taken from the
        working directory.
    max_cells : int
        Most cells that a file may declare and the query may give.

    Raises
    ------
    SourceError
        If a file does not exist.
    """

    def __init__(self, spec: specs.DuckdbOrigin, max_cells: int) -> None:
        self._query, self._database, self._max_cells = spec.query, spec.database, max_cells
        self._tables = {name: FilesOrigin(files, max_cells) for name, files in spec.tables.items()}
        self._digest = hashlib.sha256(spec.query.encode()).hexdigest()
        self.name = f"duckdb-{self._digest[:12]}"
        if self._database is not None and not self._database.is_file():
            raise SourceError(f"{self._database}: there is no such DuckDB file, and none is made")

    def read(self) -> dict[str, pl.LazyFrame]:
        """Return the rows of the query.

        Raises
        ------
        ConfigError
            If DuckDB is not installed, or the query is not one statement that reads.
        SourceError
            If a file cannot be read, DuckDB refuses the query, or it gives too much.
        """
        tables = {name: _rows(files) for name, files in self._tables.items()}
        with self._connected() as connection:
            for name, rows in tables.items():
                connection.register(name, rows)
            self._check_reads(connection)
            result = connection.sql(self._query)
            most = self._max_cells // len(result.columns)
            found = pl.DataFrame(result.limit(most + 1).to_arrow_table())
        check_cells(f"query {self.name}", found.height * found.width, self._max_cells)
        return {f"query {self.name}": found.lazy()}

    def fingerprint(self) -> tuple[SourceFile, ...]:
        """Return the SHA-256 of the text of the query, of the files by table, and of the database file."""
        query = SourceFile(name=self.name, sha256=self._digest)
        files = [
            SourceFile(name=f"{table}/{file.name}", sha256=file.sha256)
            for table, origin in self._tables.items()
            for file in origin.fingerprint()
        ]
        if self._database is not None:
            log = self._database.with_name(f"{self._database.name}.wal")  # what is not in the file itself yet
            files += [
                SourceFile(name=one.name, sha256=sha256_file(one)) for one in (self._database, log) if one.exists()
            ]
        return (query, *files)

    def _connected(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        def refused(why: str) -> SourceError:
            return SourceError(f"query {self.name}: DuckDB refused it: {why}")

        return connected(self._database, refused=refused, read_only=self._database is not None)

    def _check_reads(self, connection: duckdb.DuckDBPyConnection) -> None:
        kinds = [str(one.type).rpartition(".")[2] for one in connection.extract_statements(self._query)]
        if kinds != ["SELECT"]:
            raise ConfigError(f"a query of kind duckdb must be one SELECT, not {' and '.join(kinds) or 'empty'}")


def _rows(files: FilesOrigin) -> pl.LazyFrame:
    """Return the rows of all files of a table, which must have the same columns."""
    parts = files.read()
    first, *_ = parts
    columns = parts[first].collect_schema().names()
    for name, part in parts.items():
        check_same(name, part.collect_schema().names(), first, columns)
    return pl.concat([part.select(columns) for part in parts.values()], how="vertical_relaxed")
