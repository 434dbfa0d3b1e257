"""DuckDB, opened so that SQL reaches nothing but what it was given.

Here belongs how a connection is held: no file but its own, no network, no extension that is fetched or loaded by
itself, no setting that a query could change back. What is read or written through it belongs to the callers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ConfigError

if TYPE_CHECKING:
    import duckdb

_HELD = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "temp_directory": "",
    "threads": "1",
}
"""One thread: sums and rows come in one order."""


def connected(database: Path | None, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a database file, or one in memory, and lock its settings.

    Raises
    ------
    ConfigError
        If the package duckdb is not installed.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise ConfigError("DuckDB is not installed here; install the package duckdb") from None
    connection = duckdb.connect(":memory:" if database is None else str(database), read_only=read_only, config=_HELD)
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET lock_configuration = true")
    return connection
