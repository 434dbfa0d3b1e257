"""DuckDB, opened so that SQL reaches nothing but what it was given.

Here belongs how a connection is held: no file but its own, no network, no extension that is fetched or loaded by
itself, no setting that a query could change back. What is read or written through it belongs to the callers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ConfigError

if TYPE_CHECKING:
    import duckdb

_HELD: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "temp_directory": "",
    "threads": "1",
}
"""One thread: sums and rows come in one order."""


@contextmanager
def connected(
    database: Path | None, *, refused: Callable[[str], Exception], read_only: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database file, or one in memory, with its settings locked; close it at the end.

    Parameters
    ----------
    database : Path or None
        The file; None for one in memory.
    refused : callable
        Gives the error to raise from what DuckDB says, in a line.
    read_only : bool
        Whether nothing may be changed.

    Raises
    ------
    ConfigError
        If the package duckdb is not installed.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise ConfigError("DuckDB is not installed here; install the package duckdb") from None
    name = ":memory:" if database is None else str(database)
    try:
        with closing(duckdb.connect(name, read_only=read_only, config=_HELD)) as connection:
            connection.execute("SET python_enable_replacements = false")
            connection.execute("SET lock_configuration = true")
            yield connection
    except duckdb.Error as error:
        raise refused(str(error).strip().split("\n", 1)[0]) from None
