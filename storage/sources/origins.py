"""The port through which rows come in, and how an origin of a spec becomes one.

An origin gives rows and says what they were; it does not know what they mean. One adapter per kind: `files`,
`sql`, `duckdb`, `packaged`, and plugins, which other packages bring. Columns, dates and numbers are the business of
`frames`.

A plugin is an entry point of the group ``factorcube.origins``: a callable that takes the spec's ``options``
as one dict and returns an object with the two methods of `Origin`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import polars as pl

from schemas import sources as specs
from schemas.base import nearest
from schemas.contracts import SourceFile
from schemas.errors import SourceError
from schemas.settings import Settings
from storage.sources.duckdb import DuckdbOrigin
from storage.sources.files import FilesOrigin
from storage.sources.packaged import PackageOrigin

GROUP = "factorcube.origins"


@runtime_checkable
class Origin(Protocol):
    """Where rows come from."""

    def read(self) -> Mapping[str, pl.LazyFrame]:
        """Return the rows by the name of what holds them (a file, a query); only columns used are read."""
        ...

    def fingerprint(self) -> tuple[SourceFile, ...]:
        """Return name and SHA-256 of everything read; names hold no secrets and no paths of this machine."""
        ...


def open_origin(spec: specs.Origin, settings: Settings) -> Origin:
    """Return the origin that a spec declares.

    Raises
    ------
    ConfigError
        If a SQL source has no ``FACTORCUBE_SQL_URL``, or DuckDB is not installed.
    SourceError
        If a file, package or plugin does not exist.
    """
    if isinstance(spec, specs.FilesOrigin):
        return FilesOrigin(spec, settings.max_cells)
    if isinstance(spec, specs.SqlOrigin):
        from storage.sources.sql import SqlOrigin

        return SqlOrigin(spec.query, settings.sql_url, settings.max_cells)
    if isinstance(spec, specs.DuckdbOrigin):
        return DuckdbOrigin(spec, settings.max_cells)
    if isinstance(spec, specs.PackageOrigin):
        return PackageOrigin(spec.name)
    return _plugin(spec.name, spec.options)


def _plugin(name: str, options: dict[str, Any]) -> Origin:
    installed = entry_points(group=GROUP)
    if name not in installed.names:
        known = sorted(installed.names)
        hint = nearest(name, known) if known else "none is installed"
        raise SourceError(f"there is no plugin origin '{name}' in the entry points '{GROUP}' ({hint})")
    try:
        factory: Callable[[dict[str, Any]], Any] = installed[name].load()
    except (ImportError, AttributeError) as error:
        raise SourceError(f"plugin origin '{name}' cannot be imported: {error}") from None
    origin = factory(dict(options))
    if not isinstance(origin, Origin):
        raise SourceError(
            f"plugin origin '{name}' gave a {type(origin).__name__}, which has no read() and fingerprint()"
        )
    return origin
