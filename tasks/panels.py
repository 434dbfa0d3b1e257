"""The step that builds the panel: read the cube block by block, write what models see, and name it by its content."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from models import Panel
from models.panel import panel_blocks
from schemas.errors import DataError
from schemas.refs import PanelRef, SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage.cube import Cube
from storage.sources import next_session
from tasks.provenance import key
from tasks.workspace import Workspace


@task(name="build panel", cache_policy=NO_CACHE)
def build_panel(spec: RunSpec, snapshot: SnapshotRef, settings: Settings) -> PanelRef:
    """Build the panel of a snapshot, with one row more: the next session, for loadings as of the last close."""
    space = Workspace(settings.root)
    panel_key = key(snapshot=snapshot.snapshot_id, panel=spec.panel.model_dump(mode="json"), calendar=spec.calendar)
    if not space.work.has("panels", panel_key):
        cube = open_span(spec, snapshot, settings)
        blocks = panel_blocks(
            cube,
            characteristics=spec.panel.characteristics,
            transform=spec.panel.transform,
            lag=spec.panel.lag,
            constant=spec.panel.constant,
            min_coverage=spec.panel.min_coverage,
            market_portfolio=spec.panel.market_portfolio,
            next_date=next_session(spec.calendar, spec.frequency, cube.indexes["date"][-1]),
            block=settings.block_dates,
        )
        space.work.put_dataset("panels", panel_key, blocks)
    panel = Panel(space.work.open_dataset("panels", panel_key))
    get_run_logger().info(
        "panel: %d dates x %d tickers x %d characteristics (%s)",
        len(panel.dates) - 1, len(panel.tickers), len(panel.chars), ", ".join(panel.chars),
    )  # fmt: skip
    return PanelRef(
        universe=spec.universe,
        key=panel_key,
        snapshot=snapshot,
        periods=len(panel.dates) - 1,
        tickers=len(panel.tickers),
        characteristics=len(panel.chars),
    )


def open_span(spec: RunSpec, snapshot: SnapshotRef, settings: Settings) -> xr.Dataset:
    """Open the snapshot lazily, cut to the span of dates that the panel asks for."""
    cube = Cube.open(Workspace(settings.root).layout, spec.universe).open_dataset(snapshot.snapshot_id)
    span = cube.sel(date=slice(_stamp(spec.panel.start), _stamp(spec.panel.end)))
    if span.sizes["date"] == 0:
        dates = cube.indexes["date"]
        raise DataError(
            f"panel.start {spec.panel.start} and panel.end {spec.panel.end} leave no date; the cube of {spec.universe} "
            f"has {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}"
        )
    return span


def _stamp(day: object) -> np.datetime64 | None:
    return None if day is None else pd.Timestamp(str(day)).to_datetime64()
