"""Reading a snapshot of a cube: the span that a spec asks for, and what the commit says about its sources."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import numpy as np
import pandas as pd
import xarray as xr

from schemas.contracts import Ingest, SourceFile
from schemas.errors import DataError
from schemas.refs import SnapshotRef
from schemas.spec import Recipe, RunSpec, refuse_other_portfolios
from storage.cube import Cube
from tasks.workspace import Workspace


def open_span(space: Workspace, spec: RunSpec, snapshot: SnapshotRef) -> xr.Dataset:
    """Open the snapshot lazily, cut to the span of dates that the panel of a spec asks for.

    Tickers are in order, whatever order they came in: sums over a cross-section have the same bits, and its digest is
    the same.

    Raises
    ------
    DataError
        If no date is left, or the cube lacks a portfolio of the spec.
    ConfigError
        If the cube has another portfolio of the same name.
    """
    stored = Cube.open(space.layout, spec.universe)
    cube = _in_order(stored.open_dataset(snapshot.snapshot_id))
    recipe = stored.facts(snapshot.snapshot_id).get("recipe")
    if recipe is not None:
        refuse_other_portfolios(Recipe.model_validate(recipe).portfolios, spec.recipe.portfolios)
    missing = [item.name for item in spec.portfolios if item.name not in cube.indexes["portfolio"]]
    if missing:
        raise DataError(f"the cube of {spec.universe} has no portfolio '{missing[0]}'; ingest with this config first")
    span = cube.sel(date=slice(_stamp(spec.panel.start), _stamp(spec.panel.end)))
    if span.sizes["date"] == 0:
        dates = cube.indexes["date"]
        raise DataError(
            f"panel.start {spec.panel.start} and panel.end {spec.panel.end} leave no date; the cube of {spec.universe} "
            f"has {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}"
        )
    return span


def ingests_of(space: Workspace, snapshot: SnapshotRef) -> tuple[Ingest, ...]:
    """Return the deliveries and corrections of which a snapshot holds something, oldest first."""
    facts = Cube.open(space.layout, snapshot.universe).facts(snapshot.snapshot_id)
    return tuple(Ingest.model_validate(one) for one in facts.get("ingests", ()))


def sources_of(ingests: Iterable[Ingest]) -> tuple[SourceFile, ...]:
    """Name and hash of the inputs of some deliveries, each once."""
    return tuple(dict.fromkeys(file for one in ingests for file in one.sources))


def _in_order(cube: xr.Dataset) -> xr.Dataset:
    tickers = cube.indexes["ticker"]
    return cube if tickers.is_monotonic_increasing else cube.isel(ticker=np.argsort(tickers.to_numpy(dtype=str)))


def _stamp(day: date | None) -> np.datetime64 | None:
    return None if day is None else pd.Timestamp(day).to_datetime64()
