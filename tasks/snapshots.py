"""Reading a snapshot of a cube: the span that a spec asks for, and what the commit says about its sources."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import xarray as xr

from schemas.contracts import SourceFile
from schemas.errors import DataError
from schemas.refs import SnapshotRef
from schemas.spec import RunSpec
from storage.cube import Cube
from tasks.workspace import Workspace


def open_span(space: Workspace, spec: RunSpec, snapshot: SnapshotRef) -> xr.Dataset:
    """Open the snapshot lazily, cut to the span of dates that the panel of a spec asks for."""
    cube = Cube.open(space.layout, spec.universe).open_dataset(snapshot.snapshot_id)
    span = cube.sel(date=slice(_stamp(spec.panel.start), _stamp(spec.panel.end)))
    if span.sizes["date"] == 0:
        dates = cube.indexes["date"]
        raise DataError(
            f"panel.start {spec.panel.start} and panel.end {spec.panel.end} leave no date; the cube of {spec.universe} "
            f"has {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}"
        )
    return span


def sources_of(space: Workspace, snapshot: SnapshotRef) -> tuple[SourceFile, ...]:
    """Name and hash of the inputs of the ingest that committed a snapshot."""
    history = Cube.open(space.layout, snapshot.universe).history()
    metadata = next((state.metadata for state in history if state.id == snapshot.snapshot_id), {})
    return tuple(SourceFile.model_validate(source) for source in metadata.get("sources", ()))


def _stamp(day: date | None) -> np.datetime64 | None:
    return None if day is None else pd.Timestamp(day).to_datetime64()
