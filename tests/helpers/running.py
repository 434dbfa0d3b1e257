"""Steps of a run without Prefect and without worker processes, for tests of what the steps do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
from small_market import make_market, write_config

from schemas.refs import SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage.configs import load_spec
from tasks.allocating import with_allocations
from tasks.ingesting import check_data, find_snapshot, read_source, write_cube

LISTED = date(2016, 12, 2)
"""Day on which S003 is listed in `listing_market`."""


class Inline:
    """Stands for a `tasks.cluster.Cluster`: runs every call here, at once."""

    class _Done:
        def __init__(self, result: Any, error: Exception | None = None) -> None:
            self._result, self.error = result, error

        @property
        def result(self) -> Any:
            if self.error is not None:
                raise self.error
            return self._result

    def submit(self, function: Callable[..., Any], *arguments: Any, key: str) -> Any:
        del key
        try:
            return self._Done(function(*map(self._plain, arguments)))
        except Exception as error:  # noqa: BLE001  # as a future that has failed
            return self._Done(None, error)

    def _plain(self, argument: Any) -> Any:
        if isinstance(argument, list):
            return [self._plain(item) for item in argument]
        return argument.result if isinstance(argument, self._Done) else argument

    def gather_each(
        self,
        futures: Mapping[str, Sequence[Any]],
        describe: Callable[[Any], str],
        progress: Callable[[int, int], None] | None = None,
        needs: Mapping[str, Sequence[str]] | None = None,
    ) -> tuple[dict[str, list[Any]], dict[str, Exception]]:
        del describe, progress, needs
        errors = {name: [one.error for one in own if one.error is not None] for name, own in futures.items()}
        found = {name: [one.result for one in own] for name, own in futures.items() if not errors[name]}
        return found, {name: of_model[0] for name, of_model in errors.items() if of_model}


def ingested(spec: RunSpec, settings: Settings, start: date | None = None, end: date | None = None) -> SnapshotRef:
    """Ingest as the flow does."""
    spec = with_allocations(spec, settings)
    raw = read_source(spec, settings, start, end)
    known = find_snapshot(spec, raw, settings)
    return known or write_cube(spec, raw, check_data(spec, raw, settings), settings)


def listing_market() -> pl.DataFrame:
    """Make a small market to the end of 2016, in which S003 is listed in December."""
    unlisted = (pl.col("ticker") == "S003") & (pl.col("date") < LISTED)
    return make_market(stocks=26).filter(~unlisted)


def deliver(folder: Path, market: pl.DataFrame, until: date | None = None, **changes: Any) -> RunSpec:
    """Put a file of prices up to a date where the config of the folder expects it; return the spec, changed."""
    known = market if until is None else market.filter(pl.col("date") <= until)
    folder.mkdir(parents=True, exist_ok=True)
    known.write_parquet(folder / "prices.parquet")
    return load_spec(write_config(folder, changes))
