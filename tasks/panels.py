"""The step that builds the panel: read the cube block by block, write what models see, and name it by its content.

One panel holds all dates of a snapshot's span. What a fit or a run may know as of a date is a view of it: the rows up
to that date, the tickers that have appeared by then, and one row more for the next session, without its returns. The
bits of a view do not depend on what the panel holds beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from prefect import task
from prefect.cache_policies import NO_CACHE

from models import Panel
from models.panel.assembly import panel_blocks
from schemas.refs import Key, PanelRef, SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage.sources import next_session
from tasks.digests import Inputs, read_inputs, stored_inputs
from tasks.logs import run_logger
from tasks.provenance import key
from tasks.snapshots import open_span
from tasks.stages import Stage
from tasks.workspace import Workspace

_IN_MEMORY_BYTES = 2**29
"""A panel up to this size is kept in memory by each worker; a larger one is read block by block."""


def make_panel(spec: RunSpec, snapshot: SnapshotRef, as_of: date | None, settings: Settings) -> PanelRef:
    """Build the panel of a snapshot, unless it is there, and refer to what was known as of a date.

    Parameters
    ----------
    spec : RunSpec
        What a model sees.
    snapshot : SnapshotRef
        The data.
    as_of : date or None
        The last date that may be known; the last one of the snapshot if None.
    settings : Settings
        Where, and how many dates are in memory at a time.
    """
    space = Workspace.of(settings)
    inputs = read_inputs(space, spec, snapshot)
    facts = spec.panel.model_dump(mode="json", exclude={"start", "end"})
    panel_key = key(
        Stage.PANELS.code(), inputs=inputs.digests[-1], panel=facts, calendar=spec.calendar, frequency=spec.frequency
    )
    if not (space.work.has("panels", panel_key) and space.work.has("held", panel_key)):
        cube = open_span(space, spec, snapshot).isel(ticker=inputs.seen(len(inputs.dates) - 1))
        space.work.put_dataset("panels", panel_key, blocks_of(spec, cube, settings.block_dates))
        held = cube[["estimation", "weights"]].sel(portfolio=[item.name for item in spec.portfolios])
        space.work.put_dataset("held", panel_key, held.drop_attrs())
    last = inputs.as_of(as_of)
    ref = PanelRef(
        universe=spec.universe,
        key=panel_key,
        inputs=inputs.key,
        snapshot=snapshot,
        as_of=last,
        next_date=next_session(spec.calendar, spec.frequency, last).date(),
    )
    panel = known_panel(space, ref)
    run_logger().info(
        "panel as of %s: %d dates x %d tickers x %d characteristics (%s)",
        last, len(panel.dates) - 1, len(panel.tickers), len(panel.chars), ", ".join(panel.chars),
    )  # fmt: skip
    return ref


build_panel = task(name="build panel", task_run_name="panel of {spec.universe}", cache_policy=NO_CACHE)(make_panel)


def blocks_of(spec: RunSpec, cube: xr.Dataset, block: int) -> Iterator[xr.Dataset]:
    """Make the panel of a span of a cube block by block, with a row for the session after its last date."""
    return panel_blocks(
        cube,
        characteristics=spec.panel.characteristics,
        transform=spec.panel.transform,
        lag=spec.panel.lag,
        constant=spec.panel.constant,
        min_coverage=spec.panel.min_coverage,
        market_portfolio=spec.panel.market_portfolio,
        next_date=next_session(spec.calendar, spec.frequency, cube.indexes["date"][-1]),
        block=block,
    )


def known_panel(space: Workspace, ref: PanelRef) -> Panel:
    """Return what was known as of the panel's date, and the row of the next session."""
    panel, inputs = _stored(space.root, ref.key), panel_inputs(space, ref)
    position = inputs.position(ref.as_of)
    rows = panel.data.isel(date=slice(0, position + 2), ticker=_tickers(inputs, position))
    return _laid_out(blanked(rows, pd.Timestamp(ref.next_date)))


def past_panel(space: Workspace, ref: PanelRef, day: date | pd.Timestamp) -> Panel:
    """Return the rows up to a day, with the tickers that had appeared by then: the same whenever it is looked at."""
    panel, inputs = _stored(space.root, ref.key), panel_inputs(space, ref)
    position = inputs.position(day)
    return _laid_out(panel.data.isel(date=slice(0, position + 1), ticker=_tickers(inputs, position)))


def known_holdings(space: Workspace, ref: PanelRef) -> xr.Dataset:
    """Return portfolio weights and estimation universe up to the panel's as-of date, in memory."""
    inputs = panel_inputs(space, ref)
    position = inputs.position(ref.as_of)
    held = space.work.open_dataset("held", ref.key)
    known = held.isel(date=slice(0, position + 1), ticker=_tickers(inputs, position)).drop_attrs()
    return known.map(_contiguous)


def apart(rows: xr.Dataset) -> xr.Dataset:
    """Copy rows to memory of their own, so that no layout of what surrounds them has a say in how sums are rounded."""
    return rows.copy(data={name: np.array(array.values, order="C") for name, array in rows.data_vars.items()})


def panel_inputs(space: Workspace, ref: PanelRef) -> Inputs:
    """Return the digests of the data behind a panel."""
    return _inputs(space.root, ref.inputs)


def _tickers(inputs: Inputs, position: int) -> slice | np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Positions, on the panel's axis, of the tickers that have appeared by a date; a slice if that is all of them."""
    first_seen = inputs.first_seen[inputs.first_seen < len(inputs.dates)]
    return slice(None) if (first_seen <= position).all() else np.flatnonzero(first_seen <= position)


def _laid_out(rows: xr.Dataset) -> Panel:
    """Bring a view to one memory layout, since how sums are rounded depends on it.

    Characteristics of a panel that is too large to be in memory stay where they are; they are read block by block.
    """
    lazy = rows.nbytes > _IN_MEMORY_BYTES
    laid = rows.assign({n: _contiguous(rows[n]) for n in rows.data_vars if not (lazy and n == "characteristics")})
    if "industry" in laid:  # names that a later date brought were not known yet
        laid = laid.isel(industry_name=slice(0, int(laid["industry"].max()) + 1))
    return Panel(laid)


def _contiguous(array: xr.DataArray) -> xr.DataArray:
    return array.copy(data=np.ascontiguousarray(array.values))


def blanked(rows: xr.Dataset, next_date: pd.Timestamp) -> xr.Dataset:
    """Take from the last row what happened on it, and give it the label of the next session."""
    returns, mask = rows["returns"].load().copy(), rows["mask"].load().copy()
    returns[-1], mask[-1] = np.nan, False
    changed = {"returns": returns, "mask": mask}
    if "factors" in rows:
        changed["factors"] = rows["factors"].load().copy()
        changed["factors"][-1] = np.nan
    dates = pd.DatetimeIndex([*rows.indexes["date"][:-1], next_date]).as_unit("ns").rename("date")
    return rows.assign(changed).assign_coords(date=dates)


@lru_cache(maxsize=2)
def _stored(root: Path, name: Key) -> Panel:
    panel = Panel(Workspace(root).work.open_dataset("panels", name))
    return panel.load() if panel.data.nbytes <= _IN_MEMORY_BYTES else panel


@lru_cache(maxsize=4)
def _inputs(root: Path, name: Key) -> Inputs:
    return stored_inputs(Workspace(root), name)
