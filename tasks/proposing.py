"""A first config for files that somebody has: opened, guessed at, read as an ingest would, and written down.

Here belongs the way from files to the text of a config. Guesses about a table are `storage.sources.sniffing`. It
imports no Prefect, no torch and no store, so that the answer comes within seconds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import polars as pl
import xarray as xr
from pydantic import TypeAdapter

from schemas.base import Frozen, Name
from schemas.errors import DataError, SourceError
from schemas.settings import Settings
from schemas.sources import FilesOrigin, MarketSource
from storage import sources
from storage.sources.sniffing import Findings, sniff

_SEPARATORS = get_args(FilesOrigin.model_fields["separator"].annotation)
_LOOKED_AT = 20_000
"""Rows of the first file by which it is judged."""
_FEWEST = 12
"""Fewest dates of which a config is made."""


class _Universe(Frozen):
    universe: Name


@dataclass(frozen=True)
class Proposal:
    """A config, and what was seen of the files.

    Attributes
    ----------
    config : str
        YAML, with a comment wherever something was assumed.
    seen : list of str
        What the files hold, a line each.
    unsure : list of str
        What was assumed, a line each.
    """

    config: str
    seen: list[str]
    unsure: list[str]


def propose(paths: Sequence[Path], universe: str, folder: Path, settings: Settings) -> Proposal:
    """Look at files, and propose a config in a folder that reads them.

    Raises
    ------
    ConfigError
        If the universe cannot be called so.
    SourceError, DataError
        If a file cannot be read, or it cannot be told what it holds; the message names the file or the column.
    """
    _Universe.parse({"universe": universe}, origin="--universe")
    origin, what, table = _opened(paths, settings)
    found = sniff(table, what)
    written: dict[str, Any] = {"kind": "files", "paths": [_relative(path, folder) for path in paths]}
    written |= origin.model_dump(mode="json", include={"separator"}, exclude_defaults=True)
    written |= {"file_name_as": "ticker"} if found.file_is_ticker else {}
    source: Any = TypeAdapter(MarketSource).validate_python({**found.source, "origin": written})
    source = source.resolved(folder)
    calendar, market = _market(source, found, settings)
    dates = pd.DatetimeIndex(market.indexes["date"])
    if len(dates) < _FEWEST:
        raise DataError(f"{what}: has {len(dates)} dates; a config needs {_FEWEST} at least")
    unsure = {**found.assumed, "calendar": _why(calendar, found), "currency": "no file says it"}
    if found.file_is_ticker:
        unsure["file_name_as"] = "no column names the ticker, so the file's name is taken for it"
    config = _config(universe, found, written, calendar, dates, unsure)
    return Proposal(config, _seen(found, market, dates), [f"{key}: {why}" for key, why in unsure.items()])


def _opened(paths: Sequence[Path], settings: Settings) -> tuple[FilesOrigin, str, pl.DataFrame]:
    """Open files with the first separator by which they have more than one column."""
    refused: SourceError | None = None
    for separator in _SEPARATORS:
        origin = FilesOrigin.model_validate({"paths": [path.absolute() for path in paths], "separator": separator})
        try:
            what, rows = next(iter(sources.open_origin(origin, settings).read().items()))
            table = rows.head(_LOOKED_AT).collect()
        except SourceError as error:
            refused = refused or error
        else:
            if table.width > 1 and table.height:
                return origin, what, table
    raise refused or SourceError(f"{paths[0]}: has no rows, or one column only; is it what it should be?")


def _market(source: Any, found: Findings, settings: Settings) -> tuple[str, xr.Dataset]:
    """Read the files as an ingest would, on the sessions of New York if all dates are some."""
    read = partial(sources.read_market, source, settings=settings, frequency=found.frequency)
    if found.frequency == "daily":
        try:
            return "XNYS", read(calendar="XNYS")
        except DataError:
            pass
    return "none", read(calendar="none")


def _why(calendar: str, found: Findings) -> str:
    if calendar == "XNYS":
        return "every date is a session of New York; another exchange may have had the same ones"
    if found.frequency == "monthly":
        return "months are taken as they come"
    return "some dates are no sessions of New York; name the exchange, so that missing days are seen"


def _seen(found: Findings, market: xr.Dataset, dates: pd.DatetimeIndex) -> list[str]:
    values = market["close" if "close" in market else "returns"]
    known = np.isfinite(values.values)
    empty = [str(name) for name in market.indexes["ticker"][~known.any(axis=0)]]
    tickers = market.indexes["ticker"]
    seen = [
        f"shape: {found.source['shape']}, {found.frequency}",
        f"dates: {len(dates)}, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}",
        f"tickers: {len(tickers)}, {', '.join(map(str, tickers[:4]))}{', ...' if len(tickers) > 4 else ''}",
        f"gaps: {1.0 - known.mean():.1%} of dates and tickers have no {values.name}",
    ]
    if "units" in found.source:
        seen.append(f"units: {found.source['units']}")
    if empty:
        seen.append(f"without any number: {', '.join(empty[:8])}")
    if found.unused:
        seen.append(f"columns that are not used: {', '.join(found.unused)}")
    return seen


def _config(
    universe: str,
    found: Findings,
    origin: dict[str, Any],
    calendar: str,
    dates: pd.DatetimeIndex,
    unsure: dict[str, str],
) -> str:
    def line(key: str, value: Any, indent: str = "") -> str:
        why = f"  # assumed: {unsure[key]}" if key in unsure else ""
        return f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}{why}"

    first = f"{dates[len(dates) * 2 // 3]:%Y-%m-%d}"
    lines = [
        "# Proposed by `factorcube init` from the files alone. Read what is assumed, then `factorcube check` it.",
        line("universe", universe),
        line("frequency", found.frequency),
        line("calendar", calendar),
        line("currency", "USD"),
        "",
        "data:",
        line("shape", found.source["shape"], "  "),
        "  origin:",
        *(line(key, value, "    ") for key, value in origin.items()),
        *(line(key, value, "  ") for key, value in found.source.items() if key != "shape"),
        "",
        "models:",
        "  - kind: market  # examples/README.md shows the others",
        "",
        "walk_forward:",
        f"  first: {first}  # assumed: two thirds of the dates are history before the first fit",
        "  every: quarter",
    ]
    return "\n".join(lines) + "\n"


def _relative(path: Path, folder: Path) -> str:
    """Return a path as a config in a folder names it: relative where it lies inside."""
    whole = path.absolute()
    return str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole)
