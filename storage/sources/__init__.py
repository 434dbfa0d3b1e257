"""Reading what comes in: market data and factors, from files, databases, packages and plugins.

Nothing is written here. Where do I go to ...

* add a kind of origin (where rows come from): `origins`, beside `files`, `sql`, `duckdb` and `packaged`; or,
  outside this repository, an entry point of the group ``factorcube.origins``;
* change what counts as a date, a number or a missing value: `cells`; how a bad one is refused: `frames`;
  what is out of order or duplicated: `order`;
* change what a shape (long prices, wide returns, ...) becomes: `market`; how factors are joined and carried:
  `factors`; how industries hold over dates: `industries`;
* change when units are refused: `units`; what a session or a month label is: `calendars`.
"""

from __future__ import annotations

from schemas.contracts import SourceFile
from schemas.settings import Settings
from schemas.sources import FactorSource, IndustrySource, MarketSource
from storage.sources.calendars import next_session, normalise_dates, sessions
from storage.sources.factors import read_factors
from storage.sources.industries import open_industries, read_industries
from storage.sources.market import open_market, read_market
from storage.sources.origins import Origin, open_origin

__all__ = [
    "Origin",
    "fingerprint",
    "next_session",
    "normalise_dates",
    "open_industries",
    "open_market",
    "open_origin",
    "read_factors",
    "read_industries",
    "read_market",
    "sessions",
]


def fingerprint(source: MarketSource | FactorSource | IndustrySource, settings: Settings) -> tuple[SourceFile, ...]:
    """Return name and SHA-256 of everything that a source would read.

    Files and packaged datasets are hashed by their bytes, a query of a database by its
    rows whatever their order, one of DuckDB by its text and the files it may read. Names are
    file names, relative to the folder that the files have in common, so that the same data have the same
    fingerprint on any machine.

    Raises
    ------
    SourceError
        If the source cannot be read.
    ConfigError
        If a SQL source has no database.
    """
    return open_origin(source.origin, settings).fingerprint()
